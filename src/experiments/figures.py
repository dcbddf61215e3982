"""Figures of a run and of many runs, from metrics alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox

from experiments.runs import PRIMARY_METRIC, Run, dimensions, main_values, retention
from experiments.tables import metric_label, short_count

# Okabe and Ito's colours, told apart with any colour vision (https://jfly.uni-koeln.de/color/).
BASE, FINETUNED, LOSS = "#D55E00", "#0072B2", "#555555"
STYLE: Any = {
    **{"font.size": 10, "axes.titlesize": 11, "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.fontsize": 9},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#E5E5E5"},
    **{"axes.axisbelow": True, "legend.frameon": False},
}
_LABELLED = 30  # more labels than that hide the points


def matryoshka_curve(metrics: dict[str, Any], path: Path) -> None:
    """Draw the primary metric against the dimension, before and after training, with 95% intervals.

    Args:
        metrics: What metrics.json holds.
        path: The PNG to write.
    """
    metric = metrics.get("primary_metric", PRIMARY_METRIC)
    evaluation = metrics["evaluation"]
    with rc_context(STYLE):
        figure, axes = new_figure(7, 4.4)
        dims = dimensions(metrics.get("final") or metrics["base"])
        if metrics.get("base"):
            _curve(axes, metrics["base"], metric, color=BASE, marker="o", label="base", annotate=-1)
        if metrics.get("final"):
            _curve(axes, metrics["final"], metric, color=FINETUNED, marker="s", label="finetuned", annotate=1)
        axes.set_xscale("log", base=2)
        axes.set_xticks(dims, [str(dim) for dim in dims])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.margins(x=0.07, y=0.16)
        axes.set(xlabel="dimensions (percentages: share of the full dimension)", ylabel=metric_label(metric))
        counts = f"{evaluation['num_queries']:,} queries, {evaluation['num_documents']:,} documents, 95% intervals"
        axes.set_title(f"{evaluation['name']}: {counts}", loc="left")
        axes.legend(loc="best")
        save(figure, path)


def _curve(
    axes: Axes, section: dict[str, Any], metric: str, *, color: str, marker: str, label: str, annotate: int
) -> None:
    """Draw one line; `annotate` is 1 for percentages above it, -1 for below."""
    dims = dimensions(section)
    values = [section[str(dim)][metric] for dim in dims]
    intervals = [
        section[str(dim)].get(f"{metric}_ci95") or (value, value) for dim, value in zip(dims, values, strict=True)
    ]
    low, high = zip(*intervals, strict=True)
    axes.fill_between(dims, low, high, color=color, alpha=0.15, linewidth=0)
    axes.plot(dims, values, color=color, marker=marker, label=label)
    for dim, value in zip(dims[1:], values[1:], strict=True):
        axes.annotate(
            f"{retention(section, metric)[dim]:.1%}",
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
    metrics = {key for entry in history for key in entry if key.startswith("eval_") and key.endswith("ndcg@10")}
    metric = min(metrics, key=len, default=None)  # a smaller dimension's name is the longer one
    panels = [("loss", "training loss", LOSS, ".")]
    if metric is not None:
        panels.append((metric, f"evaluation {metric_label(metric)}", FINETUNED, "s"))
    with rc_context(STYLE):
        figure = Figure(figsize=(7, 2.4 * len(panels) + 0.4), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        columns = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
        for axes, (key, label, color, marker) in zip(columns[:, 0], panels, strict=True):
            points = [(entry["step"], entry[key]) for entry in history if entry.get(key) is not None]
            axes.plot(*zip(*points, strict=True) if points else ([], []), color=color, marker=marker, markersize=5)
            axes.set_ylabel(label)
        columns[-1, 0].set(xlabel="step", xlim=(0, None))
        columns[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.align_ylabels()
        save(figure, path)


def size_against_quality(runs: Sequence[Run], path: Path) -> None:
    """Draw the primary metric against the number of parameters: an arrow from base to finetuned for each run.

    Args:
        runs: Finished runs of one evaluation.
        path: The PNG to write.
    """
    metric = runs[0].metrics.get("primary_metric", PRIMARY_METRIC)
    points = sorted((_point(run, metric) for run in runs), key=lambda point: -point["value"])
    with rc_context(STYLE):
        figure, axes = new_figure(8.5, 5.5)
        for point in points:
            _draw_point(axes, point)
        _legend(axes, points)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: short_count(count)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        sizes = sorted(point["x"] for point in points)
        if sizes[-1] < 8 * sizes[0]:  # less than a decade would have one tick or none
            axes.set_xlim(sizes[0] / 3, sizes[-1] * 3)
            axes.set_xticks([size for last, size in zip([0, *sizes], sizes, strict=False) if size > 1.25 * last])
            axes.xaxis.set_minor_locator(NullLocator())
        axes.margins(x=0.15, y=0.08)
        axes.set(xlabel="parameters", ylabel=metric_label(metric))
        evaluation = runs[0].metrics["evaluation"]
        axes.set_title(f"{evaluation['name']}: {len(runs)} run{'s' * (len(runs) > 1)}, 95% intervals", loc="left")
        place_labels(figure, axes, points[:_LABELLED])
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, bbox_inches="tight")  # grows by the labels beside the axes


def _point(run: Run, metric: str) -> dict[str, Any]:
    """Return what is drawn of a run."""
    base, final = main_values(run.metrics.get("base")), main_values(run.metrics.get("final"))
    best = final or base
    return {
        "label": run.record["name"],
        "x": run.metrics["model"]["parameters"],
        "finetuned": bool(final),
        "value": best[metric],
        "interval": best.get(f"{metric}_ci95") or (best[metric], best[metric]),
        "base": base.get(metric) if final else None,
    }


def _draw_point(axes: Axes, point: dict[str, Any]) -> None:
    x, y, (low, high) = point["x"], point["value"], point["interval"]
    color, marker = (FINETUNED, "s") if point["finetuned"] else (BASE, "o")
    axes.errorbar(
        x, y, yerr=[[y - low], [high - y]], color=color, marker=marker, markersize=6, elinewidth=1, alpha=0.9
    )
    if point["base"] is not None:
        axes.plot(x, point["base"], marker="o", markersize=6, color=BASE, markerfacecolor="white", linestyle="none")
        arrow = {"arrowstyle": "->", "color": FINETUNED, "shrinkA": 4, "shrinkB": 4, "linewidth": 1.2, "alpha": 0.6}
        axes.annotate("", (x, y), xytext=(x, point["base"]), arrowprops=arrow)


def _legend(axes: Axes, points: list[dict[str, Any]]) -> None:
    """Explain only the marks that are there."""
    white: Any = {"markerfacecolor": "white", "linestyle": "none"}
    if any(point["finetuned"] for point in points):
        axes.plot([], [], color=FINETUNED, marker="s", label="finetuned")
    if any(point["base"] is not None for point in points):
        axes.plot([], [], color=BASE, marker="o", label="the same before training", **white)
    if not all(point["finetuned"] for point in points):
        axes.plot([], [], color=BASE, marker="o", label="evaluated as it is")
    axes.legend(loc="lower right")


def place_labels(figure: Figure, axes: Axes, points: list[dict[str, Any]]) -> None:
    """Put each label beside its point where that is free, and the others in a column to the right of the axes.

    Nothing may be drawn or moved afterwards; save the figure with `bbox_inches="tight"`.

    Args:
        figure: With everything on it.
        axes: Their limits and scales set.
        points: Each with `x`, `value` (the y), `interval` (of y) and `label`; the column is in their order.
    """
    figure.canvas.draw()
    figure.set_layout_engine("none")  # from here on nothing may move
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    legend = axes.get_legend()
    taken = [legend.get_window_extent(renderer)] if legend else []
    for point in points:
        x, y = axes.transData.transform((point["x"], point["value"]))
        (_, low), (_, high) = axes.transData.transform([(point["x"], edge) for edge in point["interval"]])
        taken += [Bbox.from_bounds(x - 9, y - 9, 18, 18), Bbox.from_extents(x - 2, low, x + 2, high)]
    frame = axes.get_window_extent(renderer)
    left_over = []
    for point in points:
        for side, rise in ((1, 0), (-1, 0), (1, 5), (-1, 5), (1, -5), (-1, -5)):
            label = axes.annotate(
                point["label"],
                (point["x"], point["value"]),
                xytext=(side * 7, rise),
                textcoords="offset points",
                ha="left" if side > 0 else "right",
                va="center",
                fontsize=9,
                bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.5},  # above the lines to the column
                zorder=4,
            )
            box = label.get_window_extent(renderer)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            label.remove()
        else:
            left_over.append(point)
    _column_of_labels(axes, left_over)


def _column_of_labels(axes: Axes, points: list[dict[str, Any]]) -> None:
    """Write labels to the right of the axes, the best on top, each joined to its point by a thin line."""
    height = axes.get_window_extent().height
    line = 15 * axes.figure.dpi / 72  # pixels
    y_pixels = [axes.transData.transform((1, point["value"]))[1] - axes.get_window_extent().y0 for point in points]
    heights = [axes.get_window_extent().height]
    for y in y_pixels:
        heights.append(min(y, heights[-1] - line))
    if points and heights[-1] < 0:  # pushed off the bottom: up again, all together
        heights = [each - heights[-1] for each in heights]
    for point, y in zip(points, heights[1:], strict=True):
        axes.annotate(
            point["label"],
            (point["x"], point["value"]),
            xytext=(1.03, y / height),
            textcoords="axes fraction",
            va="center",
            fontsize=9,
            arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.6, "shrinkB": 5, "relpos": (0, 0.5)},
            zorder=1,
        )


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of one pair of axes, in inches, that needs no display."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def save(figure: Figure, path: Path) -> None:
    """Write a figure, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
