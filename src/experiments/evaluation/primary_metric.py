"""The metric that runs are ranked by, and what is left of it at fewer dimensions."""

from __future__ import annotations

import math
from typing import Any

PRIMARY_METRIC = "cosine_ndcg@10"  # of embedders
RERANKING_METRIC = "ndcg@10"  # of rerankers


def primary_metric(metrics: dict[str, Any]) -> str:
    """Return the name of the metric that runs are ranked by."""
    return metrics.get("primary_metric", PRIMARY_METRIC)


def retention(measured: dict[str, Any], metric: str = PRIMARY_METRIC) -> dict[int, float]:
    """Return each dimension's share of the full dimension's metric, unrounded (NaN where the full one has none)."""
    values = {int(dim): found[metric] for dim, found in measured["dimensions"].items()}
    full, *_ = values.values()
    return {dim: value / full if full else math.nan for dim, value in values.items()}


def smallest_dimension(measured: dict[str, Any], share: float = 0.995, metric: str = PRIMARY_METRIC) -> int:
    """Return the smallest dimension that keeps the share of the full dimension's unrounded metric."""
    kept = retention(measured, metric)
    return min([dim for dim, value in kept.items() if value >= share] or [*kept][:1])
