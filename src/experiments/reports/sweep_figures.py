"""Figures of a sweep: quality against each swept key, bytes of an embedding and peak memory."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from experiments.reports.figures import BASE, FINETUNED, draw_point, drawn, scale_by_powers_of_two
from experiments.reports.labels import Label, place_labels
from experiments.reports.page import Page
from experiments.reports.run_report import BYTES, precisions
from experiments.reports.sweep_summary import peak_bytes
from experiments.runs.metrics_file import best_measured, metric_label
from experiments.runs.names import last_part
from experiments.runs.run import Run

_MARKS: dict[str, Any] = {
    "float32": {"color": FINETUNED, "marker": "s"},
    "int8": {"color": BASE, "marker": "o"},
    "binary": {"color": "#009E73", "marker": "^"},
}
_IN_A_ROW = 3
_LABELLED = 16


class Result(NamedTuple):
    """A finished job of a sweep."""

    job: dict[str, Any]  # as in summary.json, see `sweeps.read_sweep`
    run: Run

    @property
    def value(self) -> float:
        """The primary metric at the full dimension."""
        return self.job["value"]

    def at(self, key: str) -> str:
        """Return the value of a swept key."""
        return self.job["point"].get(key, "")


def draw(page: Page, results: Sequence[Result], keys: Sequence[str], suffix: str) -> None:
    """Put the figures on a page that there is something to draw for, of finished jobs that share an evaluation."""
    varied = [key for key in keys if len({result.at(key) for result in results}) > 1]
    varied = [key for key in varied if last_part(key) != "seed"] or varied  # a seed where nothing else was swept
    if varied:
        _against_keys(results, varied, page.figure(f"sweep_keys{suffix}.png", "Quality against each swept key"))
    if points := _by_precision(results):
        file = page.figure(f"sweep_bytes{suffix}.png", "Quality against bytes of an embedding")
        _against_bytes(results, points, file)
    if any(peak_bytes(result.job) for result in results):
        _against_memory(results, varied, page.figure(f"sweep_memory{suffix}.png", "Quality against peak memory"))


def _against_keys(results: Sequence[Result], keys: Sequence[str], path: Path) -> None:
    """Draw a panel for each key: every job, joined where all other keys are the same, and the mean."""
    columns = min(len(keys), _IN_A_ROW)
    rows = -(-len(keys) // columns)
    size = (max(5.5, 3.4 * columns), 3.4 * rows)
    with drawn(path, size, nrows=rows, ncols=columns, sharey=True, squeeze=False) as (figure, panels):
        for axes in panels.flat[len(keys) :]:
            axes.remove()
        for axes, key in zip(panels.flat, keys, strict=False):
            _panel(axes, results, key)
        for axes in panels[:, 0]:
            axes.set_ylabel(_metric(results))
        alone = {len({result.at(key) for result in results}) == len(results) for key in keys}
        said = {
            True: "95% intervals where a value has one job",
            False: "lines join those that differ in the key alone; squares: mean",
        }
        title = "; ".join([_title(results), *(said[each] for each in sorted(alone))])
        figure.suptitle(textwrap.fill(title, int(13 * size[0])), fontsize=11, x=0.01, ha="left")


def _panel(axes: Axes, results: Sequence[Result], key: str) -> None:
    values = sorted({result.at(key) for result in results}, key=order)
    place = {value: index for index, value in enumerate(values)}
    line = "-" if all(order(value)[0] == 0 for value in values) else "none"  # names have no order to follow
    lines: dict[tuple[tuple[str, str], ...], list[tuple[int, float]]] = {}
    for result in results:
        others = tuple((name, value) for name, value in result.job["point"].items() if name != key)
        lines.setdefault(others, []).append((place[result.at(key)], result.value))
    grey: Any = {"color": "#AAAAAA", "linewidth": 0.9, "marker": "o", "markersize": 4, "zorder": 2, "linestyle": line}
    for points in lines.values():
        axes.plot(*zip(*sorted(points), strict=True), **grey)
    if len(values) == len(results):
        for result in results:
            low, high = result.job.get("interval") or (result.value, result.value)
            axes.vlines(place[result.at(key)], low, high, color=FINETUNED, linewidth=1)
    means = [mean(result.value for result in results if result.at(key) == value) for value in values]
    blue: Any = {"color": FINETUNED, "linewidth": 2, "marker": "s", "markersize": 7, "zorder": 3, "linestyle": line}
    axes.plot(range(len(values)), means, **blue)
    rotated: Any = {"rotation": 25, "ha": "right"} if sum(map(len, values)) > 30 else {}
    axes.set_xticks(range(len(values)), [_short(value) for value in values], **rotated)
    axes.set_xlim(-0.4, len(values) - 0.6)
    axes.grid(axis="x", visible=False)
    axes.set_xlabel(key)


def order(value: str) -> tuple[int, float, str]:
    """Return what swept values are sorted by: numbers by size, then text."""
    try:
        return 0, float(value), ""
    except ValueError:
        return 1, 0.0, value


def _short(value: str, limit: int = 18) -> str:
    value = value.rpartition("/")[2]
    return value if len(value) <= limit else f"{value[: limit - 1]}…"


def _by_precision(results: Sequence[Result]) -> list[tuple[str, Label]]:
    """Return precision and point of each job, dimension and precision that was evaluated."""
    points = []
    for result in results:
        for dim, values in best_measured(result.run.metrics).get("dimensions", {}).items():
            for name, each in precisions(values).items():
                if (value := each.get(result.job["metric"])) is not None:
                    text = f"job {result.job['number']}\n{dim} {name}"
                    points.append((name, Label(text, BYTES[name] * int(dim), value)))
    return points


def _against_bytes(results: Sequence[Result], points: Sequence[tuple[str, Label]], path: Path) -> None:
    """Draw every job, dimension and precision, and the line of the best for their size."""
    front: list[Label] = []
    for point in sorted((point for _, point in points), key=lambda each: (each.x, -each.y)):
        if not front or point.y > front[-1].y:
            front.append(point)
    with drawn(path, (8.5, 5.2)) as (_, axes):
        for name, mark in _MARKS.items():
            if mine := [point for precision, point in points if precision == name]:
                style = mark | {"markersize": 6, "alpha": 0.55, "linestyle": "none", "label": name}
                axes.plot([each.x for each in mine], [each.y for each in mine], **style)
        line: Any = {"where": "post", "color": "#222222", "linewidth": 1.2, "zorder": 1, "label": "best by bytes"}
        axes.step([each.x for each in front], [each.y for each in front], **line)
        place: Any = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center", "fontsize": 8}
        for each in front:
            axes.annotate(each.text, (each.x, each.y), **place)
        scale_by_powers_of_two(axes, {size: f"{size:,.4g}" for size in sorted({point.x for _, point in points})})
        axes.margins(x=0.08, y=0.13)
        axes.set(xlabel="bytes of an embedding", ylabel=_metric(results))
        axes.set_title(_title(results), loc="left")
        axes.legend(loc="lower right")


def _against_memory(results: Sequence[Result], keys: Sequence[str], path: Path) -> None:
    points = []
    for result in sorted(results, key=lambda each: -each.value):
        if peak := peak_bytes(result.job):
            text = ", ".join(_short(result.at(key)) for key in keys)
            points.append(Label(text, peak / 2**20, result.value, result.job.get("interval")))
    with drawn(path, (8.5, 5.2), tight=True) as (figure, axes):
        for point in points:
            draw_point(axes, point.x, point.y, point.interval, color=FINETUNED, marker="s", alpha=0.8)
        axes.margins(x=0.15, y=0.08)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        whose = "the GPU" if any(result.job.get("peak_device_bytes") for result in results) else "the process"
        axes.set(xlabel=f"peak memory of {whose}, MiB", ylabel=f"{_metric(results)}, 95% interval")
        labelled = f"the best {_LABELLED} labelled with" if len(points) > _LABELLED else "labels:"
        names = ", ".join(map(last_part, keys)) or "none"
        axes.set_title(f"{_title(results)}; {labelled} {names}", loc="left")
        place_labels(figure, axes, points[:_LABELLED])


def _metric(results: Sequence[Result]) -> str:
    return metric_label(results[0].job["metric"])


def _title(results: Sequence[Result]) -> str:
    return f"{results[0].run.metrics['evaluation']['name']}: {len(results)} job{'s' * (len(results) > 1)}"
