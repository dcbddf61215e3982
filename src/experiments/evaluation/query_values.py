"""The metrics of each query: saved where they are measured, `rankings/{tag}.npz`, and read where runs are compared."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiments.config.errors import ConfigError
from experiments.runs.files import replacing
from experiments.runs.metrics_file import EVALUATE_AGAIN, evaluations, parts, primary_metric
from experiments.runs.run import Run


@dataclass
class Part:
    """One part of an evaluation, a dimension or a direction: every metric of every query."""

    query_ids: list[str]
    values: dict[str, np.ndarray]  # by the metric's name as in metrics.json, shape (num_queries,)
    # By metric: 95% bootstrap of the mean; None where what it is of is not above chance.
    intervals: dict[str, tuple[float, float] | None] = field(default_factory=dict)
    precisions: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)  # the values by other precisions

    @property
    def metrics(self) -> dict[str, float]:
        """The means over the queries."""
        return _means(self.values)

    def to_json(self) -> dict[str, Any]:
        """Return what stands in metrics.json: metrics, intervals, and the metrics by other precisions."""
        intervals = {f"{name}_ci95": list(ends) if ends else None for name, ends in self.intervals.items()}
        return self.metrics | intervals | {name: _means(values) for name, values in self.precisions.items()}


def _means(values: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(value.mean()) for name, value in values.items()}


def pool(found: Mapping[str, Part]) -> Part:
    """Return all queries of several directions, one after the other; ids get their direction before them."""
    every = [*found.values()]
    if len(every) == 1:
        return every[0]
    return Part(
        [f"{name}/{query_id}" for name, part in found.items() for query_id in part.query_ids],
        _joined([part.values for part in every]),
        precisions={name: _joined([part.precisions[name] for part in every]) for name in every[0].precisions},
    )


def _joined(values: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([each[name] for each in values]) for name in values[0]}


def save_query_values(path: Path, sections: Mapping[str, Mapping[Any, Part]]) -> None:
    """Write every metric of every query of the parts, which are in the sections of metrics.json, to an `.npz` file.

    `dimensions/96/cosine_ndcg@10` in it has shape (num_queries,), and `dimensions/96/query_ids` names the queries.
    """
    arrays: dict[str, Any] = {}
    for section, found in sections.items():
        for key, part in found.items():
            for name, values in {"query_ids": np.array(part.query_ids), **part.values}.items():
                arrays[f"{section}/{key}/{name}"] = values
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_query_values(run: Run) -> dict[str, Part]:
    """Return the dimensions of a run's evaluation, the full one first, or a reranker's directions, all together first.

    They are of the finetuned model, or of the one that was only evaluated.

    Raises:
        ConfigError: If the file is missing, or isn't that of the metrics that the run reports.
    """
    best = evaluations(run.metrics)[-1]
    path, metric = run.path / "rankings" / f"{best.tag}.npz", primary_metric(run.metrics)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            arrays = {tuple(name.split("/", 2)): found[name] for name in found.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        reason = getattr(error, "strerror", None) or "it is damaged"
        said = f"{path} can't be read ({reason}): runs are compared query by query"
        raise ConfigError(f"{said}; {EVALUATE_AGAIN}") from error
    kind = "dimensions" if "dimensions" in best.measured else "directions"
    found = {}
    for key, reported in parts(best.measured).items():
        values = {name: value for (of, part, name), value in arrays.items() if (of, part) == (kind, key)}
        query_ids = values.pop("query_ids", np.array([]))
        for name in [metric, *values]:
            mean = values[name].mean() if name in values else float("nan")
            if not abs(mean - reported.get(name, float("nan"))) < 1e-6:
                raise ConfigError(
                    f"{run.path} reports {name} {reported.get(name)} at {key}, but its queries' values give "
                    f"{mean:.4f}; {EVALUATE_AGAIN}"
                )
        found[key] = Part(query_ids.tolist(), values)
    return found
