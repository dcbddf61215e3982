"""What an evaluation of a reranker found: metrics by direction, rankings, TREC files, samples to look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.types import Data
from experiments.evaluation import metrics
from experiments.evaluation.results import sample_retrievals
from experiments.evaluation.trec import write_qrels, write_run


@dataclass
class RerankingEvaluation:
    """What a reranker scored, by direction, all together first."""

    relevant_docs: dict[str, dict[str, set[str]]]  # by direction: query_id -> corpus_ids
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    per_query: dict[str, np.ndarray] = field(default_factory=dict)  # primary metric, shape (num_queries,)
    intervals: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)  # by metric: 95% bootstrap
    # By name (direction, or direction_end_to_end): query_id -> documents and scores, best first.
    rankings: dict[str, dict[str, list[tuple[str, float]]]] = field(default_factory=dict)
    attributes: None = None
    cache_file: None = None

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Return a section of metrics.json: by direction its metrics and intervals."""
        return {
            key: values | {f"{name}_ci95": list(ends) for name, ends in self.intervals.get(key, {}).items()}
            for key, values in self.metrics.items()
        }

    def write_trec(self, folder: Path, tag: str) -> None:
        """Write a TREC run file for each direction (`{tag}_image_to_text.trec`), end to end too, and its qrels."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, ranking in self.rankings.items():
            write_run(folder, f"{tag}_{name}", ((id_, _float32(documents)) for id_, documents in ranking.items()))
        for direction, relevant in self.relevant_docs.items():
            write_qrels(folder, f"qrels_{direction}", relevant)

    def samples(self, data: Data) -> list[dict[str, Any]]:
        """Return a few queries of each direction; see `sample_retrievals`."""
        found = []
        for name, each in data.directions.items():
            ranked = {query_id: [id_ for id_, _ in documents] for query_id, documents in self.rankings[name].items()}
            found += sample_retrievals(ranked, each.queries, each.corpus, each.relevant_docs, num=4)
        return found


def _float32(documents: list[tuple[str, float]]) -> Iterator[tuple[str, np.float32]]:
    return ((id_, np.float32(score)) for id_, score in documents)


def order(ids: np.ndarray, scores: np.ndarray) -> list[tuple[str, float]]:
    """Return documents and scores, best first; of equal scores the higher id comes first, as in trec_eval.

    Args:
        ids: Of the documents, shape (num_documents,).
        scores: Float32, shape (num_documents,).
    """
    by_id = np.argsort(ids)[::-1]
    columns, ranked = metrics.rank(scores[by_id][None], depth=len(ids))
    return list(zip(ids[by_id][columns[0]].tolist(), ranked[0].tolist(), strict=True))


def query_metrics(rankings: list[list[tuple[str, float]]], relevant: list[set[str]]) -> dict[str, np.ndarray]:
    """Return nDCG@10, MRR@10, MAP and accuracy@1 of each query, shape (num_queries,) each.

    Args:
        rankings: Documents of each query, best first; they may be few, and lack what is relevant.
        relevant: The documents that answer each query, at least one.
    """
    hits = np.zeros((len(rankings), max(10, *map(len, rankings))), dtype=bool)
    for row, ranking in enumerate(rankings):
        hits[row, : len(ranking)] = [id_ in relevant[row] for id_, _ in ranking]
    num_relevant = np.array([len(ids) for ids in relevant])
    values = metrics.per_query_metrics(hits, num_relevant)
    precisions = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return {
        "ndcg@10": values["ndcg@10"],
        "mrr@10": values["mrr@10"],
        "map": (hits * precisions).sum(axis=1) / num_relevant,  # over the whole ranking
        "accuracy@1": values["accuracy@1"],
    }
