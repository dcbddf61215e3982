"""Which columns of texts name files: of pages, sounds or videos; such columns are read from there.

The library decides by form what it reads: a text that names a media file that exists is that file, one that names none
is embedded as a text. Here what looks like a file and isn't there is refused instead, unless it is said to be a text.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.request import Request, urlopen

import pyarrow as pa
from datasets import Dataset, Features, Image, Value, config

from experiments.config.errors import ConfigError
from experiments.data.media import AUDIO, IMAGES, VIDEO
from experiments.data.named_files import LONGEST_PATH
from experiments.runs.files import replacing

EXTENSIONS = {"image": IMAGES, "audio": AUDIO, "video": VIDEO}
UNREAD = (  # files that no model reads
    *(".pdf", ".doc", ".docx", ".ppt", ".pptx", ".xls", ".xlsx", ".odt", ".odp", ".ods", ".epub", ".djvu", ".ps"),
    *(".eps", ".svg", ".heic", ".heif", ".avif", ".jp2", ".zip"),
)
OF_TEXT = (".txt", ".md", ".htm", ".html", ".xml", ".json", ".csv", ".tex")  # that a text may end in by itself
UNCLEAR = "unclear"
ALMOST_ALL, ENOUGH = 0.9, 3  # of values that look like files, for the others of a column to be files
VALUES_AT_ONCE = 10_000
logger = logging.getLogger(__name__)


class Origin(NamedTuple):
    """Where rows come from: the folder that names of files in them start from, and what the rows are."""

    folder: Path
    where: str  # in messages
    name: str  # in the names of documents
    first_row: int = 0  # the number there of the first of these rows
    first_line: int | None = None  # of a CSV that has a line for each row: where row 0 is, counted from 1

    def cell(self, row: int, column: str) -> str:
        """Say where a cell is: `own.csv, row 28 (from 0; line 30) of column page`; of these rows it is in the row."""
        number = self.first_row + row
        line = "" if self.first_line is None else f"; line {self.first_line + number}"
        return f"{self.where}, row {number} (from 0{line}) of column {column}"


class Asked(NamedTuple):
    """What a column is said to hold: text, file or auto, and the key that says so."""

    kind: str
    key: str


def is_url(text: str) -> bool:
    """Return whether a text is the URL of something to read."""
    return re.fullmatch(r"https?://\S+", text) is not None


def file_kind(text: str, folder: Path) -> str | None:
    """Return what a text looks like: an image, audio, video or unread file, there or not; unclear; None: a text."""
    if len(text) >= LONGEST_PATH:
        return None
    name = text.partition("?")[0].lower() if is_url(text) else text.lower()
    kinds = EXTENSIONS | {"unread": UNREAD}
    kind = next((kind for kind, extensions in kinds.items() if name.endswith(extensions)), None)
    has_blanks = re.search(r"\s", text) is not None
    # A sentence may end in the name of a file; only one that is there, or whose folder is, has blanks in its name.
    if kind and (not has_blanks or os.path.isfile(folder / text) or _is_in_a_folder(text, folder)):
        return kind
    looks_like_path = not has_blanks and (re.search(r"[/\\]", text) or name.endswith(OF_TEXT))
    return UNCLEAR if kind or looks_like_path else None


def _is_in_a_folder(text: str, folder: Path) -> bool:
    return re.match(r"[^\s/\\]+[/\\]", text) is not None and os.path.isdir(os.path.dirname(folder / text))


def with_files(dataset: Dataset, columns: Mapping[str, Asked], origin: Origin) -> tuple[Dataset, list[str]]:
    """Turn columns of file names into images that are read from their files, or into full paths of other media.

    Images given by URLs are downloaded, once; other media by URLs are left to the library, and columns that are
    missing to `from_rows.build`. Returned are the rows, of which other columns are left out where one is read from
    files, and which columns name files.

    Raises:
        ConfigError: A file is missing or of a kind that no model reads, only some of a column's values name files of
            one kind, or almost all look like files and are none; unless they are said to be texts.
    """
    there, of_files = [name for name in columns if name in dataset.column_names], dict[str, tuple[str, list]]()
    for column in there:
        if not isinstance(feature := dataset.features[column], Value) or "string" not in feature.dtype:
            continue
        cells = Column(dataset, column, columns[column], origin)
        if (kind := cells.kind()) is not None:
            of_files[column] = kind, cells.files(kind)
    # The library can't join tables of which a part on disk has lost all its columns: none is taken away afterwards.
    rows = dataset.select_columns([name for name in there if name not in of_files]) if of_files else dataset
    for column, (kind, files) in of_files.items():
        rows = _with_column(rows, column, kind, files, origin)
    return rows, [*of_files]


def _with_column(dataset: Dataset, column: str, kind: str, files: list[str | None], origin: Origin) -> Dataset:
    """Return the rows and these files in a column."""
    cells: pa.Array = pa.array(files, pa.string())
    feature: Value | Image = Value("string")
    if kind == "image":
        paths = pa.array(_downloaded(files, f"{origin.where}, column {column}"), pa.string())
        parts = [pa.nulls(len(files), pa.binary()), paths]
        cells, feature = pa.StructArray.from_arrays(parts, ["bytes", "path"], mask=paths.is_null()), Image()
    if dataset.column_names:
        return dataset.add_column(column, cells, feature=feature)
    return Dataset.from_dict({column: cells}, features=Features({column: feature}))


class Column(NamedTuple):
    """A column of texts that may name files."""

    rows: Dataset
    name: str
    asked: Asked
    origin: Origin

    def values(self) -> Iterator[tuple[int, str]]:
        """Yield the rows and values that there are; few are held at once."""
        row = 0
        for batch in self.rows.select_columns([self.name]).with_format("arrow").iter(VALUES_AT_ONCE):
            for value in batch.column(0).to_pylist():
                if value is not None:
                    yield row, value
                row += 1

    def kind(self) -> str | None:
        """Return image, audio or video if the column names such files; None for texts."""
        if self.asked.kind == "text":
            self._require_texts()
            return None
        numbers, first = Counter[str](), dict[str, tuple[int, str]]()
        for row, value in self.values():
            numbers[kind := file_kind(value, self.origin.folder) or "text"] += 1
            first.setdefault(kind, (row, value))
        found = next((kind for kind in first if kind in EXTENSIONS), None)
        if found is None and self.asked.kind == "file" and not numbers["unread"]:
            return "image"
        if found is None and numbers["unread"]:
            raise self._unread(*first["unread"])
        if found is None and ENOUGH <= numbers[UNCLEAR] >= ALMOST_ALL * numbers.total():
            raise self._unclear(*first[UNCLEAR])
        return found

    def files(self, kind: str) -> list[str | None]:
        """Return the full path, or the URL, of each row's file, which is there; None where there is no value."""
        what, folder = "page" if kind == "image" else kind, self.origin.folder
        files: list[str | None] = [None] * len(self.rows)
        for row, value in self.values():
            if (found := file_kind(value, folder)) == "unread":
                raise self._unread(row, value)
            is_named = value.lower().endswith(EXTENSIONS[kind]) or (self.asked.kind == "file" and kind == "image")
            if found != kind and (found in EXTENSIONS or not is_named):
                said = f"{value!r} is no {kind} file, while other rows have one; a column holds files or texts"
                raise self._error(f"{said}, a {what}'s name ends in {', '.join(EXTENSIONS[kind])}", row)
            file = value if is_url(value) else str((folder / value).absolute())
            if not is_url(file) and not os.path.isfile(file):
                raise self._error(f"no {what} file {file}", row)
            files[row] = file
        return files

    def _require_texts(self) -> None:
        """Refuse names of files, if almost all values are such, and texts that the library reads; warn of others."""
        number, files, read_by_library = 0, list[tuple[int, str]](), list[tuple[int, str]]()
        for row, value in self.values():
            number += 1
            if self._is_file(value):
                files.append((row, value))
            if value.lower().endswith(IMAGES + AUDIO + VIDEO) and (is_url(value) or os.path.isfile(value)):
                read_by_library.append((row, value))
        typed = f"{self.asked.key}=text"
        if files and len(files) >= ALMOST_ALL * number:
            row, value = files[0]
            said = f"{value!r} is a file, as almost all values there are: leave out {typed}, which embeds their names"
            raise ConfigError(f"{self._where(row)}: {said}")
        if read_by_library:
            row, value = read_by_library[0]
            said = f"{value!r} is a file or URL, which the library reads even where {typed}"
            raise ConfigError(f"{self._where(row)}: {said}; leave out the row or write the text another way")
        if files:
            row, value = files[0]
            said = f"of {number:,} values {len(files):,} name files that are there, such as {value!r}"
            logger.warning("%s: %s; with %s their names are embedded", self._where(row), said, typed)

    def _is_file(self, value: str) -> bool:
        return len(value) < LONGEST_PATH and os.path.isfile(os.path.join(self.origin.folder, value))

    def _where(self, row: int) -> str:
        return self.origin.cell(row, self.name)

    def _error(self, said: str, row: int, may_be_text: bool = True) -> ConfigError:
        if self.asked.kind == "file" or not may_be_text or any(self._is_file(value) for _, value in self.values()):
            return ConfigError(f"{self._where(row)}: {said}")
        return ConfigError(f"{self._where(row)}: {said}; if these are texts type {self.asked.key}=text")

    def _unread(self, row: int, value: str) -> ConfigError:
        extension = os.path.splitext(value.partition("?")[0])[1].lower()
        said = f"{value!r} is a {extension} file, which no model reads; save its pages as images (.png, .jpg)"
        return self._error(f"{said}, one in each row", row, may_be_text=extension != ".pdf")

    def _unclear(self, row: int, value: str) -> ConfigError:
        file = self.origin.folder / value
        if is_url(value) or os.path.isfile(file):
            said = f"the ending of {value!r} tells no kind of file; if it is an image type {self.asked.key}=file"
        else:
            said = f"{value!r} looks like a file, as almost all values there do, and there is no {file.absolute()}"
        return self._error(said, row)


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
