"""The figures of a leaderboard: model size against quality, or each run in a line of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, NullLocator

from experiments.reports.figures import BASE, FINETUNED, draw_chance, draw_point, drawn
from experiments.reports.labels import Label, place_labels
from experiments.reports.leaderboard import AS_IT_IS, AS_PUBLISHED, Entry
from experiments.reports.leaderboard import FINETUNED as TRAINED
from experiments.reports.tables import short_count
from experiments.runs.metrics_file import metric_label

_PUBLISHED = "#777777"
_MARKS: dict[str, Any] = {
    TRAINED: {"color": FINETUNED, "marker": "s"},
    AS_IT_IS: {"color": BASE, "marker": "o"},
    AS_PUBLISHED: {"color": _PUBLISHED, "marker": "D", "markerfacecolor": "white"},
}
_LABELLED = 40  # more labels, or lines, than that nobody reads


def size_against_quality(
    entries: Sequence[Entry], metric: str, title: str, path: Path, by_chance: float | None = None
) -> None:
    """Draw a metric against the number of parameters, an arrow from base to finetuned; published values are hollow."""
    entries = sorted(entries, key=lambda entry: (entry.kind == AS_PUBLISHED, -entry.value))
    with drawn(path, (9, 6 if len(entries) < 15 else 7.5), tight=True) as (figure, axes):
        for entry in entries:
            draw_point(axes, entry.parameters, entry.value, entry.interval, **_MARKS[entry.kind])
            if entry.base is not None:
                arrow = {"arrowstyle": "->", "color": FINETUNED, "shrinkA": 4, "shrinkB": 4, "linewidth": 1.2}
                ends = (entry.parameters, entry.value), (entry.parameters, entry.base)
                axes.annotate("", *ends, arrowprops=arrow | {"alpha": 0.6})
        _legend(axes, entries, loc="lower right")
        _scale_sizes(axes, sorted(entry.parameters for entry in entries))
        axes.margins(x=0.15, y=0.08)
        axes.set(xlabel="parameters", ylabel=metric_label(metric))
        axes.set_title(title, loc="left")
        draw_chance(axes, by_chance)
        told = [_label(entry) for entry in entries if not entry.is_before][:_LABELLED]
        starts = [_label(entry)._replace(text="") for entry in entries if entry.is_before]  # of arrows
        place_labels(figure, axes, [*told, *starts])


def quality_of_each(
    entries: Sequence[Entry], metric: str, title: str, path: Path, by_chance: float | None = None
) -> None:
    """Draw a metric of each run in a line of its own, the first on top: of models that have one size."""
    if len(entries) > _LABELLED:
        entries, title = entries[:_LABELLED], f"{title} (the first {_LABELLED} of {len(entries)})"
    with drawn(path, (8, 1.2 + 0.34 * len(entries)), tight=True) as (_, axes):
        for place, entry in enumerate(entries):
            low, high = entry.interval or (entry.value, entry.value)
            axes.plot([low, high], [place, place], color=_MARKS[entry.kind]["color"], linewidth=1)
            axes.plot(entry.value, place, markersize=6, **_MARKS[entry.kind])
        axes.set_yticks(range(len(entries)), [_label(entry).text for entry in entries])
        axes.set_ylim(len(entries) - 0.3, -0.5)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(metric_label(metric))
        axes.set_title(title, loc="left", x=0)
        draw_chance(axes, by_chance, along="x")
        _legend(axes, entries, loc="upper left", bbox_to_anchor=(1.01, 1.0))


def _legend(axes: Axes, entries: Sequence[Entry], **place: Any) -> None:
    """Say what the marks mean, those that are there."""
    for kind in dict.fromkeys(entry.kind for entry in entries):
        label = f"{kind}, not measured here" if kind == AS_PUBLISHED else kind
        axes.plot([], [], label=label, linestyle="none", **_MARKS[kind])
    axes.legend(**place)


def _scale_sizes(axes: Axes, sizes: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda count, _: short_count(count))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if sizes[-1] >= 100 * sizes[0]:
        return
    # Less than two decades would have a tick or two.
    room, ticks = 3.0, [lead * 10.0**power for power in range(3, 13) for lead in (1, 2, 5)]
    if sizes[-1] < 8 * sizes[0]:
        room, ticks = max(1.5, 3 * sizes[0] / sizes[-1]), []
        axes.set_xlim(sizes[0] / room, sizes[-1] * room)
        for size in sizes:
            if not ticks or size > 1.25 * ticks[-1]:
                ticks.append(size)
    axes.set_xticks([tick for tick in ticks if sizes[0] / room <= tick <= sizes[-1] * room])
    axes.xaxis.set_minor_locator(NullLocator())


def _label(entry: Entry) -> Label:
    name = entry.label.rpartition("/")[2] if entry.label.count("/") == 1 and " " not in entry.label else entry.label
    color = _PUBLISHED if entry.kind == AS_PUBLISHED else "black"
    low, high = entry.interval or (entry.value, entry.value)
    free = (min(low, low if entry.base is None else entry.base), high)  # of the arrow too
    return Label(name, entry.parameters, entry.value, free, color)
