"""What an evaluation of a reranker found: metrics by direction, rankings, TREC files, samples to look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiments import metrics
from experiments.data import Direction, RerankingData
from experiments.rankings import write_lines

PRIMARY_METRIC = "ndcg@10"


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
            run = f"{tag}_{name}"
            write_lines(
                folder / f"{run}.trec",
                (
                    f"{query_id} Q0 {document_id} {rank} {np.float32(score)} {run}"
                    for query_id, documents in ranking.items()
                    for rank, (document_id, score) in enumerate(documents, start=1)
                ),
            )
        for direction, relevant in self.relevant_docs.items():
            lines = (f"{query_id} 0 {id_} 1" for query_id, ids in relevant.items() for id_ in sorted(ids))
            write_lines(folder / f"qrels_{direction}.trec", lines)

    def samples(self, data: RerankingData, num: int = 4, top: int = 5) -> list[dict[str, Any]]:
        """Return a few queries of each direction as `rankings.sample_retrievals` does, first those that went wrong."""
        return [
            sample
            for direction, relevant in self.relevant_docs.items()
            for sample in self._samples(data.directions[direction], self.rankings[direction], relevant, num, top)
        ]

    @staticmethod
    def _samples(
        direction: Direction,
        ranking: dict[str, list[tuple[str, float]]],
        relevant: dict[str, set[str]],
        num: int,
        top: int,
    ) -> Iterator[dict[str, Any]]:
        query_rows = {id_: row for row, id_ in enumerate(direction.queries["query_id"])}
        document_rows = {id_: row for row, id_ in enumerate(direction.corpus["corpus_id"])}

        def document(id_: str) -> Any:
            return direction.corpus[document_rows[id_]]["document"]

        hits = {query_id: documents[0][0] in relevant[query_id] for query_id, documents in ranking.items()}
        for query_id in sorted(ranking, key=hits.__getitem__)[:num]:
            ids, right = [id_ for id_, _ in ranking[query_id]], relevant[query_id]
            right_rank = next(rank for rank, id_ in enumerate(ids, start=1) if id_ in right)
            yield {
                "query": direction.queries[query_rows[query_id]]["query"],
                "right": document(ids[right_rank - 1]),
                "right_rank": right_rank,
                "top": [(document(id_), id_ in right) for id_ in ids[:top]],
            }


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
