"""What `metrics.json` holds, of an embedder and of a reranker.

`base` is what was measured before training, `final` after it, `result` of a model that was only evaluated;
`evaluations` reads them, with what each is called. Each has named sections: `dimensions`, of embedders, the full one
first ("96", "48"), and `directions`, where there are several ("image_to_text"), of rerankers with all together first
("all"). A part of a section holds metrics by name, the interval of the primary one (`{primary_metric}_ci95`), and, at
a dimension, the metrics by other precisions ("int8") and the interval of its share of the full one's primary metric
(`{primary_metric}_share_ci95`; null where that is not above chance). Runs are ranked by the primary metric of the
first part of the first section: `main_values`.

`chance` is what a random order of the documents gives in expectation, metrics by name, of all queries ("all") and of
each direction, where there are several; of a reranker of the candidates it puts in order (`end_to_end_`: of those that
were retrieved, `retriever_`: of the corpus). Read it by `chance`; records before it have none.

`warning` says that the model is a tiny one, which tells nothing about the user's own data; null where it isn't.

`verdict` of a trained model, at that part: `outcome` (better, worse, not shown) in the `metric`, `against` the base
model or a reranker's retriever (then `training` is the outcome against the base); mean `difference` over the
`num_queries`, its paired 95% `interval`, and `p` of a sign-flip test; whether what was trained is `above_chance`; of
one that is worse the `best` evaluation in training (`step`, `value`), if that was better. `training.unchanged` says of
weights that are as before why, if that is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.config.errors import ConfigError
from experiments.runs.files import load_json

RANKED_BY = "ndcg@10"  # the primary metric of rerankers; of embedders with the score function before it
PRIMARY_METRIC = f"cosine_{RANKED_BY}"  # of embedders
KEPT = 0.99  # of the full dimension's quality, at least, is what a smaller one that is chosen keeps
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
        direction: None: all queries, as in `main_values` and at every dimension; and where there is no other.
    """
    found = metrics.get("chance") or {}
    return found.get(direction or "all") if len(found) > 1 else found.get("all")


def shared_chance(records: Iterable[dict[str, Any]], metric: str) -> float | None:
    """Return what a random order gives in a metric by those records that tell; None where these differ, or none does.

    Rerankers that were given other candidates differ.
    """
    told = {(chance(metrics) or {}).get(metric) for metrics in records} - {None}
    return told.pop() if len(told) == 1 else None


def is_above_chance(metrics: dict[str, Any], metric: str) -> bool | None:
    """Return whether a metric lies above chance, after training; None where a record doesn't tell."""
    interval = main_values(best_measured(metrics)).get(f"{metric}_ci95")
    by_chance = (chance(metrics) or {}).get(metric)
    if interval is None or by_chance is None:
        return None
    return lies_above(interval, by_chance, metrics["evaluation"]["num_queries"])


def lies_above(interval: Sequence[float], by_chance: float, num_queries: int) -> bool:
    """Return whether an interval lies above chance, of three queries at least: of fewer it says too little.

    Of 3 to 300 queries that were answered at random out of ten documents or more, about 3 in 100 such evaluations seem
    to; out of two or three documents up to 15.
    """
    return interval[0] > by_chance and num_queries > 2


def primary_metric(metrics: dict[str, Any]) -> str:
    """Return the name of the metric that runs are ranked by."""
    return metrics.get("primary_metric", PRIMARY_METRIC)


def answered_by(metrics: dict[str, Any]) -> str:
    """Return the metric that a run is judged by: the primary one, end to end of a reranker that has a retriever."""
    metric = primary_metric(metrics)
    has_retriever = f"retriever_{metric}" in main_values(best_measured(metrics))
    return f"end_to_end_{metric}" if has_retriever else metric


def metric_label(metric: str) -> str:
    """Return a metric's name as it is read: `cosine_ndcg@10` becomes nDCG@10."""
    name, at, k = metric.rpartition("_")[2].partition("@")
    return {"ndcg": "nDCG", "mrr": "MRR", "map": "MAP"}.get(name, name) + at + k


def share(metric: str) -> str:
    """Return the name under which a dimension holds the interval of its share of the full one's metric, `…_ci95`."""
    return f"{metric}_share"


def retention(measured: dict[str, Any], metric: str = PRIMARY_METRIC) -> dict[int, float]:
    """Return each dimension's share of the full one's metric, unrounded; NaN where that is not above chance, or 0."""
    values = {int(dim): found[metric] for dim, found in measured["dimensions"].items()}
    full, *_ = values.values()
    if main_values(measured).get(f"{share(metric)}_ci95", ()) is None:
        full = 0
    return {dim: value / full if full else math.nan for dim, value in values.items()}


def retention_intervals(measured: dict[str, Any], metric: str = PRIMARY_METRIC) -> dict[int, list[float] | None]:
    """Return the paired 95% interval of each share; None where there is no share, or a version before wrote it."""
    return {int(dim): found.get(f"{share(metric)}_ci95") for dim, found in measured["dimensions"].items()}


def smallest_dimension(measured: dict[str, Any], least: float = KEPT, metric: str = PRIMARY_METRIC) -> int:
    """Return the smallest dimension whose share has an interval above `least`; the full one where none is told."""
    full, *_ = found = retention_intervals(measured, metric)
    return min(dim for dim, ends in found.items() if dim == full or (ends and ends[0] >= least))
