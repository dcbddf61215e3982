"""Tables of one's own: Parquet, CSV or JSON Lines with queries and pages (files, URLs or texts)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Unpack

from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetsError

from experiments.config.errors import ConfigError
from experiments.config.tables import DELIMITERS, FORMATS, delimiter_of, num_lines
from experiments.data.file_columns import Origin
from experiments.data.from_rows import build_stored, loading_error
from experiments.data.options import RowOptions
from experiments.data.types import Data

Delimiter = Literal["comma", "semicolon", "tab", "pipe"]


def load(
    train: str | None,
    eval: str | None,
    corpus: str | None = None,
    *,
    delimiter: Delimiter | None = None,
    **options: Unpack[RowOptions],
) -> Data:
    """Load training and evaluation rows from tables.

    A column whose values end like image, audio or video files holds such files: paths relative to the table's folder,
    or absolute, or URLs. They are read from there whenever a row is read; a missing one is an error in any case. Any
    other column of strings holds texts, see `kind`.

    Args:
        train: File with the training rows: .parquet, .csv, .tsv, .jsonl, .ndjson or .json; None: for an evaluation
            alone.
        eval: File with the evaluation rows; None: the last `num_eval_rows` of the training rows.
        corpus: File with pages that are searched besides those of the evaluation rows, a row each, in the column
            `columns.corpus` or that of the positives. What equals one of those is one with it; no other is relevant,
            and may be in training rows.
        delimiter: Of the columns of a CSV; None: found by its first line.
        **options: See `RowOptions`.

    Raises:
        ConfigError: A table cannot be read, a page file is missing, or `from_rows.build` cannot use the rows.
    """
    is_needed = train is not None and (eval is None or not options.get("evaluation_only"))
    train_rows = _rows(train, "train", delimiter) if train is not None and is_needed else None
    eval_rows = None if eval is None else _rows(eval, "eval", delimiter)
    pages = None if corpus is None else _rows(corpus, "corpus", delimiter)
    parts = ((train, train_rows), (eval, eval_rows) if eval else (train, train_rows), (corpus, pages))
    origins = [_origin(file or str(eval), rows) for file, rows in parts]
    return build_stored(train_rows, eval_rows, origins, corpus=pages, **options)


def _origin(file: str, rows: Dataset | None) -> Origin:
    """Return where rows are from; with their lines, where each has one of its own."""
    path = Path(file).expanduser()
    has_lines = rows is not None and FORMATS[path.suffix.lower()] == "csv" and num_lines(path, file) == 1 + len(rows)
    return Origin(path.parent, file, path.name, first_line=2 if has_lines else None)


def _rows(file: str, part: str, delimiter: Delimiter | None) -> Dataset:
    """Return the rows of a table, kept on disk by the datasets library."""
    path = Path(file).expanduser()
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"data.{part}={file}: a table is one of {', '.join(FORMATS)}")
    if not path.is_file():
        raise ConfigError(f"data.{part}={file}: no such file")
    if path.stat().st_size == 0:
        raise ConfigError(f"data.{part}={file}: the data set is empty: the file has no content")
    kind = FORMATS[path.suffix.lower()]
    reads: dict[str, Any] = {}
    if kind == "csv":
        num_lines(path, f"data.{part}={file}")  # which refuses what isn't UTF-8
        mark = DELIMITERS[delimiter] if delimiter else delimiter_of(path)
        reads = {"sep": mark, "keep_default_na": False, "na_values": [""]}  # NA and NULL are texts as others
    try:
        return load_dataset(kind, data_files={part: str(path)}, split=part, **reads)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise ConfigError(f"data.{part}={file}: could not read it ({loading_error(error)})") from error
