"""Texts and encoded pages of a data set, read without decoding: their hashes, and whether they can be read."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import pyarrow as pa
from datasets import Dataset, Image
from tqdm.auto import tqdm

from experiments.config.errors import ConfigError
from experiments.data.media import AUDIO, MODALITIES, VIDEO

EMPTY = "empty"
NOTHING = b"None"  # hashed for an empty value, as the library's sampler does
ROWS_AT_ONCE = 32  # rows of a few pages each: tens of megabytes
logger = logging.getLogger(__name__)

# A file that is cut off lacks the end of its format.
IMAGE_ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}


class Defect(NamedTuple):
    """A value that cannot be used."""

    row: int
    column: str
    reason: str


class HashedRows(Dataset):
    """Rows that bring along what one reading found: hashes of values, by column, (num_rows,) each, int64; and defects.

    Not a column of hashes: the library would put it on the model card and hand it to the loss, and adding one to rows
    with an indices mapping copies every page. What selects or maps rows returns a plain `Dataset`, which has no
    hashes; what selects columns or sets a transform keeps them.
    """

    def __init__(self, rows: Dataset, hashes: dict[str, np.ndarray], defects: Sequence[Defect] = ()) -> None:
        self.__dict__ = dict(vars(rows))  # the same table, indices and format
        self.hashes = hashes
        self.found = defects

    @property
    def defects(self) -> list[Defect]:
        """What cannot be used in these columns."""
        return [defect for defect in self.found if defect.column in self.column_names]

    def rename_columns(self, column_mapping: dict[str, str], **kwargs: Any) -> HashedRows:
        """Rename the hashes, too."""
        renamed = super().rename_columns(column_mapping, **kwargs)
        return HashedRows(renamed, {column_mapping.get(name, name): each for name, each in self.hashes.items()})

    def rename_column(self, original_column_name: str, new_column_name: str, **kwargs: Any) -> HashedRows:
        """Rename the hashes, too."""
        return self.rename_columns({original_column_name: new_column_name})


def content_hash(value: bytes | memoryview) -> int:
    """Return the one hash of a content: the first 8 bytes of its SHA-256, as a signed integer."""
    return int.from_bytes(hashlib.sha256(value).digest()[:8], "big", signed=True)


def content_id(content: int) -> str:
    """Return a hash as the 16 hexadecimal digits that SHA-256 begins with."""
    return f"{content % 2**64:016x}"


def content_hashes(dataset: Dataset) -> np.ndarray:
    """Return a hash of each value: of an image's encoded bytes (its file's, if only a path is stored) or of the text.

    Nothing is decoded. Two encodings of the same pixels have different hashes. What `HashedRows` bring along isn't
    read again. The array has shape (num_rows, num_columns), int64.

    Raises:
        ConfigError: A page file is missing.
    """
    known = dataset.hashes if isinstance(dataset, HashedRows) else {}
    if unknown := [name for name in dataset.column_names if name not in known]:
        known = known | _read(dataset.select_columns(unknown), check=False)[0]
    return np.column_stack([known[name] for name in dataset.column_names])


def read(rows: Dataset) -> HashedRows:
    """Read all values, the one time that every page is: it finds hashes, and what is empty or no readable image.

    Of grey pages with more than 8 bits, which turn white, a warning gives the number.

    Raises:
        ConfigError: A page file is missing.
    """
    return HashedRows(rows, *_read(rows, check=True))


def _read(dataset: Dataset, check: bool) -> tuple[dict[str, np.ndarray], list[Defect]]:
    names, features = dataset.column_names, dataset.features  # a copy, which takes longer than hashing a text
    hashes = np.zeros((len(names), len(dataset)), dtype=np.int64)
    defects, deep = [], []
    for row, column, value in encoded_values(dataset):
        hashes[column, row] = content_hash(NOTHING if value is None else value)
        if not check:
            continue
        if value is None:
            defects.append(Defect(row, names[column], EMPTY))
        elif isinstance(features[names[column]], Image):
            if reason := image_defect(value):
                defects.append(Defect(row, names[column], reason))
            elif _is_deep(value):
                deep.append((row, names[column]))
    if deep:
        logger.warning(
            "%s grey pages have more than 8 bits a pixel, first row %d (from 0) of column %s: whatever is above 255 "
            "turns white, here as in the library; save them with 8 bits",
            *(f"{len(deep):,}", *min(deep)),
        )
    return dict(zip(names, hashes, strict=True)), defects


def image_defect(data: bytes | memoryview) -> str | None:
    """Return why these bytes are no readable image, or None.

    The header must open, and a PNG or JPEG must end as its format does: less than a hundredth of what decoding costs.
    Other formats, and PNG or JPEG files with another ending (cut off, or followed by something), are decoded.
    Damage in the middle of a file is not found.
    """
    try:
        with PIL.Image.open(BytesIO(data)) as image:
            end = IMAGE_ENDS.get(image.format or "")
            if end is None or bytes(data[-len(end) :]) != end:
                image.load()
    except PIL.UnidentifiedImageError:
        return "not a readable image (no known image format)"
    except Exception as error:  # Pillow's plugins raise what they like: SyntaxError, struct.error, EOFError, ...
        return f"not a readable image ({error})"
    return None


def _is_deep(data: bytes | memoryview) -> bool:
    """Return whether an image has one channel of more than 8 bits, which Pillow cuts off when it makes RGB of it."""
    with PIL.Image.open(BytesIO(data)) as image:
        return image.mode.startswith(("I", "F"))


def encoded_values(dataset: Dataset) -> Iterator[tuple[int, int, bytes | memoryview | None]]:
    """Yield (row, column number, value) for all values: encoded image, UTF-8 text, or None where there is none."""
    what = "pages" if any(isinstance(feature, Image) for feature in dataset.features.values()) else "texts"
    with tqdm(total=len(dataset), desc=f"reading {what}", unit="row", delay=2, disable=None, leave=False) as bar:
        start = 0
        for table in dataset.with_format("arrow").iter(batch_size=ROWS_AT_ONCE):
            for column, name in enumerate(dataset.column_names):
                for row, value in enumerate(_storage(table[name]), start):
                    try:
                        yield row, column, _content(value)
                    except OSError as error:
                        where = f"row {row} (from 0) of column {name}"
                        raise ConfigError(f"{where}: no page file {error.filename} ({error.strerror})") from error
            start += len(table)
            bar.update(len(table))


def _storage(values: pa.ChunkedArray) -> Iterator[pa.Scalar]:
    for chunk in values.chunks:
        yield from chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk


def _content(value: pa.Scalar) -> bytes | memoryview | None:
    """Return bytes that equal values share: a media file's for its name; None where there is none, or half of one."""
    if not value.is_valid:
        return None
    if isinstance(value, pa.StructScalar):
        if value.type.get_field_index("bytes") >= 0:  # a file's, or its path
            data, path = value["bytes"], value["path"]
            if data.is_valid:
                return memoryview(data.as_buffer())
            return Path(path.as_py()).read_bytes() if path.is_valid else None
        parts = {name: _content(value[name]) for name in sorted(value)}
        if set(parts) <= MODALITIES and None in parts.values():
            return None
        return b"".join(name.encode() + b"=" + (part or NOTHING) for name, part in parts.items())
    if isinstance(value, pa.ListScalar | pa.LargeListScalar | pa.FixedSizeListScalar):
        array, shape = value.values, []
        while isinstance(array, pa.ListArray | pa.LargeListArray | pa.FixedSizeListArray):
            shape.append(len(array))
            array = array.flatten()
        if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
            return repr([*shape, len(array)]).encode() + array.to_numpy(zero_copy_only=False).tobytes()
        return b"".join(_content(item) or NOTHING for item in array)
    text = str(value.as_py())
    return Path(text).read_bytes() if text.lower().endswith(AUDIO + VIDEO) and Path(text).is_file() else text.encode()
