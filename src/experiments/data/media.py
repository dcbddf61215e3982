"""What an input may be besides a text or an encoded image: arrays, sounds, videos, several at once."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Audio, Dataset, Image, LargeList, List, Sequence, Value, Video
from datasets.features.features import _ArrayXD

from experiments.config.errors import ConfigError

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
AUDIO = (".wav", ".mp3", ".flac", ".ogg", ".aac")
VIDEO = (".mp4", ".avi", ".mov", ".wmv", ".flv", ".mkv")
MODALITIES = {"text", "image", "audio", "video"}


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
