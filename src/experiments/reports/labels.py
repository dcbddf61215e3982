"""Labels of the points of a figure, placed so that none covers another."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

# From a label to its point.
_LINE: dict[str, Any] = {"arrowstyle": "-", "color": "#999999", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 5}


class Label(NamedTuple):
    """What is written beside a point."""

    text: str
    x: float
    y: float
    interval: Sequence[float] | None = None  # of y: the bar is kept free
    color: str = "black"

    def draw(self, axes: Axes, place: tuple[float, float], coordinates: str, **style: Any) -> Any:
        """Write it at a place."""
        point, style = (self.x, self.y), style | {"va": "center", "fontsize": 9, "color": self.color}
        return axes.annotate(self.text, point, xytext=place, textcoords=coordinates, **style)


def place_labels(figure: Figure, axes: Axes, labels: Sequence[Label]) -> None:
    """Put each label beside its point where that is free, and the others in a column to the right of the axes.

    The labels that come first have the first choice of a place. Everything else must be on the figure, the limits and
    scales set: nothing may be drawn or moved afterwards. The figure must be `tight` to hold the column.
    """
    figure.canvas.draw()
    figure.set_layout_engine("none")  # from here on nothing may move
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    legend = axes.get_legend()
    taken = [legend.get_window_extent(renderer)] if legend else []
    for label in labels:
        low, high = label.interval or (label.y, label.y)
        (x, y), (_, low), (_, high) = axes.transData.transform([(label.x, each) for each in (label.y, low, high)])
        taken += [Bbox.from_bounds(x - 9, y - 9, 18, 18), Bbox.from_extents(x - 2, low, x + 2, high)]
    frame = axes.get_window_extent(renderer)
    left_over = []
    for label in labels:
        for rise, side in itertools.product((0, 5, -5, 16, -16, 27, -27), (1, -1)):
            drawn = label.draw(
                axes,
                (side * 7, rise),
                "offset points",
                ha="left" if side > 0 else "right",
                bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.5},  # above the lines
                zorder=4,
                arrowprops=_LINE | {"relpos": (0 if side > 0 else 1, 0.5)} if abs(rise) > 5 else None,
            )
            drawn.update_positions(renderer)
            box = Text.get_window_extent(drawn, renderer)  # without the line
            if frame.x0 <= box.x0 and box.x1 <= frame.x1 and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            drawn.remove()
        else:
            left_over.append(label)
    _column_of_labels(axes, sorted(left_over, key=lambda label: -label.y))


def _column_of_labels(axes: Axes, labels: Sequence[Label]) -> None:
    """Write labels to the right of the axes, the best on top, each joined to its point by a thin line."""
    extent = axes.get_window_extent()
    line = 15 * axes.figure.dpi / 72  # pixels
    heights = [extent.height + line]
    for label in labels:
        y = axes.transData.transform((1, label.y))[1] - extent.y0
        heights.append(min(y, heights[-1] - line))
    if labels and heights[-1] < 0:  # pushed off the bottom: up again, all together
        heights = [each - heights[-1] for each in heights]
    for label, y in zip(labels, heights[1:], strict=True):
        arrow = _LINE | {"relpos": (0, 0.5)}
        label.draw(axes, (1.03, y / extent.height), "axes fraction", zorder=1, arrowprops=arrow)
