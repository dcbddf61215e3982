"""Queries with what a model found for them, for people to look at: the misses first, or those answered worst."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from datasets import Dataset, Value

from experiments.data.types import Direction
from experiments.evaluation.trec import Ranking

NUM_FIRST = 5  # documents shown of a ranking


@dataclass(frozen=True)
class Hit:
    """A document, and where a query's ranking has it."""

    document_id: str
    name: str  # as a person knows it, such as a file or a table's row
    rank: int | None  # from 1; None: below the ranking's end
    score: float | None
    is_relevant: bool
    read: Callable[[], Any]  # gives its content: a text, a decoded image or whatever else the data set holds


@dataclass(frozen=True)
class Sample:
    """A query, the documents that answer it, and those that were ranked first."""

    query_id: str
    name: str  # as a person knows it
    depth: int  # of its ranking
    right: list[Hit]  # the best ranked first
    top: list[Hit]
    read: Callable[[], Any]  # gives the query


def samples(ranking: Ranking, direction: Direction, rows: Iterable[int]) -> Iterator[Sample]:
    """Yield some queries of a direction's ranking, by row, with what answers them and what came first, all unread.

    Args:
        ranking: Of the direction.
        direction: Queries, corpus and relevance.
        rows: Which queries, in which order.
    """
    query_rows, document_rows = _rows(direction.queries, "query_id"), _rows(direction.corpus, "corpus_id")
    queries, corpus = _named(direction.queries, "query"), _named(direction.corpus, "document")

    def hit(id_: str, place: tuple[int | None, float | None], is_relevant: bool) -> Hit:
        read = partial(_read, corpus, document_rows[id_], "document")
        return Hit(id_, direction.label(id_), *place, is_relevant, read)

    for row in rows:
        query_id = ranking.query_ids[row]
        found = zip(ranking.document_ids[row], ranking.scores[row], strict=True)
        ranked = {str(id_): (rank, float(score)) for rank, (id_, score) in enumerate(found, start=1)}
        right_ids = direction.relevant_docs[query_id]
        right = [*(id_ for id_ in ranked if id_ in right_ids), *sorted(right_ids - ranked.keys())]
        right_hits = [hit(id_, ranked.get(id_, (None, None)), True) for id_ in right]
        top = [hit(id_, ranked[id_], id_ in right_ids) for id_ in [*ranked][:NUM_FIRST]]
        read = partial(_read, queries, query_rows[query_id], "query")
        yield Sample(query_id, direction.label(query_id), len(ranked), right_hits, top, read)


def misses_first(ranking: Ranking, relevant_docs: Mapping[str, set[str]]) -> np.ndarray:
    """Return the rows of a ranking, first those that begin with no relevant document, each kind in query order."""
    return np.argsort(_right_ranks(ranking, relevant_docs) == 1, kind="stable")


def worst_first(ranking: Ranking, relevant_docs: Mapping[str, set[str]], values: np.ndarray) -> np.ndarray:
    """Return the rows that aren't perfect, the lowest value first, then the farthest down the best relevant document.

    Args:
        ranking: Of a direction.
        relevant_docs: By query, what is relevant there.
        values: A metric of each query, 1 if it is perfect, shape (num_queries,).
    """
    rows = np.lexsort((-_right_ranks(ranking, relevant_docs), values))
    return rows[values[rows] < 1]


def _right_ranks(ranking: Ranking, relevant_docs: Mapping[str, set[str]]) -> np.ndarray:
    """Return the rank of each query's best relevant document, infinite below the ranking's end, (num_queries,)."""
    ranks = []
    for query_id, ids, _ in zip(*ranking, strict=True):
        found = np.flatnonzero(np.isin(ids, [*relevant_docs[query_id]]))
        ranks.append(found[0] + 1 if len(found) else np.inf)
    return np.array(ranks)


def _rows(dataset: Dataset, column: str) -> dict[str, int]:
    return {id_: row for row, id_ in enumerate(dataset.select_columns([column])[column][:])}


def _named(dataset: Dataset, column: str) -> Dataset:
    """Return rows whose texts are as they are stored: a video's file by its name, not decoded."""
    return dataset.with_format(None) if isinstance(dataset.features[column], Value) else dataset


def _read(dataset: Dataset, row: int, column: str) -> Any:
    return dataset[row][column]
