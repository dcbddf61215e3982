"""Figures: how one is made, and those of a run."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from experiments.runs.metrics_file import (
    best_measured,
    chance,
    dimensions,
    evaluations,
    main_values,
    metric_label,
    primary_metric,
    retention,
)

# Okabe and Ito's colours, told apart with any colour vision (https://jfly.uni-koeln.de/color/).
BASE, FINETUNED, LOSS, CHANCE = "#D55E00", "#0072B2", "#555555", "#777777"
_STYLE: Any = {
    **{"font.size": 10, "axes.titlesize": 11, "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.fontsize": 9},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#E5E5E5"},
    **{"axes.axisbelow": True, "legend.framealpha": 0.9, "legend.edgecolor": "white"},
}


@contextmanager
def drawn(
    path: Path, size: tuple[float, float], *, tight: bool = False, **panels: Any
) -> Iterator[tuple[Figure, Any]]:
    """Give a figure of some inches and its axes (`panels` as `Figure.subplots` takes them), and write it afterwards.

    A `tight` figure grows by what stands beside the axes.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, figure.subplots(**panels)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, bbox_inches="tight" if tight else None)


def draw_point(axes: Axes, x: float, y: float, interval: Sequence[float] | None, **style: Any) -> None:
    """Draw a point and, through it, the interval of its height."""
    bars = None if interval is None else [[y - interval[0]], [interval[1] - y]]
    axes.errorbar(x, y, yerr=bars, markersize=6, elinewidth=1, **style)


def draw_chance(axes: Axes, by_chance: float | None, along: str = "y", *, said: bool = True) -> None:
    """Draw a line at what a random order gives; where that is far below all values, say it at the edge instead.

    Everything else must be drawn. Of panels side by side the last one says it.
    """
    if by_chance is None:
        return
    low, high = axes.get_ylim() if along == "y" else axes.get_xlim()
    is_far = bool(low - by_chance > high - low)
    style: Any = {"fontsize": 8, "color": CHANCE, "textcoords": "offset points"}
    if along == "y":  # beside the axes, where nothing else is
        text, at = f"chance\n{by_chance:.3f}" + " ↓" * is_far, (1.0, low if is_far else by_chance)
        style |= {"xycoords": ("axes fraction", "data"), "xytext": (4, 0), "va": "bottom" if is_far else "center"}
    else:
        text, at = "← " * is_far + f"chance {by_chance:.3f}", (low if is_far else by_chance, 0.01)
        style |= {"xycoords": ("data", "axes fraction"), "xytext": (3, 0), "va": "bottom"}
    if not is_far:
        line: Any = {"color": CHANCE, "linestyle": (0, (4, 3)), "linewidth": 1, "zorder": 1}
        (axes.axhline if along == "y" else axes.axvline)(by_chance, **line)
    if said:
        axes.annotate(text, at, annotation_clip=False, **style)


def scale_by_powers_of_two(axes: Axes, ticks: Mapping[float, str]) -> None:
    """Make the horizontal axis logarithmic, with these ticks alone."""
    axes.set_xscale("log", base=2)
    axes.set_xticks([*ticks], [*ticks.values()])
    axes.xaxis.set_minor_locator(NullLocator())


def dimensions_against_quality(
    metrics: dict[str, Any], title: str, path: Path, published: Mapping[int, Sequence[float]] | None = None
) -> None:
    """Draw the primary metric against the dimension, before and after training, with 95% intervals.

    Published values are given by dimension, base and finetuned; their marks are hollow.
    """
    metric, rows = primary_metric(metrics), sorted((published or {}).items())
    styles: dict[str, dict[str, Any]] = {
        "base": {"color": BASE, "marker": "o"},
        "finetuned": {"color": FINETUNED, "marker": "s"},
    }
    with drawn(path, (8, 5)) as (_, axes):
        for _, label, measured in evaluations(metrics):
            if dimensions(measured):
                style = styles.get(label, styles["base"])
                _draw_curve(axes, measured, metric, label, style, is_above=label == "finetuned")
        for index, (label, style) in enumerate(styles.items() if rows else ()):
            hollow: Any = {"markerfacecolor": "white", "linestyle": ":", "linewidth": 1}
            values = [row[index] for _, row in rows]
            axes.plot([dim for dim, _ in rows], values, label=f"{label}, published", **style, **hollow)
        dims = sorted({*dimensions(best_measured(metrics)), *(published or {})})
        scale_by_powers_of_two(axes, {dim: str(dim) for dim in dims})
        axes.margins(x=0.07, y=0.16)
        low, high = axes.get_ylim()
        axes.set_ylim(bottom=max(low, -0.04 * high))
        shares = "" if not axes.texts else " (percentages: share of the full dimension)"
        axes.set(xlabel=f"dimensions{shares}", ylabel=metric_label(metric))
        axes.set_title(textwrap.fill(title, 88), loc="left")
        draw_chance(axes, (chance(metrics) or {}).get(metric))
        axes.legend(loc="best")


