"""Per-query metrics of a run, recomputed from the TREC files that its evaluation left."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.config.errors import ConfigError
from experiments.evaluation.metrics import CUTOFFS, per_query_metrics
from experiments.evaluation.primary_metric import primary_metric
from experiments.runs.metrics_file import best_section, keys
from experiments.runs.run import Run

ALL = "all"  # a reranker's directions together


@dataclass(frozen=True)
class QueryValues:
    """Every metric of every query of one run, by dimension, the full one first, or by a reranker's direction."""

    query_ids: dict[str, list[str]]
    metrics: dict[str, dict[str, np.ndarray]]  # "96" or "image_to_text" -> name as in metrics.json -> (num_queries,)


def read_query_values(run: Run) -> QueryValues:
    """Read a run's rankings: of the finetuned model, or of the one that was only evaluated.

    Raises:
        ConfigError: If rankings are missing, or are not those of the metrics that the run reports.
    """
    tag, section = "final" if run.metrics.get("final") else "base", best_section(run.metrics)
    metric = primary_metric(run.metrics)
    prefix = metric.removesuffix(metric.rpartition("_")[2])  # cosine_ of cosine_ndcg@10
    found = QueryValues({}, {})
    for key in (each for each in keys(section) if each != ALL):
        names = (f"{tag}_dim{int(key):04d}", "qrels") if key.isdigit() else (f"{tag}_{key}", f"qrels_{key}")
        ranking, qrels = (run.path / "rankings" / f"{name}.trec" for name in names)
        relevant = _read_qrels(qrels)
        num_relevant = np.array([len(documents) for documents in relevant.values()])
        values = per_query_metrics(_read_hits(ranking, relevant), num_relevant)
        found.query_ids[key] = [*relevant]
        found.metrics[key] = {f"{prefix}{name}": value for name, value in values.items()}
    if ALL in section:
        _join_directions(found)
    for key, values in found.metrics.items():
        for name in [name for name in values if name not in section[key]]:
            del values[name]
        for name, value in values.items():
            if metric not in values or not abs(value.mean() - section[key][name]) < 1e-6:
                raise ConfigError(
                    f"{run.path} reports {name} {section[key].get(name)} at {key}, but its rankings give "
                    f"{value.mean():.4f}: it was defined otherwise when it ran; evaluate its model again"
                )
    order = keys(section)
    return QueryValues({key: found.query_ids[key] for key in order}, {key: found.metrics[key] for key in order})


def _join_directions(found: QueryValues) -> None:
    """Add the queries of all directions, one after the other."""
    names = [*next(iter(found.metrics.values()))]
    ids = [f"{key}/{query_id}" for key, query_ids in found.query_ids.items() for query_id in query_ids]
    joined = {name: np.concatenate([values[name] for values in found.metrics.values()]) for name in names}
    found.query_ids[ALL], found.metrics[ALL] = ids, joined


def _read_qrels(path: Path) -> dict[str, set[str]]:
    """Return the relevant documents of each query, in the file's order."""
    relevant: dict[str, set[str]] = {}
    for query_id, _, document_id, grade in _fields(path):
        if int(grade) > 0:
            relevant.setdefault(query_id, set()).add(document_id)
    return relevant


def _read_hits(path: Path, relevant: dict[str, set[str]]) -> np.ndarray:
    """Return whether the document at each rank is relevant, shape (num_queries, depth)."""
    row_of = {query_id: row for row, query_id in enumerate(relevant)}
    found = [
        (row_of[query_id], int(rank) - 1, document_id in relevant[query_id])
        for query_id, _, document_id, rank, _, _ in _fields(path)
    ]
    rows, ranks, are_hits = zip(*found, strict=True)
    hits = np.zeros((len(row_of), max(*CUTOFFS, max(ranks) + 1)), dtype=bool)
    hits[rows, ranks] = are_hits
    return hits


def _fields(path: Path) -> Iterator[list[str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"{path} can't be read ({error.strerror}): runs are compared by their rankings") from error
    return (line.split() for line in lines)


def write_run(folder: Path, name: str, ranked: Iterable[tuple[str, Iterable[tuple[str, np.float32]]]]) -> None:
    """Write a TREC run file, `{name}.trec`.

    Args:
        folder: Where it goes.
        name: Of the run.
        ranked: Each query's id with its documents' ids and scores, best first; a float32 is written with the digits
            that tell it from others.
    """
    lines = (
        f"{query_id} Q0 {document_id} {rank} {score} {name}"
        for query_id, documents in ranked
        for rank, (document_id, score) in enumerate(documents, start=1)
    )
    _write_lines(folder / f"{name}.trec", lines)


def write_qrels(folder: Path, name: str, relevant_docs: Mapping[str, set[str]]) -> None:
    """Write a TREC file of relevant documents, `{name}.trec`."""
    lines = (f"{query_id} 0 {id_} 1" for query_id, ids in relevant_docs.items() for id_ in sorted(ids))
    _write_lines(folder / f"{name}.trec", lines)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text file, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.tmp")
    with unfinished.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    os.replace(unfinished, path)
