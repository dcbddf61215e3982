"""What a table's first line tells: what separates its columns, what they are called, and what to type for them."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from experiments.config.errors import ConfigError, refuse
from experiments.config.hints import hint, quoted, show

FORMATS = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".ndjson": "json", ".json": "json"}
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}  # by their names in `data.delimiter`
IN_FOLDERS = [suffix for suffix in FORMATS if suffix != ".json"]  # which is rather a model's or a library's
_ROWS_READ = 100  # of JSON, for its columns
_OFTEN = {  # what people call the two columns that every table has
    "query": ("query", "queries", "question", "anchor", "search", "prompt", "caption", "text"),
    "positive": ("page", "image", "positive", "document", "doc", "passage", "answer", "file", "path", "image_path"),
}


def delimiter_of(file: Path) -> str:
    """Return what separates the columns of a CSV: a comma where its header has one, else what else parts it.

    Of a .tsv it is a tab where there is one.

    Raises:
        ConfigError: If that could be one or another.
    """
    parts = {name: len(_header(file, mark)) for name, mark in DELIMITERS.items()}
    found = [name for name, number in parts.items() if number > 1]
    if "tab" in found and file.suffix.lower() == ".tsv":
        return "\t"
    if "comma" in found or not found:
        return ","
    said = f"{file}: its columns may be parted by {' or '.join(found)}; type data.delimiter={found[0]}"
    refuse(len(found) > 1, f"{said}, or data.delimiter={found[-1]}")
    return DELIMITERS[found[0]]


def _header(file: Path, delimiter: str) -> list[str]:
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines, suppress(csv.Error):
        return next(csv.reader(lines, delimiter=delimiter), [])
    return []


def num_lines(file: Path, said: str) -> int:
    """Return how many lines a CSV has, up to the last one that isn't empty.

    Raises:
        ConfigError: It isn't UTF-8, as the plain CSV that Excel saves isn't; it begins with what was `said`.
    """
    number = last = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                last = number if line.decode("utf-8").strip() else last
            except UnicodeDecodeError as error:
                how = 'open it where it was made and save it as "CSV UTF-8" (Excel: Save As)'
                raise ConfigError(f"{said} is not UTF-8 text, see line {number}; {how}") from error
    return last


def column_names(file: Path, delimiter: str | None = None) -> list[str]:
    """Return a table's columns; none where it isn't readable as one, which whoever loads it will say.

    Args:
        file: In one of `FORMATS`.
        delimiter: Its name; None: found.

    Raises:
        ConfigError: See `delimiter_of`.
    """
    kind = FORMATS.get(file.suffix.lower())
    try:
        if kind == "csv":
            return _header(file, DELIMITERS[delimiter] if delimiter else delimiter_of(file))
        if kind == "json":
            return _keys(file)
        import pyarrow.parquet as pq

        return list(pq.read_schema(file).names)
    except ConfigError:
        raise
    except (OSError, ValueError):  # of which those of pyarrow and json are
        return []


def _keys(file: Path) -> list[str]:
    """Return the keys of the first rows, which may lack some, of JSON Lines or of a list of rows."""
    with file.open(encoding="utf-8") as lines:
        first = next((line for line in lines if line.strip()), "")
        if first.rstrip().endswith("}"):
            found: Any = [json.loads(line) for line in (first, *islice(lines, _ROWS_READ - 1)) if line.strip()]
        else:
            found = json.loads(first + lines.read())
    rows = found[:_ROWS_READ] if isinstance(found, list) else [found]
    return [*dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row)]


def column_overrides(columns: Sequence[str], wanted: Mapping[str, Any]) -> list[str]:
    """Return what to type so that the columns that a table has are found; none where they are, or can't be guessed.

    Args:
        columns: Of the table.
        wanted: `data.columns`: `query` and `positive` as they are configured.
    """
    found = {role: wanted.get(role) for role in _OFTEN}
    for role, names in _OFTEN.items():
        if found[role] not in columns:
            often = [column for name in names for column in columns if column.lower() == name]
            found[role] = next((column for column in often if column not in found.values()), None)
    if len(columns) == len(found):  # the one that is left, or both in their order
        rest = iter([column for column in columns if column not in found.values()])
        found = {role: column or next(rest) for role, column in found.items()}
    if None in found.values():
        return []
    return [
        f"data.columns.{role}={quoted(str(column))}" for role, column in found.items() if column != wanted.get(role)
    ]


def in_folder(folder: Path) -> dict[str, Path]:
    """Return the tables in a folder by their part of `data`: training and, by their names, evaluation and corpus."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in IN_FOLDERS and file.is_file())
    files = [file for file in files if file.stem != "metadata"]  # of captioned images
    held = [file for file in files if re.search("eval|val|test|dev", file.stem.lower())]
    corpus = [file for file in files if "corpus" in file.stem.lower()]
    rest = [file for file in files if file not in [*held, *corpus]]
    train = ([file for file in rest if "train" in file.stem.lower()] or rest or files)[:1]
    found = {"train": train, "eval": held, "corpus": corpus}
    others = {part: [file for file in there if part == "train" or file not in train] for part, there in found.items()}
    return {part: there[0] for part, there in others.items() if there}


def check(data: dict[str, Any]) -> None:
    """Refuse tables (`data.train`, `data.eval`, `data.corpus` of a config) that aren't there or lack a column.

    Raises:
        ConfigError: It says what to type.
    """
    columns = data.get("columns") or {}
    for part in ("train", "eval", "corpus"):
        if (name := data.get(part)) is None:
            continue
        file, said = Path(name).expanduser(), f"data.{part}={name}"
        if file.is_dir():
            found = shlex.join(f"data.{each}={quoted(str(table))}" for each, table in in_folder(file).items())
            path = shlex.quote(f"data.path={quoted(name)}")
            how = f"type {found}" if found else f"with no table in it; type data=hub {path} for a data set"
            if part == "corpus":
                how = f"type a table's name: a CSV with a column {columns.get('positive')}, a row for each page"
            raise ConfigError(f"{said} is a folder; {how}")
        refuse(not file.is_file(), f"{said}: there is no such file")
        refuse(file.suffix.lower() not in FORMATS, f"{said}: a table is one of {', '.join(FORMATS)}")
        if FORMATS[file.suffix.lower()] == "csv":
            num_lines(file, said)
        if there := column_names(file, data.get("delimiter")):
            _check_columns(said, there, columns, part)


def _check_columns(said: str, there: Sequence[str], columns: Mapping[str, Any], part: str) -> None:
    if part == "corpus":
        name = columns.get("corpus") or columns.get("positive")
        first, *others = map(quoted, there)
        how = f"type {shlex.quote(f'data.columns.corpus={first}')}" + "".join(f" or ={other}" for other in others)
        refuse(name not in there, f"{said} has no column {show(name)}; {how}")
        return
    wanted = [columns.get("query"), columns.get("positive"), *(columns.get("negatives") or [])]
    for name in wanted:
        if name not in there:
            overrides = column_overrides(there, columns) or ["data.columns.query=NAME", "data.columns.positive=NAME"]
            how = f"type {shlex.join(overrides)}" if name in wanted[:2] else hint(str(name), there, there)
            raise ConfigError(f"{said} has no column {show(name)}; it has {', '.join(there)}: {how}")