def _draw_curve(
    axes: Axes, measured: dict[str, Any], metric: str, label: str, style: dict[str, Any], *, is_above: bool
) -> None:
    """Draw one line, with the smaller dimensions' shares of the full one above it or below."""
    dims, found = dimensions(measured), [*measured["dimensions"].values()]
    values = [each[metric] for each in found]
    low, high = zip(*(each.get(f"{metric}_ci95") or (each[metric], each[metric]) for each in found), strict=True)
    axes.fill_between(dims, low, high, color=style["color"], alpha=0.15, linewidth=0)
    axes.plot(dims, values, label=label, **style)
    place: Any = {"xytext": (0, 8), "ha": "center", "va": "bottom"}
    if not is_above:
        place = {"xytext": (4, -8), "ha": "left", "va": "top"}  # beside a line that rises, not on it
    box = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.5}  # above the line of chance
    place |= {"textcoords": "offset points", "fontsize": 9, "color": style["color"], "bbox": box}
    for dim, value, share in [*zip(dims, values, retention(measured, metric).values(), strict=True)][1:]:
        if not math.isnan(share):
            axes.annotate(f"{share:.1%}", (dim, value), **place)


def training_curve(metrics: dict[str, Any], path: Path) -> None:
    """Draw the training loss and, below it, the primary metric at the full dimension by step, from the base at step 0.

    The metric's points at both ends are the base's and the final evaluation, with their 95% intervals.
    """
    history, metric = metrics["training"]["history"], primary_metric(metrics)
    losses = [(entry["step"], entry["loss"]) for entry in history if entry.get("loss") is not None]
    evaluated = {entry["step"]: entry[key] for entry in history for key in entry if _is_evaluation(key, metrics)}
    last = max((entry["step"] for entry in history), default=0)
    ends = [(0, main_values(metrics.get("base"))), (last, main_values(metrics.get("final")))]
    evaluated = {step: values[metric] for step, values in ends if metric in values} | evaluated
    with drawn(path, (7, 5.2 if evaluated else 2.8), nrows=1 + bool(evaluated), sharex=True, squeeze=False) as (
        figure,
        columns,
    ):
        columns[0, 0].plot(*zip(*losses, strict=True) if losses else ([], []), color=LOSS, marker=".", markersize=5)
        columns[0, 0].set_ylabel("training loss")
        if evaluated:
            axes = columns[1, 0]
            axes.plot(*zip(*sorted(evaluated.items()), strict=True), color=FINETUNED, marker="s", markersize=5)
            for step, values in ends:
                if metric in values:
                    draw_point(axes, step, values[metric], values.get(f"{metric}_ci95"), color=FINETUNED, marker="s")
            axes.set_ylabel(f"evaluation {metric_label(metric)}")
            axes.set_title("bars: 95% intervals of the base and of the final evaluation", loc="left", fontsize=8)
            draw_chance(axes, (chance(metrics) or {}).get(metric))
        columns[-1, 0].set(xlabel="step", xlim=(-0.02 * last, None))
        columns[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.align_ylabels()


def _is_evaluation(key: str, metrics: dict[str, Any]) -> bool:
    """Return whether a key of the trainer's log is the primary metric at the full dimension, in all directions."""
    return key == f"eval_{metrics['evaluation']['name']}_{primary_metric(metrics)}"
