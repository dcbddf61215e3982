"""What `metrics.json` holds: the sections `base` and `final`, each by dimension or by direction."""

from __future__ import annotations

from typing import Any


def best_section(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the metrics after training, or those of a model that wasn't trained."""
    return metrics.get("final") or metrics["base"]


def main_values(section: dict[str, Any] | None) -> dict[str, Any]:
    """Return the metrics that a run is ranked by: at the full dimension, or in all directions of a reranker."""
    return section[keys(section)[0]] if section else {}


def keys(section: dict[str, Any]) -> list[str]:
    """Return the keys of a `base` or `final` section: the dimensions, the full one first, or as they stand."""
    return [str(dim) for dim in dimensions(section)] or list(section)


def dimensions(section: dict[str, Any]) -> list[int]:
    """Return the dimensions of a `base` or `final` section, the full one first; none for a reranker's."""
    return sorted((int(dim) for dim in section if dim.isdigit()), reverse=True)
