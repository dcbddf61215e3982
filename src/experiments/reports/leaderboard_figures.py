"""Figures of a leaderboard: model size against quality, and dimension against quality."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from experiments.reports.figures import BASE, FINETUNED, STYLE, new_figure
from experiments.reports.labels import Label, place_labels
from experiments.reports.leaderboard import AS_IT_IS, AS_PUBLISHED, Entry
from experiments.reports.leaderboard import FINETUNED as TRAINED
from experiments.reports.tables import short_count
from experiments.runs.metrics_file import metric_label

PUBLISHED = "#777777"
_MARKS = {  # kind of entry: colour, marker, legend
    TRAINED: (FINETUNED, "s", "finetuned"),
    AS_IT_IS: (BASE, "o", "as it is"),
    AS_PUBLISHED: (PUBLISHED, "D", "published, not measured here"),
}
_LABELLED = 40  # more labels than that hide the points


def size_against_quality(entries: Sequence[Entry], metric: str, title: str, path: Path) -> None:
    """Draw a metric against the number of parameters, an arrow from base to finetuned; published values are hollow.

    Args:
        entries: Rows of one leaderboard.
        metric: Its metric.
        title: Above the figure.
        path: The PNG to write.
    """
    entries = sorted(entries, key=lambda entry: (entry.kind == AS_PUBLISHED, -entry.value))
    with rc_context(STYLE):
        figure, axes = new_figure(9, 6 if len(entries) < 15 else 7.5)
        for entry in entries:
            _draw_entry(axes, entry)
        for kind in dict.fromkeys(entry.kind for entry in entries):  # only the marks that are there
            color, marker, label = _MARKS[kind]
            axes.plot([], [], color=color, marker=marker, label=label, linestyle="none", **_face(kind))
        axes.legend(loc="lower right")
        _scale_sizes(axes, sorted(entry.parameters for entry in entries))
        axes.margins(x=0.15, y=0.08)
        axes.set(xlabel="parameters", ylabel=metric_label(metric))
        axes.set_title(title, loc="left")
        place_labels(figure, axes, [_label(entry) for entry in entries[:_LABELLED]])
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, bbox_inches="tight")  # grows by the labels beside the axes


def _scale_sizes(axes: Axes, sizes: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: short_count(count)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if sizes[-1] < 100 * sizes[0]:  # less than two decades would have a tick or two
        ticks: list[float] = [lead * 10**power for power in range(3, 13) for lead in (1, 2, 5)]
        room = 3.0
        if sizes[-1] < 8 * sizes[0]:
            room = max(1.5, 3 * sizes[0] / sizes[-1])
            axes.set_xlim(sizes[0] / room, sizes[-1] * room)
            ticks = list[float]()
            for size in sizes:
                if not ticks or size > 1.25 * ticks[-1]:
                    ticks.append(size)
        axes.set_xticks([tick for tick in ticks if sizes[0] / room <= tick <= sizes[-1] * room])
        axes.xaxis.set_minor_locator(NullLocator())


def _face(kind: str) -> dict[str, Any]:
    return {"markerfacecolor": "white"} if kind == AS_PUBLISHED else {}


def _draw_entry(axes: Axes, entry: Entry) -> None:
    x, y, (low, high) = entry.parameters, entry.value, entry.interval or (entry.value, entry.value)
    color, marker, _ = _MARKS[entry.kind]
    bars = None if entry.interval is None else [[y - low], [high - y]]
    axes.errorbar(x, y, yerr=bars, color=color, marker=marker, markersize=6, elinewidth=1, **_face(entry.kind))
    if entry.base is not None:
        arrow = {"arrowstyle": "->", "color": FINETUNED, "shrinkA": 4, "shrinkB": 4, "linewidth": 1.2, "alpha": 0.6}
        axes.annotate("", (x, y), xytext=(x, entry.base), arrowprops=arrow)


def _label(entry: Entry) -> Label:
    name = entry.label.rpartition("/")[2] if entry.label.count("/") == 1 and " " not in entry.label else entry.label
    text = f"{name}, finetuned" if entry.kind == TRAINED and entry.base is not None else name
    color = PUBLISHED if entry.kind == AS_PUBLISHED else "black"
    return Label(text, entry.parameters, entry.value, entry.interval, color)
