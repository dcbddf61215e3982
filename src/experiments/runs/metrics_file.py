"""What `metrics.json` holds, of an embedder and of a reranker.

`base` is what was measured before training, `final` after it, `result` of a model that was only evaluated;
`evaluations` reads them, with what each is called. Each has named sections: `dimensions`, of embedders, the full one
first ("96", "48"), and `directions`, where there are several ("image_to_text"), of rerankers with all together first
("all"). A part of a section holds metrics by name, the interval of the primary one (`{primary_metric}_ci95`), and, at
a dimension, the metrics by other precisions ("int8"). Runs are ranked by the primary metric of the first part of the
first section: `main_values`.

`chance` is what a random order of the documents gives in expectation, metrics by name, of all queries ("all") and of
each direction, where there are several; of a reranker of the candidates it puts in order (`end_to_end_`: of those that
were retrieved, `retriever_`: of the corpus). Read it by `chance`; records before it have none.

`warning` says that the model is a toy which tells nothing about the user's own data; null where it isn't.

`verdict` of a trained model, at that part: `outcome` (better, worse, not shown) in the `metric`, `against` the base
model or a reranker's retriever; mean `difference` over the `num_queries`, its paired 95% `interval`, and `p` of a
sign-flip test; of one that is worse the `best` evaluation in training (`step`, `value`), if that was better.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from experiments.config.errors import ConfigError
from experiments.runs.files import load_json

RANKED_BY = "ndcg@10"  # the primary metric of rerankers; of embedders with the score function before it
PRIMARY_METRIC = f"cosine_{RANKED_BY}"  # of embedders
EVALUATE_AGAIN = "evaluate its model again with this version"


class Evaluated(NamedTuple):
    """What was measured at one time of a run."""

    tag: str  # names its files in `rankings/` and its metrics in the dashboard: base, final or model
    label: str  # for people: base, finetuned or model
    measured: dict[str, Any]  # its sections


class OldRecordError(ConfigError):
    """A `metrics.json` that the version before wrote."""


def load_metrics(run_dir: Path) -> dict[str, Any] | None:
    """Return a run's `metrics.json`, or None where there is none that can be read.

    Raises:
        OldRecordError: If it has no sections, as the version before wrote it.
    """
    metrics = load_json(run_dir / "metrics.json")
    if metrics and not all(has_sections(metrics.get(key)) for key in ("base", "final", "result")):
        raise OldRecordError(f"{run_dir} was written by a version before, without sections; {EVALUATE_AGAIN}")
    return metrics


def has_sections(measured: dict[str, Any] | None) -> bool:
    """Return whether `base`, `final` or `result` is as this version writes it, or empty."""
    return not measured or "dimensions" in measured or "directions" in measured


def evaluations(metrics: dict[str, Any]) -> list[Evaluated]:
    """Return what a run measured: before and after its training, or of the model that it only evaluated."""
    if result := metrics.get("result"):
        return [Evaluated("model", "model", result)]
    if not (final := metrics.get("final")):
        return [Evaluated("base", "model", metrics["base"])]  # evaluated by a version before
    base = metrics.get("base")
    return [*([Evaluated("base", "base", base)] if base else []), Evaluated("final", "finetuned", final)]


def best_measured(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return what was measured after training, or of a model that wasn't trained."""
    return evaluations(metrics)[-1].measured


def parts(measured: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Return the first section: the metrics by dimension, or by direction of a reranker."""
    return (measured or {}).get("dimensions") or (measured or {}).get("directions", {})


def main_values(measured: dict[str, Any] | None) -> dict[str, Any]:
    """Return the metrics that a run is ranked by: at the full dimension, or in all directions of a reranker."""
    return next(iter(parts(measured).values()), {})


def dimensions(measured: dict[str, Any] | None) -> list[int]:
    """Return the dimensions, the full one first; none of a reranker."""
    return [int(dim) for dim in (measured or {}).get("dimensions", {})]


def chance(metrics: dict[str, Any], direction: str | None = None) -> dict[str, float] | None:
    """Return what a random order gives in expectation, metrics by name; None where a record doesn't tell.

    Args:
        metrics: What `metrics.json` holds.
        direction: One of several; None: all queries, as in `main_values` and at every dimension.
    """
    return (metrics.get("chance") or {}).get(direction or "all")


def primary_metric(metrics: dict[str, Any]) -> str:
    """Return the name of the metric that runs are ranked by."""
    return metrics.get("primary_metric", PRIMARY_METRIC)


def metric_label(metric: str) -> str:
    """Return a metric's name as it is read: `cosine_ndcg@10` becomes nDCG@10."""
    name, at, k = metric.rpartition("_")[2].partition("@")
    return {"ndcg": "nDCG", "mrr": "MRR", "map": "MAP"}.get(name, name) + at + k


def retention(measured: dict[str, Any], metric: str = PRIMARY_METRIC) -> dict[int, float]:
    """Return each dimension's share of the full dimension's metric, unrounded (NaN where the full one has none)."""
    values = {int(dim): found[metric] for dim, found in measured["dimensions"].items()}
    full, *_ = values.values()
    return {dim: value / full if full else math.nan for dim, value in values.items()}


def smallest_dimension(measured: dict[str, Any], share: float = 0.995, metric: str = PRIMARY_METRIC) -> int:
    """Return the smallest dimension that keeps the share of the full dimension's unrounded metric."""
    kept = retention(measured, metric)
    return min([dim for dim, value in kept.items() if value >= share] or [*kept][:1])
