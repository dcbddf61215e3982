"""Tables of one's own: Parquet, CSV or JSON Lines with queries and pages (files, URLs or texts)."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetsError

from experiments.config.errors import ConfigError
from experiments.data.from_rows import build_stored, loading_error
from experiments.data.media import Origin
from experiments.data.options import RowOptions
from experiments.data.types import Data

FORMATS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json", ".ndjson": "json", ".json": "json"}


def load(train: str, eval: str | None, **options: Unpack[RowOptions]) -> Data:
    """Load training and evaluation rows from tables.

    A column whose values end like image, audio or video files holds such files: paths relative to the table's folder,
    or absolute, or URLs. They are read from there whenever a row is read; a missing one is an error in any case. Any
    other column of strings holds texts.

    Args:
        train: File with the training rows: .parquet, .csv, .jsonl, .ndjson or .json.
        eval: File with the evaluation rows; None: `num_eval_rows` (100) from the end of the training rows.
        **options: See `RowOptions`.

    Raises:
        ConfigError: A table cannot be read, a page file is missing, or `from_rows.build` cannot use the rows.
    """
    origins = [Origin(Path(file).parent, file, Path(file).name) for file in (train, eval or train)]
    return build_stored(_rows(train, "train"), None if eval is None else _rows(eval, "eval"), origins, **options)


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
