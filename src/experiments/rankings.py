"""What an evaluation found: metrics by dimension, rankings, TREC files, samples to look at."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from datasets import Dataset

from experiments.data import RetrievalData

PRIMARY_METRIC = "cosine_ndcg@10"


class Result(Protocol):
    """What an evaluator found, of whatever kind the model is."""

    attributes: dict[str, float] | None  # share of queries whose right document beats the one that differs in it alone

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Return a section of metrics.json; the first key is what runs are ranked by."""

    def write_trec(self, folder: Path, tag: str) -> None:
        """Write TREC run files and qrels."""

    def samples(self, data: Any) -> list[dict[str, Any]]:
        """Return a few queries with what was ranked first, as `sample_retrievals` does."""


class Evaluator(Protocol):
    """What measures a model before, during and after training, and is called by the trainer too."""

    metric: str  # the primary one, as it stands in metrics.json

    def evaluate(self, model: Any) -> Result:
        """Return everything that one pass over the evaluation tells."""


class Ranking(NamedTuple):
    """The first 100 documents of each query, best first: both arrays have the shape (num_queries, depth)."""

    document_ids: np.ndarray  # str
    scores: np.ndarray  # float32


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

    @property
    def full_dim(self) -> int:
        """The dimension of the model's embeddings."""
        return max(self.metrics)

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Return a section of metrics.json: by dimension its metrics, interval and the other precisions' metrics."""
        section: dict[str, dict[str, Any]] = {}
        for dim, values in self.metrics.items():
            section[str(dim)] = dict(values)
            if dim in self.intervals:
                section[str(dim)][f"{PRIMARY_METRIC}_ci95"] = list(self.intervals[dim])
            section[str(dim)].update(self.precision.get(dim, {}))
        return section

    def samples(self, data: RetrievalData) -> list[dict[str, Any]]:
        """Return a few queries with what was retrieved; see `sample_retrievals`."""
        return sample_retrievals(self, data.queries, data.corpus, data.relevant_docs)

    def write_trec(self, folder: Path, tag: str) -> None:
        """Write `{tag}_dim0096.trec`, a run file per dimension, and `qrels.trec`, each whole or not at all.

        trec_eval gives the reported metrics from them: the scores have the digits that tell one float32 from another,
        and ties are broken as it breaks them.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for dim, ranking in self.rankings.items():
            run = f"{tag}_dim{dim:04d}"
            write_lines(
                folder / f"{run}.trec",
                (
                    f"{query_id} Q0 {document_id} {rank} {score} {run}"
                    for query_id, ids, scores in zip(self.query_ids, *ranking, strict=True)
                    for rank, (document_id, score) in enumerate(zip(ids, scores, strict=True), start=1)
                ),
            )
        write_lines(
            folder / "qrels.trec",
            (f"{query_id} 0 {id_} 1" for query_id in self.query_ids for id_ in sorted(self.relevant_docs[query_id])),
        )


def sample_retrievals(
    evaluation: Evaluation,
    queries: Dataset,
    corpus: Dataset,
    relevant_docs: dict[str, set[str]],
    num: int = 8,
    top: int = 5,
) -> list[dict[str, Any]]:
    """Return a few queries with what was retrieved at the full dimension: first misses, then hits, in query order.

    Returns:
        One dict a query: `query`, `right` (its best ranked relevant document), `right_rank` (from 1, or None if below
        the ranking's end), `top` (the first documents, each with whether it is relevant). Images come decoded.
    """
    query_rows = {query_id: row for row, query_id in enumerate(queries["query_id"])}
    document_rows = {corpus_id: row for row, corpus_id in enumerate(corpus["corpus_id"])}
    ranked = dict(zip(evaluation.query_ids, evaluation.rankings[evaluation.full_dim].document_ids, strict=True))
    hits = {query_id: ids[0] in relevant_docs[query_id] for query_id, ids in ranked.items()}
    samples = []
    for query_id in sorted(ranked, key=hits.__getitem__)[:num]:  # stable: misses first, each kind in query order
        ids, right_ids = ranked[query_id].tolist(), relevant_docs[query_id]
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


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text file, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.tmp")
    with unfinished.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    os.replace(unfinished, path)
