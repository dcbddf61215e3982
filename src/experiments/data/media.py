"""Pages, audio, video and their combinations as columns: files in tables, arrays in data sets, read row by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Audio, Dataset, Image, LargeList, List, Value, Video
from datasets.features.features import _ArrayXD

from experiments.errors import ConfigError

# Endings by what a column of such files is stored as: the file's path, nothing decoded.
FILES = (
    (Image(), (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")),
    (Audio(decode=False), (".wav", ".flac", ".mp3", ".ogg", ".aac")),
    (Video(decode=False), (".mp4", ".avi", ".mov", ".wmv", ".flv", ".mkv")),
)
ENDINGS = tuple(ending for _, endings in FILES for ending in endings)
MODALITIES = {"text", "image", "audio", "video"}


def with_files(dataset: Dataset, names: Sequence[str], file: Path, first_row: int = 0, *, strict: bool) -> Dataset:
    """Turn columns of paths into columns of files, which are read from there whenever a row is.

    Args:
        dataset: Rows as they were loaded.
        names: The columns in use; those that are missing are left to `common.build`.
        file: The table, whose folder the paths start from.
        first_row: Row of the table that is the first of `dataset`.
        strict: Refuse a column that holds both paths and other texts; else it holds texts.

    Raises:
        ConfigError: If a file is missing, or a column holds files of several kinds or, if strict, texts too.
    """
    for column in [name for name in names if name in dataset.column_names]:
        if not isinstance(feature := dataset.features[column], Value) or "string" not in feature.dtype:
            continue
        values = dataset[column][:]
        if not any(map(_is_path, values)):
            continue
        kind, endings = next(each for each in FILES if next(filter(_is_path, values)).lower().endswith(each[1]))
        if not strict and not all(value is None or _is_path(value) for value in values):
            continue
        cells = [
            None if value is None else _cell(value, endings, file, f"row {row} (from 0) of column {column}")
            for row, value in enumerate(values, start=first_row)
        ]
        dataset = dataset.remove_columns(column).add_column(column, cells, feature=kind)
    return dataset


def _is_path(value: str | None) -> bool:
    return value is not None and value.lower().endswith(ENDINGS) and not value.startswith(("http://", "https://"))


def _cell(value: str, endings: tuple[str, ...], file: Path, where: str) -> dict[str, str | None]:
    if not value.lower().endswith(endings):
        kind = {".jpg": "image", ".wav": "audio", ".mp4": "video"}[endings[0]]
        raise ConfigError(
            f"{file}, {where}: {value!r} is no {kind} file, while other rows have one; a column holds files of one "
            f"kind or texts, and a page's name ends in {', '.join(FILES[0][1])}"
        )
    path = (file.parent / value).absolute()
    if not path.is_file():
        raise ConfigError(f"{file}, {where}: no page file {path}")
    return {"bytes": None, "path": str(path)}


def stored(feature: Any) -> Any:
    """Return what a column of this feature is kept as, with nothing decoded; None if it holds no input of a model."""
    if isinstance(feature, Audio):
        return Audio(sampling_rate=feature.sampling_rate, decode=False)
    if isinstance(feature, Video):
        return Video(decode=False)
    parts = feature if isinstance(feature, dict) else {}
    combined = set(parts) <= MODALITIES and parts or {"array", "sampling_rate"} <= set(parts)
    return feature if combined or _is_array(feature) or _is_frames(feature) else None


def is_file(feature: Any) -> bool:
    """Return whether a column holds {bytes, path} of files."""
    return isinstance(feature, Image | Audio | Video)


def kind(feature: Any) -> str:
    """Return what a column holds, in words."""
    kinds = {Value: "texts", Image: "images", Audio: "audio", Video: "video"}
    return kinds.get(type(feature), str(feature))


class ReadMedia:
    """A transform of datasets: rows as they are stored in, inputs of a model out."""

    def __init__(self, features: dict[str, Any]) -> None:
        self.features = features

    def __call__(self, batch: dict[str, list]) -> dict[str, list]:
        """Return the batch with arrays as arrays, videos decoded, and sounds decoded or, from files, as paths."""
        return {
            column: [read(self.features[column], value) for value in values] if column in self.features else values
            for column, values in batch.items()
        }


def readable(dataset: Dataset) -> Dataset:
    """Return the rows with audio, video, arrays and combinations as a model takes them; others as they are."""
    features = {name: each for name, each in dataset.features.items() if not isinstance(each, Value | Image)}
    return dataset.with_transform(ReadMedia(features)) if features else dataset


def read(feature: Any, value: Any) -> Any:
    """Return a stored value as the library takes it."""
    if value is None or isinstance(feature, Value | Image):
        return value
    if isinstance(feature, Video):
        return _video(value)
    if isinstance(feature, Audio):
        return value["path"] if value["bytes"] is None else _audio(value["bytes"])
    if isinstance(feature, dict):
        return {name: read(part, value[name]) for name, part in feature.items() if value[name] is not None}
    if _is_frames(feature):
        return np.stack([np.asarray(frame.convert("RGB")) for frame in value])
    return np.asarray(value, dtype=next(_dtypes(feature)))


def _audio(encoded: bytes) -> dict[str, Any]:
    import soundfile

    array, sampling_rate = soundfile.read(BytesIO(encoded), dtype="float32")
    return {"array": array if array.ndim == 1 else array.mean(axis=1), "sampling_rate": sampling_rate}


def _video(value: dict[str, Any]) -> dict[str, Any]:
    """Return the frames, (num_frames, height, width, 3), by PyAV, which brings FFmpeg along; torchcodec doesn't."""
    from transformers.video_utils import load_video

    if value["path"] is None:
        raise ConfigError("a video is stored inside the data set; write it to a file and name that in the column")
    try:
        frames, metadata = load_video(value["path"], backend="pyav")
    except ImportError as error:
        raise ConfigError("video files need PyAV; type pip install -e '.[media]'") from error
    return {"array": frames, "video_metadata": {"fps": metadata.fps, "total_num_frames": len(frames)}}


def _is_frames(feature: Any) -> bool:
    return isinstance(feature, List | LargeList) and isinstance(feature.feature, Image)


def _is_array(feature: Any) -> bool:
    return next(_dtypes(feature), "").startswith(("float", "int", "uint"))


def _dtypes(feature: Any) -> Iterator[str]:
    """Yield the type of the numbers in nested lists of them."""
    if isinstance(feature, _ArrayXD):
        yield feature.dtype
    while isinstance(feature, List | LargeList):
        feature = feature.feature
        if isinstance(feature, Value):
            yield feature.dtype
