"""The metric that runs are ranked by, and what is left of it at fewer dimensions."""

from __future__ import annotations

import math
from typing import Any

from experiments.runs.metrics_file import dimensions

PRIMARY_METRIC = "cosine_ndcg@10"  # of embedders
RERANKING_METRIC = "ndcg@10"  # of rerankers


def primary_metric(metrics: dict[str, Any]) -> str:
    """Return the name of the metric that runs are ranked by."""
    return metrics.get("primary_metric", PRIMARY_METRIC)


def retention(section: dict[str, Any], metric: str = PRIMARY_METRIC) -> dict[int, float]:
    """Return each dimension's share of the full dimension's metric, unrounded (NaN where the full one has none)."""
    dims = dimensions(section)
    full = section[str(dims[0])][metric]
    return {dim: section[str(dim)][metric] / full if full else math.nan for dim in dims}


def smallest_dimension(section: dict[str, Any], share: float = 0.995, metric: str = PRIMARY_METRIC) -> int:
    """Return the smallest dimension that keeps the share of the full dimension's unrounded metric."""
    return min([dim for dim, kept in retention(section, metric).items() if kept >= share] or dimensions(section)[:1])
