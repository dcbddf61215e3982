"""Which files the rows of a table name, read without the datasets library, which takes seconds to import."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from experiments.config.tables import FORMATS, delimiter_of

TABLES = (*FORMATS, ".arrow")
LONGEST_PATH = 4096


def named_files(table: Path, folder: Path) -> list[str]:
    """Return the files that texts in a table name, absolute or from a folder; none where it can't be read as a table.

    Args:
        table: Of one of the formats `TABLES`; its images themselves are not read.
        folder: Where relative names start from.
    """
    import pyarrow as pa

    read: dict[str, Callable[[Path], Any]] = {".parquet": _parquet, ".arrow": _arrow, ".csv": _csv, ".tsv": _csv}
    try:
        content = read.get(table.suffix.lower(), _json)(table)
        texts = {*(_of_values(content) if isinstance(content, list | dict) else _of_table(content))}
    except (OSError, ValueError, pa.ArrowException):
        return []
    paths = (str(folder / text) for text in texts if text and len(text) < LONGEST_PATH)
    return sorted(path for path in paths if os.path.isfile(path))


def _parquet(file: Path) -> Any:
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(file)
    leaves = [parquet.schema.column(number) for number in range(len(parquet.schema))]
    return parquet.read(columns=[leaf.path for leaf in leaves if leaf.logical_type.type == "STRING"])


def _arrow(file: Path) -> Any:
    import pyarrow as pa

    return pa.ipc.open_stream(pa.memory_map(str(file))).read_all()


def _csv(file: Path) -> Any:
    from pyarrow import csv

    options = csv.ParseOptions(delimiter=delimiter_of(file), newlines_in_values=True)
    return csv.read_csv(file, parse_options=options)


def _json(file: Path) -> Any:
    text = file.read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except ValueError:
        return [json.loads(line) for line in text.splitlines() if line.strip()]


def _of_table(table: Any) -> Iterator[str]:
    for column in table.columns:
        for chunk in column.chunks:
            yield from _of_array(chunk)


def _of_array(array: Any) -> Iterator[str]:
    import pyarrow as pa

    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        yield from array.unique().to_pylist()
    elif pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        yield from _of_array(array.flatten())
    elif pa.types.is_struct(array.type):
        for number in range(array.type.num_fields):
            yield from _of_array(array.field(number))


def _of_values(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _of_values(each)
