"""From rows of an image and its caption to a `RerankingData`: both directions, positives with sampled negatives."""

from __future__ import annotations

import hashlib
import random

import numpy as np
from datasets import Dataset, concatenate_datasets, disable_progress_bars, enable_progress_bars

from experiments.data import Direction, RerankingData, RetrievalData, common
from experiments.errors import ConfigError

COLUMNS = ("query", "document")
LABEL = "label"


def build(
    train: Dataset,
    eval: Dataset,
    *,
    image: str,
    text: str,
    name: str,
    num_negatives: int,
    seed: int,
    deduplicate: bool = True,
    on_bad_image: str = "error",
) -> RerankingData:
    """Make labelled pairs and a reranking evaluation out of two sets of captioned images.

    Images stay encoded: none is decoded here. A row is no negative of another if the two share an image or a caption.

    Args:
        train: Training rows.
        eval: Evaluation rows; no image or caption of theirs stays in training.
        image: Column of the images.
        text: Column of the captions.
        name: Of the evaluation, in metrics and reports.
        num_negatives: Documents sampled for each row that don't match its query, labelled 0.
        seed: Of the sampling.
        deduplicate: See `common.build`.
        on_bad_image: See `common.build`.

    Raises:
        ConfigError: As `common.build`, or if there are too few different documents to sample from.
    """
    roles = {"image_to_text": (image, text), "text_to_image": (text, image)}
    found: dict[str, RetrievalData] = {
        direction: common.build(
            train,
            eval,
            columns={"query": query, "positive": document},
            name=name,
            num_negatives=0,
            deduplicate=deduplicate,
            on_bad_image=on_bad_image,
        )
        for direction, (query, document) in roles.items()
    }
    pairs = {
        part: {
            direction: expand(getattr(data, part), num_negatives, f"{seed}/{part}/{direction}")
            for direction, data in found.items()
        }
        for part in ("train", "eval")
    }
    directions = {
        direction: Direction(data.queries, data.corpus, data.relevant_docs) for direction, data in found.items()
    }
    return RerankingData(
        name,
        pairs["train"],
        pairs["eval"],
        directions,
        _digest(num_negatives, seed, *(data.fingerprint for data in found.values())),
        _digest(*(data.evaluation_fingerprint for data in found.values())),
    )


def expand(rows: Dataset, num_negatives: int, seed: str) -> Dataset:
    """Return for each row its pair (label 1), and its query with documents sampled from other rows (label 0).

    Args:
        rows: Two columns: query and document.
        num_negatives: Of a row, all different.
        seed: Of the sampling.

    Returns:
        Columns query, document, label; the pairs of a row stand together.

    Raises:
        ConfigError: If there are too few different documents.
    """
    sampler = random.Random(seed)
    hashes = common.content_hashes(rows)
    query_rows, document_rows, labels = [], [], []
    for row in range(len(rows)):
        query_rows += [row] * (1 + num_negatives)
        document_rows += [row, *_negatives(row, hashes, num_negatives, sampler)]
        labels += [1] + [0] * num_negatives
    query, document = rows.column_names
    parts = [
        rows.select_columns([column]).rename_column(column, name).select(chosen)
        for column, name, chosen in zip((query, document), COLUMNS, (query_rows, document_rows), strict=True)
    ]
    disable_progress_bars()  # half a dozen of them, of a moment each
    try:
        return concatenate_datasets([*parts, Dataset.from_dict({LABEL: labels})], axis=1)
    finally:
        enable_progress_bars()


def _negatives(row: int, hashes: np.ndarray, number: int, sampler: random.Random) -> list[int]:
    """Sample rows that share neither query nor document with this one, no two with the same document."""
    seen, chosen = {hashes[row, 1]}, list[int]()
    # As many draws find enough unless most rows are alike; then every row is looked at.
    for other in (*sampler.choices(range(len(hashes)), k=4 * number), *range(len(hashes))):
        if len(chosen) == number:
            break
        if hashes[other, 0] != hashes[row, 0] and hashes[other, 1] not in seen:
            seen.add(hashes[other, 1])
            chosen.append(other)
    if len(chosen) < number:
        raise ConfigError(
            f"data.num_negatives={number}: row {row} finds {len(chosen)} different documents among "
            f"{len(hashes):,} rows; type data.num_negatives={len(chosen)} or take more rows"
        )
    return chosen


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
