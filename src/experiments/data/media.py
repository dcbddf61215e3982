"""What an input may be besides a text or an encoded image: files, URLs, arrays, sounds, videos, several at once.

The library decides by form what it reads: a text that names a media file that exists is that file, one that names none
is read as a text. Here such a name is refused instead.
"""

from __future__ import annotations

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import numpy as np
from datasets import Audio, Dataset, Image, LargeList, List, Sequence, Value, Video, config
from datasets.features.features import _ArrayXD

from experiments.config.errors import ConfigError
from experiments.runs.files import replacing

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
AUDIO = (".wav", ".mp3", ".flac", ".ogg", ".aac")
VIDEO = (".mp4", ".avi", ".mov", ".wmv", ".flv", ".mkv")
EXTENSIONS = {"image": IMAGES, "audio": AUDIO, "video": VIDEO}
MODALITIES = {"text", "image", "audio", "video"}


def is_url(text: str) -> bool:
    """Return whether a text is the URL of something to read."""
    return re.fullmatch(r"https?://\S+", text) is not None


def file_kind(text: str, folder: Path) -> str | None:
    """Return image, audio or video if a text names such a file, there or not; None for other texts."""
    name = text.partition("?")[0].lower() if is_url(text) else text.lower()
    kind = next((kind for kind, extensions in EXTENSIONS.items() if name.endswith(extensions)), None)
    # A sentence may end in the name of a file; only a file that is there has blanks in its name.
    return kind if kind and (not re.search(r"\s", text) or (folder / text).is_file()) else None


class Origin(NamedTuple):
    """Where rows come from: the folder that names of files in them start from, and what the rows are."""

    folder: Path
    where: str  # in messages
    name: str  # in the names of documents


def with_files(dataset: Dataset, names: list[str], origin: Origin, first_row: int = 0) -> tuple[Dataset, list[str]]:
    """Turn columns of file names into images that are read from their files, or into full paths of other media.

    Returned are the rows, and which columns these are.

    Images given by URLs are downloaded, once; other media by URLs are left to the library, and columns that are
    missing to `from_rows.build`. The first row is number `first_row` in its origin.

    Raises:
        ConfigError: A file is missing, or only some of a column's values name files of one kind.
    """
    folder, where, _ = origin
    of_files = []
    for column in [name for name in names if name in dataset.column_names]:
        if not isinstance(feature := dataset.features[column], Value) or "string" not in feature.dtype:
            continue
        values = dataset[column][:]
        kinds = [None if value is None else file_kind(value, folder) for value in values]
        kind = next(filter(None, kinds), None)
        if kind is None:
            continue
        of_files.append(column)
        what = "page" if kind == "image" else kind
        files: list[str | None] = []
        for row, (value, found) in enumerate(zip(values, kinds, strict=True), start=first_row):
            if value is not None and found != kind:
                raise ConfigError(
                    f"{where}, row {row} (from 0) of column {column}: {value!r} is no {kind} file, while other rows "
                    f"have one; a column holds files or texts, a {what}'s name ends in {', '.join(EXTENSIONS[kind])}"
                )
            file = value if value is None or is_url(value) else str((folder / value).absolute())
            if file is not None and not is_url(file) and not Path(file).is_file():
                raise ConfigError(f"{where}, row {row} (from 0) of column {column}: no {what} file {file}")
            files.append(file)
        if kind == "image":
            files = _downloaded(files, f"{where}, column {column}")
            pages = [None if file is None else {"bytes": None, "path": file} for file in files]
            dataset = dataset.remove_columns(column).add_column(column, pages, feature=Image())
        elif files != values:
            dataset = dataset.remove_columns(column).add_column(column, files, feature=Value("string"))
    return dataset, of_files


def _downloaded(files: list[str | None], where: str) -> list[str | None]:
    """Return the files with URLs replaced by local copies, kept in the cache of the datasets library."""
    urls = [*dict.fromkeys(file for file in files if file is not None and is_url(file))]
    with ThreadPoolExecutor(8) as pool:
        copies = dict(zip(urls, pool.map(partial(_download, where=where), urls), strict=True))
    return [file if file is None else copies.get(file, file) for file in files]


