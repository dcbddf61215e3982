"""Figures of a sweep: quality against each swept key, bytes of an embedding and peak memory."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from experiments.reports.figures import BASE, FINETUNED, STYLE, empty_figure, new_figure, save
from experiments.reports.labels import Label, place_labels
from experiments.reports.sweep_summary import peak_bytes
from experiments.runs.metrics_file import best_measured, metric_label
from experiments.runs.run import Run

_PRECISIONS = {  # bytes of a dimension, colour, marker
    "float32": (4.0, FINETUNED, "s"),
    "int8": (1.0, BASE, "o"),
    "binary": (1 / 8, "#009E73", "^"),
}
_IN_A_ROW = 3
_LABELLED = 16


@dataclass(frozen=True)
class Result:
    """A finished job of a sweep."""

    job: dict[str, Any]  # as in summary.json, see `sweeps.read_sweep`
    run: Run

    @property
    def value(self) -> float:
        """The primary metric at the full dimension."""
        return self.job["value"]


def draw(results: Sequence[Result], keys: Sequence[str], folder: Path, suffix: str = "") -> dict[str, str]:
    """Draw the figures of a sweep.

    Args:
        results: Its finished jobs, all of one evaluation.
        keys: The swept ones.
        folder: Where the PNGs go.
        suffix: Of their names.

    Returns:
        File name -> caption of each figure that there was something to draw for.
    """
    drawn = {}
    varied = _varied(results, keys)
    if varied:
        _against_keys(results, varied, folder / f"sweep_keys{suffix}.png")
        drawn[f"sweep_keys{suffix}.png"] = "Quality against each swept key"
    if points := _by_bytes(results):
        _against_bytes(results, points, folder / f"sweep_bytes{suffix}.png")
        drawn[f"sweep_bytes{suffix}.png"] = "Quality against bytes of an embedding"
    if any(_memory(result) for result in results):
        _against_memory(results, varied, folder / f"sweep_memory{suffix}.png")
        drawn[f"sweep_memory{suffix}.png"] = "Quality against peak memory"
    return drawn


def _varied(results: Sequence[Result], keys: Sequence[str]) -> list[str]:
    """Return the keys with several values; a seed only where nothing else was swept."""
    several = [key for key in keys if len({result.job["point"].get(key) for result in results}) > 1]
    return [key for key in several if key.rpartition(".")[2] != "seed"] or several


def _against_keys(results: Sequence[Result], keys: Sequence[str], path: Path) -> None:
    """Draw a panel for each key: every job, joined where all other keys are the same, and the mean."""
    with rc_context(STYLE):
        columns = min(len(keys), _IN_A_ROW)
        rows = -(-len(keys) // columns)
        figure = empty_figure(max(5.5, 3.4 * columns), 3.4 * rows)
        panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
        for axes in panels[len(keys) :]:
            axes.remove()
        for axes, key in zip(panels, keys, strict=False):
            _panel(axes, results, key)
        for row in range(rows):
            panels[row * columns].set_ylabel(metric_label(results[0].job["metric"]))
        alone = {len({result.job["point"].get(key, "") for result in results}) == len(results) for key in keys}
        said = {
            True: "95% intervals where a value has one job",
            False: "lines join those that differ in the key alone; squares: mean",
        }
        title = "; ".join([_title(results), *(said[each] for each in sorted(alone))])
        figure.suptitle(textwrap.fill(title, int(13 * figure.get_figwidth())), fontsize=11, x=0.01, ha="left")
        save(figure, path)


def _panel(axes: Axes, results: Sequence[Result], key: str) -> None:
    values = sorted({result.job["point"].get(key, "") for result in results}, key=order)
    place = {value: index for index, value in enumerate(values)}
    is_scale = all(order(value)[0] == 0 for value in values)
    line = "-" if is_scale else "none"  # names have no order that it could follow
    lines: dict[tuple[tuple[str, str], ...], list[tuple[int, float]]] = {}
    for result in results:
        others = tuple((name, value) for name, value in result.job["point"].items() if name != key)
        lines.setdefault(others, []).append((place[result.job["point"].get(key, "")], result.value))
    grey: Any = {"color": "#AAAAAA", "linewidth": 0.9, "marker": "o", "markersize": 4, "zorder": 2}
    for points in lines.values():
        axes.plot(*zip(*sorted(points), strict=True), **grey, linestyle=line)
    if len(values) == len(results):
        for result in results:
            low, high = result.job.get("interval") or (result.value, result.value)
            axes.vlines(place[result.job["point"].get(key, "")], low, high, color=FINETUNED, linewidth=1)
    means = [mean(result.value for result in results if result.job["point"].get(key, "") == value) for value in values]
    axes.plot(
        range(len(values)), means, color=FINETUNED, linewidth=2, linestyle=line, marker="s", markersize=7, zorder=3
    )
    rotated = sum(map(len, values)) > 30
    axes.set_xticks(
        range(len(values)),
        [_short(value) for value in values],
        rotation=25 * rotated,
        ha="right" if rotated else "center",
    )
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


def _by_bytes(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return a point for each job, dimension and precision that was evaluated."""
    points = []
    for result in results:
        metric = result.job["metric"]
        for dim, values in best_measured(result.run.metrics).get("dimensions", {}).items():
            for name, (size, _, _) in _PRECISIONS.items():
                found = values.get(metric) if name == "float32" else values.get(name, {}).get(metric)
                if found is not None:
                    label = f"job {result.job['number']}\n{dim} {name}"
                    points.append({"x": size * int(dim), "value": found, "precision": name, "label": label})
    return points


