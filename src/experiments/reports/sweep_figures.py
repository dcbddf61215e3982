"""Figures of a sweep: quality against each swept key, bytes of an embedding and peak memory."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from experiments.reports.figures import BASE, FINETUNED, draw_chance, draw_point, drawn, scale_by_powers_of_two
from experiments.reports.labels import Label, place_labels
from experiments.reports.page import Page
from experiments.reports.run_report import BYTES, precisions
from experiments.reports.sweep_summary import peak_bytes
from experiments.runs.metrics_file import best_measured, metric_label, shared_chance
from experiments.runs.names import last_part, point_names, short_value
from experiments.runs.run import Run

_MARKS: dict[str, Any] = {
    "float32": {"color": FINETUNED, "marker": "s"},
    "int8": {"color": BASE, "marker": "o"},
    "binary": {"color": "#009E73", "marker": "^"},
}
_IN_A_ROW = 3
_LABELLED = 40  # more labels than that nobody reads


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
    if any(best_measured(result.run.metrics).get("dimensions") for result in results):
        _against_bytes(results, page.figure(f"sweep_bytes{suffix}.png", "Quality against bytes of an embedding"))
    if len(results) > 1 and any(peak_bytes(result.job) for result in results):
        _against_memory(results, page.figure(f"sweep_memory{suffix}.png", "Quality against peak memory"))


def _against_keys(results: Sequence[Result], keys: Sequence[str], path: Path) -> None:
    """Draw a panel for each key: every job with its interval, joined where all other keys are the same."""
    columns = min(len(keys), _IN_A_ROW)
    rows = -(-len(keys) // columns)
    size = (max(5.5, 3.6 * columns), 3.6 * rows)
    with drawn(path, size, nrows=rows, ncols=columns, sharey=True, squeeze=False) as (figure, panels):
        for axes in panels.flat[len(keys) :]:
            axes.remove()
        for axes, key in zip(panels.flat, keys, strict=False):
            _panel(axes, results, key)
        for number, axes in enumerate(panels.flat[: len(keys)], start=1):
            draw_chance(axes, _chance(results), said=number % columns == 0 or number == len(keys))
        for axes in panels[:, 0]:
            axes.set_ylabel(_metric(results))
        title = f"{_title(results)}, 95% intervals"
        if len(keys) > 1:
            title += "; lines join those that differ in the key alone"
        figure.suptitle(textwrap.fill(title, int(13 * size[0])), fontsize=11, x=0.01, ha="left")


def _panel(axes: Axes, results: Sequence[Result], key: str) -> None:
    values = sorted({result.at(key) for result in results}, key=order)
    line = "-" if all(order(value)[0] == 0 for value in values) else "none"  # names have no order to follow
    lines: dict[tuple[tuple[str, str], ...], list[Result]] = {}
    for result in results:
        others = tuple((name, value) for name, value in result.job["point"].items() if name != key)
        lines.setdefault(others, []).append(result)
    step = min(0.12, 0.5 / len(lines))  # side by side, or their intervals would cover each other
    for number, joined in enumerate(lines.values()):
        shift = step * (number - (len(lines) - 1) / 2)
        joined.sort(key=lambda result: values.index(result.at(key)))
        style: Any = {"linewidth": 0.9, "marker": "s", "linestyle": line, "alpha": 0.8, "color": FINETUNED}
        places = [values.index(result.at(key)) + shift for result in joined]
        axes.plot(places, [result.value for result in joined], markersize=4, **style)
        for place, result in zip(places, joined, strict=True):
            low, high = result.job.get("interval") or (result.value, result.value)
            axes.vlines(place, low, high, color=FINETUNED, linewidth=1, alpha=0.45)
    rotated: Any = {"rotation": 25, "ha": "right"} if sum(map(len, values)) > 30 else {}
    axes.set_xticks(range(len(values)), [short_value(value, 18) for value in values], **rotated)
    axes.set_xlim(-0.5, len(values) - 0.5)
    axes.grid(axis="x", visible=False)
    axes.set_xlabel(key)


def order(value: str) -> tuple[int, float, str]:
    """Return what swept values are sorted by: numbers by size, then text."""
    try:
        return 0, float(value), ""
    except ValueError:
        return 1, 0.0, value


def _against_bytes(results: Sequence[Result], path: Path) -> None:
    """Draw every dimension and precision of every job, those of the best joined; where it is known with its interval.

    Which of two sizes is enough is no question for a figure of single values: the report of the run compares them.
    """
    best = max(results, key=lambda result: result.value)
    with drawn(path, (8.5, 5.2)) as (_, axes):
        sizes = set()
        for result in results:
            for name, points in _by_precision(result).items():
                sizes |= {size for size, *_ in points}
                x, y = [size for size, *_ in points], [value for _, value, _ in points]
                if result is not best:
                    axes.plot(x, y, linestyle="none", markersize=5, alpha=0.25, zorder=1, **_MARKS[name])
                    continue
                axes.plot(x, y, linewidth=1, label=name, **_MARKS[name])
                for size, value, interval in points:
                    draw_point(axes, size, value, interval, **_MARKS[name])
        scale_by_powers_of_two(axes, {size: f"{size:,.4g}" for size in sorted(sizes)})
        axes.margins(x=0.08, y=0.1)
        axes.set(xlabel="bytes of an embedding", ylabel=f"{_metric(results)}, 95% interval where it is known")
        joined = f"; lines: the highest, {_names(results)[results.index(best)]}" if len(results) > 1 else ""
        axes.set_title(textwrap.fill(f"{_title(results)}{joined}", 100), loc="left")
        draw_chance(axes, _chance(results))
        axes.legend(loc="best")


def _by_precision(result: Result) -> dict[str, list[tuple[float, float, list[float] | None]]]:
    """Return bytes, metric and its interval at each dimension that was evaluated, by precision."""
    found: dict[str, list[tuple[float, float, list[float] | None]]] = {}
    metric = result.job["metric"]
    for dim, values in best_measured(result.run.metrics).get("dimensions", {}).items():
        for name, each in precisions(values).items():
            if (value := each.get(metric)) is not None:
                found.setdefault(name, []).append((BYTES[name] * int(dim), value, each.get(f"{metric}_ci95")))
    return found


def _against_memory(results: Sequence[Result], path: Path) -> None:
    shown = [result for result in results if peak_bytes(result.job)]
    points = [
        Label(name, (peak_bytes(result.job) or 0) / 2**20, result.value, result.job.get("interval"))
        for name, result in zip(_names(shown), shown, strict=True)
    ]
    points.sort(key=lambda point: -point.y)
    with drawn(path, (8.5, 5.2), tight=True) as (figure, axes):
        for point in points:
            draw_point(axes, point.x, point.y, point.interval, color=FINETUNED, marker="s", alpha=0.8)
        axes.margins(x=0.15, y=0.08)
        low, high = axes.get_xlim()
        room = max(0.0, 0.1 * high - (high - low)) / 2  # a few MiB more or less are noise
        axes.set_xlim(low - room, high + room)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        whose = "the GPU" if any(result.job.get("peak_device_bytes") for result in results) else "the process"
        axes.set(xlabel=f"peak memory of {whose}, MiB", ylabel=f"{_metric(results)}, 95% interval")
        labelled = f"; the best {_LABELLED} have labels" if len(points) > _LABELLED else ""
        axes.set_title(f"{_title(shown)}{labelled}", loc="left")
        draw_chance(axes, _chance(results))
        place_labels(figure, axes, points[:_LABELLED])


def _names(results: Sequence[Result]) -> list[str]:
    return point_names([result.job["point"] for result in results])


def _chance(results: Sequence[Result]) -> float | None:
    return shared_chance((result.run.metrics for result in results), results[0].job["metric"])


def _metric(results: Sequence[Result]) -> str:
    return metric_label(results[0].job["metric"])


def _title(results: Sequence[Result]) -> str:
    return f"{results[0].run.metrics['evaluation']['name']}: {len(results)} job{'s' * (len(results) > 1)}"
