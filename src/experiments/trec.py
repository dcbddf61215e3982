"""Per-query metrics of a run, recomputed from the TREC files that its evaluation left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.errors import ConfigError
from experiments.metrics import DEPTH, per_query_metrics
from experiments.runs import Run, dimensions


@dataclass(frozen=True)
class QueryValues:
    """Every metric of every query of one run, by dimension, the full one first."""

    query_ids: list[str]
    by_dimension: dict[int, dict[str, np.ndarray]]  # dimension -> metric, named as in metrics.json -> (num_queries,)


def read_query_values(run: Run) -> QueryValues:
    """Read a run's rankings, of the finetuned model or of the one that was only evaluated, at every dimension.

    Raises:
        ConfigError: If rankings are missing, or are not those of the metrics that the run reports.
    """
    tag = "final" if run.metrics.get("final") else "base"
    section, primary = run.metrics[tag], run.metrics["primary_metric"]
    prefix = primary.rpartition("_")[0]  # cosine_ndcg@10, mv_maxsim_ndcg@10
    relevant = _read_qrels(run.path / "rankings" / "qrels.trec")
    num_relevant = np.array([len(documents) for documents in relevant.values()])
    by_dimension = {}
    for dim in dimensions(section):
        hits = _read_hits(run.path / "rankings" / f"{tag}_dim{dim:04d}.trec", relevant)
        values = per_query_metrics(hits, num_relevant)
        by_dimension[dim] = {f"{prefix}_{name}": value for name, value in values.items()}
        reported = section[str(dim)].get(primary)
        found = by_dimension[dim][primary].mean() if primary in by_dimension[dim] else np.nan
        if reported is None or not abs(found - reported) < 1e-6:
            raise ConfigError(
                f"{run.path} reports {primary} {reported} at {dim} dimensions, but its rankings give {found:.4f}: "
                "the metric was defined otherwise when it ran; evaluate its model again (experiments.evaluate)"
            )
    if not by_dimension:
        raise ConfigError(f"{run.path} was not evaluated at any dimension: only rankings by embeddings are compared")
    return QueryValues([*relevant], by_dimension)


def _read_qrels(path: Path) -> dict[str, set[str]]:
    """Return the relevant documents of each query, in the file's order."""
    relevant: dict[str, set[str]] = {}
    for query_id, _, document_id, grade in _fields(path):
        if int(grade) > 0:
            relevant.setdefault(query_id, set()).add(document_id)
    return relevant


def _read_hits(path: Path, relevant: dict[str, set[str]]) -> np.ndarray:
    """Return whether the document at each rank is relevant, shape (num_queries, DEPTH)."""
    rows = {query_id: row for row, query_id in enumerate(relevant)}
    hits = np.zeros((len(rows), DEPTH), dtype=bool)
    for query_id, _, document_id, rank, _, _ in _fields(path):
        if document_id in relevant[query_id]:
            hits[rows[query_id], int(rank) - 1] = True
    return hits


def _fields(path: Path) -> list[list[str]]:
    try:
        return [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise ConfigError(f"{path} can't be read ({error.strerror}): runs are compared by their rankings") from error
