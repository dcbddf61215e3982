"""Tables of one's own: Parquet, CSV or JSON Lines with queries and pages (files, URLs or texts)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetsError

from experiments.config.bounds import NotNegative, OnBadImage, Positive
from experiments.config.errors import ConfigError
from experiments.data.from_rows import build, first_rows, loading_error
from experiments.data.media import with_files
from experiments.data.types import Data

FORMATS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json", ".ndjson": "json", ".json": "json"}


def load(
    train: str,
    eval: str | None,
    name: str,
    columns: Mapping[str, Any],
    num_train_rows: Positive | None = None,
    num_eval_rows: Positive | None = None,
    num_negatives: NotNegative = 0,
    num_eval_negatives: NotNegative | None = None,
    deduplicate: bool = True,
    on_bad_image: OnBadImage = "error",
) -> Data:
    """Load training and evaluation rows from tables.

    A column whose values end like image, audio or video files holds such files: paths relative to the table's folder,
    or absolute, or URLs. They are read from there whenever a row is read. Any other column of strings holds texts.

    Args:
        train: File with the training rows: .parquet, .csv, .jsonl, .ndjson or .json.
        eval: File with the evaluation rows; None: `num_eval_rows` (100) from the end of the training rows.
        name: Of the evaluation, in metrics and reports.
        columns: `query`, `positive` and `negatives`, see `from_rows.build`.
        num_train_rows: The first so many; None: all.
        num_eval_rows: The first so many; None: all.
        num_negatives: Negatives in a training row.
        num_eval_negatives: Negatives in a row of the evaluation loss; None: as in training.
        deduplicate: See `from_rows.build`.
        on_bad_image: See `from_rows.build`; a missing page file is an error in any case.

    Raises:
        ConfigError: A table cannot be read, a page file is missing, or `from_rows.build` cannot use the rows.
    """
    table = _rows(train, "train")
    eval_table = None if eval is None else _rows(eval, "eval")
    train_rows, eval_rows = first_rows(table, eval_table, num_train_rows, num_eval_rows)
    first_eval_row = len(table) - len(eval_rows) if eval is None else 0
    names = [columns["query"], columns["positive"], *(columns.get("negatives") or [])]
    return build(
        with_files(train_rows, names, Path(train).parent, train),
        with_files(eval_rows, names, Path(eval or train).parent, eval or train, first_eval_row),
        columns=columns,
        name=name,
        num_negatives=num_negatives,
        num_eval_negatives=num_eval_negatives,
        deduplicate=deduplicate,
        on_bad_image=on_bad_image,
    )


def _rows(file: str, part: str) -> Dataset:
    """Return the rows of a table, kept on disk by the datasets library."""
    path = Path(file)
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"data.{part}={file}: a table is one of {', '.join(FORMATS)}")
    if not path.is_file():
        raise ConfigError(f"data.{part}={file}: no such file")
    if path.stat().st_size == 0:
        raise ConfigError(f"data.{part}={file}: the data set is empty: the file has no content")
    try:
        return load_dataset(FORMATS[path.suffix.lower()], data_files={part: str(path)}, split=part)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise ConfigError(f"data.{part}={file}: could not read it ({loading_error(error)})") from error
