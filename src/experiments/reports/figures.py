"""Figures of a run and of many runs, from metrics alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from experiments.runs.metrics_file import RANKED_BY, best_measured, dimensions, metric_label, primary_metric, retention

# Okabe and Ito's colours, told apart with any colour vision (https://jfly.uni-koeln.de/color/).
BASE, FINETUNED, LOSS = "#D55E00", "#0072B2", "#555555"
STYLE: Any = {
    **{"font.size": 10, "axes.titlesize": 11, "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.fontsize": 9},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#E5E5E5"},
    **{"axes.axisbelow": True, "legend.frameon": False},
}


def dimensions_against_quality(
    metrics: dict[str, Any], title: str, path: Path, published: Mapping[int, Sequence[float]] | None = None
) -> None:
    """Draw the primary metric against the dimension, before and after training, with 95% intervals.

    Args:
        metrics: What metrics.json holds.
        title: Above the figure.
        path: The PNG to write.
        published: By dimension the published metrics, base and finetuned; their marks are hollow.
    """
    metric = primary_metric(metrics)
    is_trained = bool(metrics.get("final"))
    curves = (("base", BASE, "o", "base" if is_trained else "as it is", -1), ("final", FINETUNED, "s", "finetuned", 1))
    with rc_context(STYLE):
        figure, axes = new_figure(8, 5)
        for key, color, marker, label, side in curves:
            if dimensions(metrics.get(key)):
                draw_curve(axes, metrics[key], metric, color=color, marker=marker, label=label, annotate=side)
        rows = sorted((published or {}).items())
        for index, (_, color, marker, label, _) in enumerate(curves if rows else ()):
            values = [row[index] for _, row in rows]
            hollow: Any = {"markerfacecolor": "white", "linestyle": ":", "linewidth": 1}
            axes.plot(
                [dim for dim, _ in rows], values, color=color, marker=marker, label=f"{label}, published", **hollow
            )
        dims = sorted({*dimensions(best_measured(metrics)), *(published or {})})
        axes.set_xscale("log", base=2)
        axes.set_xticks(dims, [str(dim) for dim in dims])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.margins(x=0.07, y=0.16)
        axes.set(xlabel="dimensions (percentages: share of the full dimension)", ylabel=metric_label(metric))
        axes.set_title(title, loc="left")
        axes.legend(loc="best")
        save(figure, path)


def draw_curve(
    axes: Axes, measured: dict[str, Any], metric: str, *, color: str, marker: str, label: str, annotate: int
) -> None:
    """Draw one line; `annotate` is 1 for percentages above it, -1 for below."""
    dims, found = dimensions(measured), [*measured["dimensions"].values()]
    values = [each[metric] for each in found]
    intervals = [each.get(f"{metric}_ci95") or (each[metric], each[metric]) for each in found]
    low, high = zip(*intervals, strict=True)
    axes.fill_between(dims, low, high, color=color, alpha=0.15, linewidth=0)
    axes.plot(dims, values, color=color, marker=marker, label=label)
    for dim, value in zip(dims[1:], values[1:], strict=True):
        if math.isnan(retention(measured, metric)[dim]):
            continue
        axes.annotate(
            f"{retention(measured, metric)[dim]:.1%}",
            (dim, value),
            xytext=(0, 8) if annotate > 0 else (4, -8),  # beside a line that rises, not on it
            textcoords="offset points",
            ha="center" if annotate > 0 else "left",
            va="bottom" if annotate > 0 else "top",
            fontsize=9,
            color=color,
        )


def training_curve(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the training loss and, below it, the evaluation's primary metric at the full dimension, by step.

    Args:
        history: The trainer's log: entries with `step` and `loss` or `eval_…_ndcg@10`.
        path: The PNG to write.
    """
    metrics = {key for entry in history for key in entry if key.startswith("eval_") and key.endswith(RANKED_BY)}
    metric = min(metrics, key=len, default=None)  # a smaller dimension's name is the longer one
    panels = [("loss", "training loss", LOSS, ".")]
    if metric is not None:
        panels.append((metric, f"evaluation {metric_label(metric)}", FINETUNED, "s"))
    with rc_context(STYLE):
        figure = empty_figure(7, 2.4 * len(panels) + 0.4)
        columns = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
        for axes, (key, label, color, marker) in zip(columns[:, 0], panels, strict=True):
            points = [(entry["step"], entry[key]) for entry in history if entry.get(key) is not None]
            axes.plot(*zip(*points, strict=True) if points else ([], []), color=color, marker=marker, markersize=5)
            axes.set_ylabel(label)
        columns[-1, 0].set(xlabel="step", xlim=(0, None))
        columns[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.align_ylabels()
        save(figure, path)


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of this size in inches and its axes."""
    figure = empty_figure(width, height)
    return figure, figure.subplots()


def empty_figure(width: float, height: float) -> Figure:
    """Return a figure of this size in inches, without axes."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
