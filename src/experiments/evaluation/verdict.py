"""The verdict on a training: whether the model is better than what there was without it, query by query."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from experiments.evaluation.metrics import paired_difference
from experiments.evaluation.query_values import read_query_values
from experiments.runs.metrics_file import is_above_chance, main_values, primary_metric
from experiments.runs.run import Run


def judge(run: Run) -> dict[str, Any]:
    """Return `verdict` of metrics.json (see `runs.metrics_file`), of a run that has `base`, `final` and `rankings/`.

    Compared is what runs are ranked by: at the full dimension, or in all directions. A reranker with a retriever is
    held against the order of that one, end to end; every other model against itself before training.

    Raises:
        ConfigError: If the values of the queries are missing, or aren't those of the metrics.
    """
    metric, untrained = primary_metric(run.metrics), replace(run, metrics=run.metrics | {"final": None})
    final, base = (next(iter(read_query_values(each).values())).values for each in (run, untrained))
    against, first = "base", base[metric]
    if f"retriever_{metric}" in final:
        against, first, metric = "retriever", final[f"retriever_{metric}"], f"end_to_end_{metric}"
    found = paired_difference(first[None], final[metric][None])
    verdict = {"outcome": found.outcome, "difference": found.mean, "interval": [found.low, found.high], "p": found.p}
    verdict |= {"metric": metric, "against": against, "num_queries": len(first)}
    if against == "retriever":
        verdict["training"] = paired_difference(base[metric][None], final[metric][None]).outcome
    verdict["above_chance"] = is_above_chance(run.metrics, metric)
    if against == "base" and (run.metrics.get("training") or {}).get("unchanged") is not None:
        verdict["outcome"] = "not shown"  # what differs is rounding
    if verdict["outcome"] == "worse" and (best := _better_in_training(run.metrics, metric)):
        verdict["best"] = best
    return verdict


def _better_in_training(metrics: dict[str, Any], metric: str) -> dict[str, Any] | None:
    """Return step and value of the best evaluation in training, the first of equal ones, if it beats the final one."""
    key, history = f"eval_{metrics['evaluation']['name']}_{metric}", (metrics.get("training") or {}).get("history", [])
    evaluated = {entry["step"]: entry[key] for entry in history if key in entry}
    step = max(evaluated, key=evaluated.__getitem__, default=None)
    if step is None or round(evaluated[step], 3) <= round(main_values(metrics["final"])[metric], 3):
        return None
    return {"step": step, "value": evaluated[step]}
