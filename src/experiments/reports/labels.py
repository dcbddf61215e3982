"""Labels of the points of a figure, placed so that none covers another or crosses the plot."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

_LINE: dict[str, Any] = {"arrowstyle": "-", "color": "#999999", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}
_WRITTEN_OUT = 12  # more labels than that are numbered
_LIST, _LINE_HEIGHT = 60.0, 12.0  # of the numbered legend: from the axes, beyond what stands there; points
_BESIDE = [(side * 7.0, rise) for rise in (0.0, 6.0, -6.0, 14.0, -14.0) for side in (1, -1)]
_AROUND = [  # of a number; points from the mark to its middle, the nearest first
    (radius * math.cos(turn * math.pi / 6), radius * math.sin(turn * math.pi / 6))
    for radius in (12.0, 20.0, 30.0, 42.0, 56.0, 72.0)
    for turn in range(12)
]


class Label(NamedTuple):
    """What is written beside a point; nothing beside one whose mark alone is kept free."""

    text: str
    x: float
    y: float
    interval: Sequence[float] | None = None  # of y: the bar is kept free
    color: str = "black"


def place_labels(figure: Figure, axes: Axes, labels: Sequence[Label]) -> None:
    """Put each label beside its point or, where not all find room there, number the points and list them at the right.

    The labels that come first have the first choice of a place. Everything else must be on the figure, the limits and
    scales set: nothing may be drawn or moved afterwards. The figure must be `tight` to hold the list.
    """
    figure.canvas.draw()
    figure.set_layout_engine("none")  # from here on nothing may move
    taken = _taken(figure, axes, labels)
    labels = [label for label in labels if label.text]
    written = [label.text for label in labels]
    if len(labels) <= _WRITTEN_OUT and _place(figure, axes, labels, written, _BESIDE, [*taken]):
        return
    numbers = [str(number) for number in range(1, len(labels) + 1)]
    _place(figure, axes, labels, numbers, _AROUND, taken, must=True)
    height = axes.get_window_extent().height * 72 / figure.dpi
    step = min(_LINE_HEIGHT, height / max(len(labels), 1))
    for index, (number, label) in enumerate(zip(numbers, labels, strict=True)):
        place: Any = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "top"}
        style = place | {"fontsize": min(9.0, step * 0.8), "color": label.color}
        axes.annotate(number, (1, 1), xytext=(_LIST - 6, -index * step), ha="right", **style)
        axes.annotate(label.text, (1, 1), xytext=(_LIST, -index * step), **style)


def _taken(figure: Figure, axes: Axes, labels: Sequence[Label]) -> list[Bbox]:
    """Return where no label may stand: on the legend, the other texts, the marks and their intervals, in pixels."""
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    legend = axes.get_legend()
    taken = [legend.get_window_extent(renderer)] if legend else []
    taken += [text.get_window_extent(renderer) for text in axes.texts if text.get_text()]
    for label in labels:
        low, high = label.interval or (label.y, label.y)
        (x, y), (_, low), (_, high) = axes.transData.transform([(label.x, each) for each in (label.y, low, high)])
        taken += [Bbox.from_bounds(x - 9, y - 9, 18, 18), Bbox.from_extents(x - 2, low, x + 2, high)]
    return taken


def _place(
    figure: Figure,
    axes: Axes,
    labels: Sequence[Label],
    texts: Sequence[str],
    places: Sequence[tuple[float, float]],
    taken: list[Bbox],
    must: bool = False,
) -> bool:
    """Write texts at the first free places beside their points; if one has none, take all away unless all `must`."""
    renderer, frame, placed = figure.canvas.get_renderer(), axes.get_window_extent(), []  # type: ignore[attr-defined]
    for label, text in zip(labels, texts, strict=True):
        for drawn in _tries(axes, label, text, places, centred=must):
            drawn.update_positions(renderer)
            box = Text.get_window_extent(drawn, renderer)  # without the line
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                placed.append(drawn)
                break
            drawn.remove()
        else:
            if not must:
                for each in placed:
                    each.remove()
                return False
            placed.append(next(_tries(axes, label, text, places, centred=True)))
    return True


def _tries(
    axes: Axes, label: Label, text: str, places: Sequence[tuple[float, float]], *, centred: bool
) -> Iterator[Annotation]:
    """Yield a label at each of its places, in offset points from its point, with a short line from the far ones."""
    for right, up in places:
        style: Any = {"ha": "center" if centred else "left" if right > 0 else "right", "va": "center"}
        style |= {"fontsize": 8 if centred else 9, "color": label.color, "zorder": 4}
        if math.hypot(right, up) > 13:
            style["arrowprops"] = _LINE | {"relpos": (0.5 if centred else 0 if right > 0 else 1, 0.5)}
        style["bbox"] = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.5}  # above the lines
        yield axes.annotate(text, (label.x, label.y), xytext=(right, up), textcoords="offset points", **style)