def _against_bytes(results: Sequence[Result], points: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw every job, dimension and precision, and the line of the best for their size."""
    front: list[dict[str, Any]] = []
    for point in sorted(points, key=lambda each: (each["x"], -each["value"])):
        if not front or point["value"] > front[-1]["value"]:
            front.append(point)
    with rc_context(STYLE):
        figure, axes = new_figure(8.5, 5.2)
        for name, (_, color, marker) in _PRECISIONS.items():
            mine = [(each["x"], each["value"]) for each in points if each["precision"] == name]
            if mine:
                axes.plot(
                    *zip(*mine, strict=True),
                    color=color,
                    marker=marker,
                    markersize=6,
                    alpha=0.55,
                    linestyle="none",
                    label=name,
                )
        best = [(each["x"], each["value"]) for each in front]
        axes.step(
            *zip(*best, strict=True), where="post", color="#222222", linewidth=1.2, zorder=1, label="best by bytes"
        )
        for each in front:
            place: Any = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center", "fontsize": 8}
            axes.annotate(each["label"], (each["x"], each["value"]), **place)
        axes.set_xscale("log", base=2)
        sizes = sorted({each["x"] for each in points})
        axes.set_xticks(sizes, [f"{size:,.4g}" for size in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.margins(x=0.08, y=0.13)
        axes.set(xlabel="bytes of an embedding", ylabel=metric_label(results[0].job["metric"]))
        axes.set_title(_title(results), loc="left")
        axes.legend(loc="lower right")
        save(figure, path)


def _memory(result: Result) -> float | None:
    """Return the peak in MiB."""
    peak = peak_bytes(result.job)
    return peak / 2**20 if peak else None


def _against_memory(results: Sequence[Result], keys: Sequence[str], path: Path) -> None:
    points: list[dict[str, Any]] = []
    for result in results:
        if (memory := _memory(result)) is not None:
            interval = result.job.get("interval") or (result.value, result.value)
            label = ", ".join(_short(result.job["point"].get(key, "")) for key in keys)
            points.append({"x": memory, "value": result.value, "interval": interval, "label": label})
    points.sort(key=lambda each: -each["value"])
    with rc_context(STYLE):
        figure, axes = new_figure(8.5, 5.2)
        for point in points:
            low, high = point["interval"]
            axes.errorbar(
                point["x"], point["value"], yerr=[[point["value"] - low], [high - point["value"]]],
                color=FINETUNED, marker="s", markersize=6, elinewidth=1, alpha=0.8,
            )  # fmt: skip
        device = any(result.job.get("peak_device_bytes") for result in results)
        axes.margins(x=0.15, y=0.08)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:,.0f}"))
        axes.set(xlabel=f"peak memory of {'the GPU' if device else 'the process'}, MiB")
        axes.set_ylabel(f"{metric_label(results[0].job['metric'])}, 95% interval")
        labelled = f"the best {_LABELLED} labelled with" if len(points) > _LABELLED else "labels:"
        names = ", ".join(key.rpartition(".")[2] for key in keys) or "none"
        axes.set_title(f"{_title(results)}; {labelled} {names}", loc="left")
        labels = [Label(each["label"], each["x"], each["value"], each["interval"]) for each in points[:_LABELLED]]
        place_labels(figure, axes, labels)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, bbox_inches="tight")  # grows by the labels beside the axes


def _title(results: Sequence[Result]) -> str:
    return f"{results[0].run.metrics['evaluation']['name']}: {len(results)} job{'s' * (len(results) > 1)}"
