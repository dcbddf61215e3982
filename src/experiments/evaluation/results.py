"""What an evaluation found: metrics by dimension, rankings, TREC files, samples to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from datasets import Dataset

from experiments.data.types import Data, Direction
from experiments.evaluation.primary_metric import PRIMARY_METRIC
from experiments.evaluation.trec import write_qrels, write_run


class Result(Protocol):
    """What an evaluator found, of whatever kind the model is."""

    attributes: dict[str, float] | None  # share of queries whose right document beats the one that differs in it alone
    cache_file: Path | None  # where the embeddings were read, if they were

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Return a section of metrics.json; the first key is what runs are ranked by."""

    def write_trec(self, folder: Path, tag: str) -> None:
        """Write TREC run files and qrels."""

    def samples(self, data: Any) -> list[dict[str, Any]]:
        """Return a few queries with what was ranked first, as `sample_retrievals` does."""


class Evaluator(Protocol):
    """What measures a model before, during and after training, and is called by the trainer too."""

    metric: str  # the primary one, as it stands in metrics.json

    def evaluate(self, model: Any, *, cached: bool = False) -> Result:
        """Return everything that one pass over the evaluation tells; cached: from what an earlier run kept of it."""


class Ranking(NamedTuple):
    """The first 100 documents of each query, best first: a row for each query, of shape (num_queries, depth)."""

    document_ids: np.ndarray | list[np.ndarray]  # str; a list of rows where not all are of the same depth
    scores: np.ndarray | list[np.ndarray]  # float32


@dataclass
class Evaluation:
    """What a model scored, by dimension, the full one first."""

    query_ids: list[str]
    relevant_docs: dict[str, set[str]]
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)  # float32: {"cosine_ndcg@10": ...}
    per_query: dict[int, np.ndarray] = field(default_factory=dict)  # primary metric, shape (num_queries,)
    rankings: dict[int, Ranking] = field(default_factory=dict)
    intervals: dict[int, tuple[float, float]] = field(default_factory=dict)  # 95% bootstrap of the primary metric
    precision: dict[int, dict[str, dict[str, float]]] = field(default_factory=dict)  # metrics by other precisions
    attributes: dict[str, float] | None = None  # share of queries whose page beats the one that differs in it
    seconds: dict[str, float] = field(default_factory=dict)  # encode_queries, encode_documents, score
    cache_file: Path | None = None  # where the embeddings were read, if they were
    directions: dict[str, Evaluation] = field(default_factory=dict)  # each by itself, where several are pooled here

    @property
    def full_dim(self) -> int:
        """The dimension of the model's embeddings."""
        return max(self.metrics)

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Return a section of metrics.json: by dimension its metrics, interval and the other precisions' metrics.

        After the dimensions come the directions, each with what it has by itself at the full dimension.
        """
        section: dict[str, dict[str, Any]] = {}
        for dim, values in self.metrics.items():
            section[str(dim)] = dict(values)
            if dim in self.intervals:
                section[str(dim)][f"{PRIMARY_METRIC}_ci95"] = list(self.intervals[dim])
            section[str(dim)].update(self.precision.get(dim, {}))
        return section | {name: each.to_json()[str(each.full_dim)] for name, each in self.directions.items()}

    def samples(self, data: Data | Direction, num: int = 8) -> list[dict[str, Any]]:
        """Return a few queries, of each direction if there are several; see `sample_retrievals`."""
        if isinstance(data, Data):
            parts, each = self.directions or dict.fromkeys(data.directions, self), num // len(data.directions)
            return [row for name, of in parts.items() for row in of.samples(data.directions[name], each)]
        document_ids = self.rankings[self.full_dim].document_ids
        ranked = {id_: [*row] for id_, row in zip(self.query_ids, document_ids, strict=True)}
        return sample_retrievals(ranked, data.queries, data.corpus, data.relevant_docs, num)

    def write_trec(self, folder: Path, tag: str) -> None:
        """Write `{tag}_dim0096.trec`, a run file per dimension, and `qrels.trec`, each whole or not at all.

        trec_eval gives the reported metrics from them: the scores have the digits that tell one float32 from another,
        and ties are broken as it breaks them.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for dim, ranking in self.rankings.items():
            ranked = ((ids, zip(*found, strict=True)) for ids, *found in zip(self.query_ids, *ranking, strict=True))
            write_run(folder, f"{tag}_dim{dim:04d}", ranked)
        write_qrels(folder, "qrels", {query_id: self.relevant_docs[query_id] for query_id in self.query_ids})


def sample_retrievals(
    ranked: Mapping[str, Sequence[str]],
    queries: Dataset,
    corpus: Dataset,
    relevant_docs: dict[str, set[str]],
    num: int = 8,
    top: int = 5,
) -> list[dict[str, Any]]:
    """Return a few queries with what was ranked first: first misses, then hits, in query order.

    Args:
        ranked: query_id -> corpus_ids, best first.
        queries: Columns `query_id` and `query`.
        corpus: Columns `corpus_id` and `document`.
        relevant_docs: query_id -> the corpus_ids that answer it.
        num: Queries.
        top: Documents of each.

    Returns:
        One dict a query: `query`, `right` (its best ranked relevant document), `right_rank` (from 1, or None if below
        the ranking's end), `top` (the first documents, each with whether it is relevant). Images come decoded.
    """
    query_rows = {query_id: row for row, query_id in enumerate(queries["query_id"])}
    document_rows = {corpus_id: row for row, corpus_id in enumerate(corpus["corpus_id"])}
    hits = {query_id: ids[0] in relevant_docs[query_id] for query_id, ids in ranked.items()}
    samples = []
    for query_id in sorted(ranked, key=hits.__getitem__)[:num]:  # stable: misses first, each kind in query order
        ids, right_ids = ranked[query_id], relevant_docs[query_id]
        right_rank = next((rank for rank, id_ in enumerate(ids, start=1) if id_ in right_ids), None)
        right_id = ids[right_rank - 1] if right_rank else min(right_ids)
        samples.append(
            {
                "query": queries[query_rows[query_id]]["query"],
                "right": corpus[document_rows[right_id]]["document"],
                "right_rank": right_rank,
                "top": [(corpus[document_rows[id_]]["document"], id_ in right_ids) for id_ in ids[:top]],
            }
        )
    return samples
