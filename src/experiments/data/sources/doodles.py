"""Doodles with captions from the Hub, or any other data set of captioned images there or in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Unpack

import numpy as np
from annotated_types import Interval
from datasets import Dataset

from experiments.config.bounds import NotNegative, Positive
from experiments.config.errors import ConfigError
from experiments.data import pairs
from experiments.data.document_names import Stored
from experiments.data.from_rows import first_rows
from experiments.data.options import ItemOptions
from experiments.data.sources.hub import load_rows
from experiments.data.types import Data


def load(
    path: str,
    name: str = "doodles",
    train: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    eval_fraction: Annotated[float, Interval(gt=0, lt=1)] = 0.1,
    num_train_rows: Positive | None = None,
    num_eval_rows: Positive | None = None,
    num_negatives: NotNegative = 4,
    seed: NotNegative = 42,
    labelled: bool = True,
    **options: Unpack[ItemOptions],
) -> Data:
    """Load captioned images, set a part aside for the evaluation, and make rows in both directions.

    Args:
        path: Hub name, or a folder written by `save_to_disk`.
        name: Of the evaluation, in metrics and reports.
        train: Arguments of `datasets.load_dataset` for all rows: name (configuration), split, revision.
        columns: `image` and `text`: the data set's names for them.
        eval_fraction: The share of the rows, drawn at random, that is evaluated on.
        num_train_rows: The first so many; None: all.
        num_eval_rows: The first so many; None: all.
        num_negatives: Documents that don't match, sampled for each row.
        seed: Of the choice of evaluation rows and of the sampling.
        labelled: Whether rows are pairs with labels, for rerankers, see `pairs.build`.
        **options: See `ItemOptions`.

    Raises:
        ConfigError: The data set can't be loaded, or `pairs.build` can't use the rows.
    """
    rows = load_rows(path, train or {"split": "train"}, "train")
    try:
        numbers = Dataset.from_dict({"row": range(len(rows))}).train_test_split(test_size=eval_fraction, seed=seed)
    except ValueError as error:
        raise ConfigError(f"data.eval_fraction={eval_fraction}: {error}") from error
    if num_eval_rows is not None and num_eval_rows > (most := len(numbers["test"])):
        raise ConfigError(
            f"data.num_eval_rows={num_eval_rows}: data.eval_fraction={eval_fraction} of {len(rows):,} rows is {most}; "
            f"type data.num_eval_rows={most} or a larger data.eval_fraction"
        )
    parts = first_rows(numbers["train"], numbers["test"], num_train_rows, num_eval_rows)
    train_numbers, eval_numbers = (np.array(part["row"]) for part in parts if part is not None)
    pair = rows.select(train_numbers), rows.select(eval_numbers)
    names = {"image": "image", "text": "text"} | dict(columns or {})
    stored = Stored(pair[1], name, numbers=eval_numbers)
    return pairs.build(
        *pair,
        **names,
        name=name,
        num_negatives=num_negatives,
        seed=seed,
        labelled=labelled,
        stored=stored,
        **options,
    )
