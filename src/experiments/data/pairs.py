"""From rows of an image and its caption to a `Data`: both directions, positives with sampled negatives."""

from __future__ import annotations

import hashlib
import random
from itertools import chain
from typing import Unpack

import numpy as np
from datasets import Dataset, concatenate_datasets

from experiments.config.errors import ConfigError
from experiments.data import from_rows
from experiments.data.document_names import Stored
from experiments.data.encoded_pages import HashedRows, content_hashes, read
from experiments.data.options import ItemOptions
from experiments.data.types import Data


def build(
    train: Dataset | None,
    eval: Dataset,
    image: str,
    text: str,
    name: str,
    *,
    num_negatives: int,
    seed: int,
    labelled: bool = True,
    stored: Stored | None = None,
    **options: Unpack[ItemOptions],
) -> Data:
    """Make training rows and an evaluation, in both directions, out of two sets of captioned images.

    Images stay encoded: none is decoded here. A row is no negative of another if the two share an image or a caption.

    Args:
        train: Training rows; None: it is for an evaluation alone.
        eval: Evaluation rows; no image or caption of theirs stays in training.
        image: Column of the images.
        text: Column of the captions.
        name: Of the evaluation, in metrics and reports.
        num_negatives: Documents sampled for each row that don't match its query.
        seed: Of the sampling.
        labelled: Rows for rerankers (`label`), or, if false, for losses with in-batch negatives (`add_negatives`).
        stored: What documents are named by; see `from_rows.assemble`.
        **options: See `ItemOptions`.

    Raises:
        ConfigError: As `from_rows.build`, or if there are too few different documents to sample from.
    """
    columns = [image, text]
    from_rows.require_one_role(columns)
    if options.get("evaluation_only"):
        train = None
    all_train = None if train is None else read(from_rows.with_columns(train, columns, "training"))
    all_eval = read(from_rows.with_columns(eval, columns, "evaluation"))
    found = {}
    for direction, names in {"image_to_text": [image, text], "text_to_image": [text, image]}.items():
        in_order = None if all_train is None else all_train.select_columns(names), all_eval.select_columns(names)
        found[direction] = from_rows.assemble(*in_order, name, names, stored=stored, **options)
    make = label if labelled else add_negatives
    train_pairs, eval_pairs = (
        {way: make(getattr(data, part), num_negatives, f"{seed}/{part}/{way}") for way, data in found.items()}
        if all_train is not None
        else None
        for part in ("train", "eval")
    )
    directions = {direction: data.direction for direction, data in found.items()}
    fingerprint = _digest(labelled, num_negatives, seed, *(data.fingerprint for data in found.values()))
    train_fingerprint = _digest(*(data.train_fingerprint for data in found.values())) if all_train else None
    evaluation_fingerprint = _digest(*(data.evaluation_fingerprint for data in found.values()))
    return Data(name, train_pairs, eval_pairs, directions, fingerprint, train_fingerprint, evaluation_fingerprint)


def label(rows: Dataset, num_negatives: int, seed: str) -> Dataset:
    """Return for each row its pair (label 1), and its query with documents sampled from other rows (label 0).

    Args:
        rows: Two columns: query and document.
        num_negatives: Of a row, all different.
        seed: Of the sampling.

    Returns:
        Columns query, document, label; the pairs of a row stand together.
    """
    negatives = _sample(rows, num_negatives, seed)
    documents = np.column_stack([np.arange(len(rows)), negatives]).ravel()
    queries = np.repeat(np.arange(len(rows)), 1 + num_negatives)
    query, document = rows.column_names
    labels = Dataset.from_dict({"label": ([1] + [0] * num_negatives) * len(rows)})
    return _side_by_side(
        _column(rows, query, "query", queries), _column(rows, document, "document", documents), labels
    )


def add_negatives(rows: Dataset, num_negatives: int, seed: str) -> HashedRows:
    """Return each row with documents sampled from other rows, as losses with in-batch negatives take them.

    The columns are query, positive, negative_1, negative_2 and so on; see `label` for the arguments.
    """
    negatives = _sample(rows, num_negatives, seed)
    query, document = rows.column_names
    hashes = content_hashes(rows)
    found = rows.rename_columns({query: "query", document: "positive"})
    if num_negatives:
        sampled = [_column(rows, document, f"negative_{k}", column) for k, column in enumerate(negatives.T, start=1)]
        found = _side_by_side(found, *sampled)
    columns = np.column_stack([hashes, hashes[negatives, 1]]).T
    return HashedRows(found, dict(zip(found.column_names, columns, strict=True)))


def _column(rows: Dataset, column: str, name: str, chosen: np.ndarray) -> Dataset:
    return rows.select_columns([column]).rename_column(column, name).select(chosen)


def _side_by_side(*parts: Dataset) -> Dataset:
    return concatenate_datasets([*parts], axis=1)


def _sample(rows: Dataset, num_negatives: int, seed: str) -> np.ndarray:
    """Return for each row the rows whose documents are its negatives, shape (num_rows, num_negatives).

    They share neither query nor document with it, and no two of them a document.

    Raises:
        ConfigError: There are too few different documents.
    """
    sampler, hashes = random.Random(seed), content_hashes(rows)
    found = np.zeros((len(rows), num_negatives), dtype=np.int64)
    for row, (query, document) in enumerate(hashes):
        seen, chosen = {document}, list[int]()
        # As many draws find enough unless most rows are alike; then every row is looked at.
        for other in chain(sampler.choices(range(len(rows)), k=4 * num_negatives), range(len(rows))):
            if len(chosen) == num_negatives:
                break
            if hashes[other, 0] != query and hashes[other, 1] not in seen:
                seen.add(hashes[other, 1])
                chosen.append(other)
        if len(chosen) < num_negatives:
            raise ConfigError(
                f"data.num_negatives={num_negatives}: row {row} finds {len(chosen)} different documents among "
                f"{len(rows):,} rows; type data.num_negatives={len(chosen)} or take more rows"
            )
        found[row] = chosen
    return found


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
