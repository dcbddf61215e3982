"""Where documents and queries are from: file, row and page, read from the stored rows when they are asked for."""

from __future__ import annotations

import os
from collections.abc import ItemsView, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Audio, Dataset, Image, Video

NAMES_AT_ONCE = 10_000


class DocumentName(NamedTuple):
    """Where a document, or a query, is from; of equal ones, which are one, the first (positives before negatives)."""

    file: str  # its own, as its table names it; else the table or data set
    row: int  # of the table or data set, from 0
    page: int | str | None  # of the file, where a column tells it
    label: str  # all that in short: "pages/a.png", "train.csv row 12"
    num_cells: int  # of rows, that hold the same content
    table: str = ""  # or data set, that the row is of


class Stored(NamedTuple):
    """Rows as they are stored, before files are read: what they name documents by."""

    rows: Dataset
    where: str  # table or data set, as labels name it
    folder: Path = Path()  # that names of files start from
    # Of the rows in it, (num_rows,), or of each document's own row, (num_rows, num_columns); None: as they stand.
    numbers: np.ndarray | None = None
    files: Sequence[str] = ()  # columns of texts that name files
    file: str | None = None  # column with the document that a positive is a page of
    page_number: str | None = None  # column with the number of that page
    shown_from: Path | None = None  # the folder that names of files are shown from; None: `folder`


class DocumentNames(Mapping[str, DocumentName]):
    """The name of each document, by id; held are three numbers a document, not its name.

    Args:
        ids: Of the documents.
        places: Of each its source, its row there, and its column: shape (num_documents, 3).
        num_cells: See `DocumentName`, shape (num_documents,).
        sources: Rows, and the columns of documents in them, the positives' first.
    """

    def __init__(
        self,
        ids: Sequence[str],
        places: np.ndarray,
        num_cells: np.ndarray,
        sources: Sequence[tuple[Stored, Sequence[str]]],
    ) -> None:
        found = np.array(ids, dtype="S")
        self._order = np.argsort(found)
        self._sorted, self._places, self._num_cells, self._sources = found[self._order], places, num_cells, sources
        self._paths: dict[tuple[int, int], Dataset | None] = {}

    def __len__(self) -> int:
        return len(self._sorted)

    def __iter__(self) -> Iterator[str]:
        return (id_.decode() for id_ in self._sorted.tolist())

    def __getitem__(self, id_: str) -> DocumentName:
        at = int(np.searchsorted(self._sorted, id_.encode()))
        if at == len(self) or self._sorted[at] != id_.encode():
            raise KeyError(id_)
        (name,) = self._named(self._order[at : at + 1])
        return name

    def items(self) -> ItemsView[str, DocumentName]:
        """Return ids and names, which are read many at once."""
        return _Items(self)

    def in_order(self) -> Iterator[tuple[str, DocumentName]]:
        """Yield ids and names in the order of the ids, read many at once."""
        for start in range(0, len(self), NAMES_AT_ONCE):
            part = slice(start, start + NAMES_AT_ONCE)
            yield from zip((id_.decode() for id_ in self._sorted[part]), self._named(self._order[part]), strict=True)

    def _named(self, numbers: np.ndarray) -> list[DocumentName]:
        names: list[DocumentName | None] = [None] * len(numbers)
        places = self._places[numbers]
        for source, column in {(int(source), int(column)) for source, _, column in places}:
            chosen = np.flatnonzero((places[:, 0] == source) & (places[:, 2] == column))
            rows = places[chosen, 1]
            found = zip(self._cells(source, column, rows), self._num_cells[numbers[chosen]].tolist(), strict=True)
            for at, row, (cells, count) in zip(chosen.tolist(), rows.tolist(), found, strict=True):
                names[at] = _name(*self._sources[source], row, column, *cells, count)
        return [name for name in names if name is not None]

    def _cells(self, source: int, column: int, rows: np.ndarray) -> list[tuple[Any, Any, Any]]:
        """Return of each row the path of the column's file, the file it is a page of, and the page's number."""
        stored, columns = self._sources[source]
        if (source, column) not in self._paths:
            self._paths[source, column] = _paths(stored, columns[column])
        nothing = [None] * len(rows)
        paths = nothing if (found := self._paths[source, column]) is None else _values(found, rows)
        of_positive = [name if column == 0 else None for name in (stored.file, stored.page_number)]
        told = [nothing if name is None else _values(stored.rows.select_columns([name]), rows) for name in of_positive]
        return list(zip(paths, *told, strict=True))


class _Items(ItemsView[str, DocumentName]):
    """The items of `DocumentNames`, whose rows are read many at once."""

    _mapping: DocumentNames

    def __iter__(self) -> Iterator[tuple[str, DocumentName]]:
        return self._mapping.in_order()


def _paths(stored: Stored, column: str) -> Dataset | None:
    """Return the column of paths, without the content of the files that stand beside them; None if it has none."""
    if stored.numbers is not None and stored.numbers.ndim == 2:  # named by those; the paths are of a cache
        return None
    rows, feature = stored.rows.with_format(None).select_columns([column]), stored.rows.features[column]
    if column in stored.files:
        return rows
    if isinstance(feature, Image | Audio | Video):
        rows = rows.cast_column(column, type(feature)(decode=False))
    elif not (isinstance(feature, dict) and set(feature) == {"bytes", "path"}):
        return None
    return rows.flatten().select_columns([f"{column}.path"])


def _values(rows: Dataset, chosen: np.ndarray) -> list[Any]:
    """Return the values of the only column in these rows."""
    return rows.with_format("arrow")[chosen.tolist()].column(0).to_pylist()


def _name(
    stored: Stored, columns: Sequence[str], row: int, column: int, path: Any, file: Any, page: Any, num_cells: int
) -> DocumentName:
    number = row
    if stored.numbers is not None:
        number = int(stored.numbers[row] if stored.numbers.ndim == 1 else stored.numbers[row, column])
    is_own_row = column == 0 or (stored.numbers is not None and stored.numbers.ndim == 2)
    label = f"{stored.where} row {number}" + ("" if is_own_row else f", {columns[column]}")
    if file is not None:
        name = label = str(file)
    elif path and (columns[column] in stored.files or os.path.isabs(path)):
        name = label = _shown(path, stored)
    else:  # a path beside the content is only what the file was called
        name, label = path or stored.where, f"{label} ({path})" if path else label
    return DocumentName(name, number, page, label if page is None else f"{label} page {page}", num_cells, stored.where)


def _shown(path: str, stored: Stored) -> str:
    """Return a path from where it is shown from, a URL as it stands, and what is elsewhere in full."""
    if "://" in path:
        return path
    shown_from = os.path.abspath(stored.shown_from or stored.folder)
    whole = os.path.normpath(os.path.join(os.path.abspath(stored.folder), path))
    return os.path.relpath(whole, shown_from) if Path(whole).is_relative_to(shown_from) else whole