def _download(url: str, where: str) -> str:
    file = Path(config.HF_DATASETS_CACHE) / "pages" / hashlib.sha256(url.encode()).hexdigest()
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with urlopen(Request(url, headers={"User-Agent": "experiments"}), timeout=60) as answer:
                with replacing(file) as unfinished:
                    unfinished.write_bytes(answer.read())
        except (OSError, ValueError, HTTPException) as error:
            raise ConfigError(f"{where}: could not download {url} ({error})") from error
    return str(file)


def kind_of(feature: Any) -> str | None:
    """Return what a column of a feature holds, in words; None if the library takes no such inputs."""
    if isinstance(feature, Value):
        return "texts" if feature.dtype in ("string", "large_string") else None
    for type_, kind in ((Image, "images"), (Audio, "sounds"), (Video, "videos")):
        if isinstance(feature, type_):
            return kind
    if isinstance(feature, dict):
        if feature and set(feature) <= MODALITIES:
            return f"dicts of {' and '.join(sorted(feature))}"
        return "arrays" if "array" in feature and {"sampling_rate", "video_metadata"} & set(feature) else None
    if isinstance(feature, _ArrayXD):
        return "arrays"
    if isinstance(feature, List | LargeList | Sequence):
        leaf = _leaf(feature)
        numbers = isinstance(leaf, Value) and leaf.dtype.startswith(("int", "uint", "float"))
        return "arrays" if numbers else "frames" if isinstance(leaf, Image) else None
    return None


def _leaf(feature: Any) -> Any:
    return _leaf(feature.feature) if isinstance(feature, List | LargeList | Sequence) else feature


def _with_arrays(batch: dict[str, list], columns: dict[str, str | None]) -> dict[str, list]:
    """Return the batch with lists of numbers as arrays, lists of images and video files as videos.

    Args:
        batch: Values by column.
        columns: Those that hold them, with the type of their numbers, None for images, "file" for video files.
    """
    return batch | {
        column: [None if value is None else _array(value, dtype) for value in batch[column]]
        for column, dtype in columns.items()
        if column in batch
    }


def _array(value: Any, dtype: str | None) -> Any:
    if dtype is None:
        return {"video": value}
    if dtype == "file":
        return _video(value)
    if isinstance(value, dict):
        return value | {"array": np.asarray(value["array"], dtype=dtype)}
    return np.asarray(value, dtype=dtype)


def _video(path: str) -> dict[str, Any]:
    """Return the frames of a file, (num_frames, height, width, 3), by PyAV: it brings FFmpeg along."""
    from transformers.video_utils import load_video

    try:
        frames, metadata = load_video(path, backend="pyav")  # type: ignore[arg-type]  # its annotation forgets paths
    except ImportError as error:
        raise ConfigError("video files need PyAV; type pip install -e '.[media]'") from error
    return {"array": frames, "video_metadata": {"fps": metadata.fps, "total_num_frames": len(frames)}}


def _holds_video_files(dataset: Dataset, name: str) -> bool:
    feature = dataset.features[name]
    if not isinstance(feature, Value) or "string" not in feature.dtype or not len(dataset):
        return False
    first = dataset.select_columns([name])[0][name]
    return isinstance(first, str) and first.lower().endswith(VIDEO) and Path(first).is_file()


def readable(dataset: Dataset) -> Dataset:
    """Return rows whose arrays and videos are as the library takes them: 1 or 2 axes sound, 3 image, 4 video."""
    columns = {}
    for name, feature in dataset.features.items():
        if kind_of(feature) in ("arrays", "frames"):
            leaf = _leaf(feature["array"] if isinstance(feature, dict) else feature)
            dtype = getattr(leaf, "dtype", None) if not isinstance(leaf, Image) else None
            columns[name] = "float32" if dtype == "float64" else dtype
        elif _holds_video_files(dataset, name):
            columns[name] = "file"
    return dataset.with_transform(partial(_with_arrays, columns=columns)) if columns else dataset
