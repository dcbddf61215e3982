"""Data sets that the datasets library loads: Hub names, folders written by save_to_disk, folders of files."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
from datasets.exceptions import DatasetsError
from huggingface_hub import constants

from experiments.config.errors import ConfigError
from experiments.config.hub import OFFLINE_DATA, commit, refusal, why_offline
from experiments.data.file_columns import Origin
from experiments.data.from_rows import build_stored, loading_error
from experiments.data.options import RowOptions
from experiments.data.types import Data


def load(
    path: str,
    train: Mapping[str, Any],
    eval: Mapping[str, Any] | None,
    corpus: Mapping[str, Any] | None = None,
    **options: Unpack[RowOptions],
) -> Data:
    """Load training and evaluation rows from the Hub or a folder.

    Args:
        path: Hub name; or a folder: written by `save_to_disk`, or any that `load_dataset` accepts.
        train: Arguments of `load_dataset` for the training rows: split, name (configuration), revision. In a folder
            written by `save_to_disk` the split is a key of its DatasetDict, and the name a folder inside it.
        eval: The same for the evaluation rows; None: the last `num_eval_rows` of the training rows.
        corpus: The same for pages that are searched besides those of the evaluation rows; see `table.load`.
        **options: See `RowOptions`.

    Raises:
        ConfigError: The data set cannot be loaded, or `from_rows.build` cannot use it.
    """
    is_needed = eval is None or not options.get("evaluation_only")
    train_rows = load_rows(path, train, "train") if is_needed else None
    eval_rows = None if eval is None else load_rows(path, eval, "eval")
    folder = Path(path).expanduser() if Path(path).expanduser().is_dir() else Path()
    pages = None if corpus is None else load_rows(path, corpus, "corpus")
    origins = [
        Origin(folder, f"{path}, {part} rows", options["name"]) for part in ("training", "evaluation", "corpus")
    ]
    origins[2] = origins[2]._replace(name=f"{options['name']} corpus")
    return build_stored(train_rows, eval_rows, origins, corpus=pages, **options)


def load_rows(path: str, arguments: Mapping[str, Any], part: str) -> Dataset:
    """Return the rows that `path` and the arguments of a part (train, eval, corpus) name, at the commit they are now.

    Raises:
        ConfigError: There is no such folder, split or data set, or the Hub refuses or can't be reached.
    """
    folder = Path(path).expanduser()
    for saved in (folder / str(arguments.get("name") or ""), folder):
        if (saved / "dataset_dict.json").is_file() or (saved / "state.json").is_file():
            return _saved_rows(saved, arguments.get("split"), part)
    if on_hub := not folder.exists():
        if path.startswith((".", "~", "/")) or path.count("/") > 1:
            raise ConfigError(f"data.path={path}: no such folder")
        revision = commit(f"data.path={path}", path, arguments.get("revision"), kind="dataset", instead=OFFLINE_DATA)
        arguments = {**arguments, "revision": revision}
    what = f"data set {path}"
    try:
        dataset = load_dataset(path if on_hub else str(folder), **arguments)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        if on_hub and (reason := refusal(error, path, OFFLINE_DATA, "dataset")):
            raise ConfigError(f"data.path={path}: {reason}") from error
        hint = f"; {why_offline()}, or {OFFLINE_DATA}" if constants.HF_HUB_OFFLINE and on_hub else ""
        raise ConfigError(
            f"could not load {what} (data.{part}={dict(arguments)}): {loading_error(error)}{hint}"
        ) from error
    files = [] if isinstance(dataset, DatasetDict) else dataset.cache_files
    if on_hub and files and arguments["revision"] not in str(files):  # offline: whatever is cached
        raise ConfigError(
            f"data.path={path}: the cache holds another commit of it than {arguments['revision']}, and {why_offline()}"
        )
    if isinstance(dataset, DatasetDict):
        raise ConfigError(f"{what} has splits: set data.{part}.split to one of {', '.join(dataset)}")
    return dataset


def _saved_rows(folder: Path, split: str | None, part: str) -> Dataset:
    """Return a split of what `save_to_disk` wrote."""
    dataset = load_from_disk(str(folder))
    if isinstance(dataset, DatasetDict):
        if split not in dataset:
            nearest = difflib.get_close_matches(str(split), list(dataset), n=1, cutoff=0.0)
            raise ConfigError(
                f"data.{part}.split={split}: {folder} has {', '.join(dataset)}: did you mean {nearest[0]!r}?"
            )
        return dataset[split]
    if part == "eval":
        raise ConfigError(
            f"{folder} has no splits: type data.eval=null, and the evaluation is taken from the end of its rows"
        )
    return dataset
