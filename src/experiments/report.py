"""Reports: of one run, and one table over all finished runs.

python -m experiments.report [DIR ...] [--out DIR]      by default over outputs/ and multirun/
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from experiments import figures
from experiments.errors import ConfigError
from experiments.figures import metric_label, short_count
from experiments.runs import PRIMARY_METRIC, Run, dimensions, duration_s, load_finished, load_run, retention, run_dirs

_BYTES = {"float32": 4.0, "int8": 1.0, "binary": 1 / 8}  # of one dimension
_PARTS = {2: "half", 4: "a quarter of", 8: "an eighth of", 16: "a sixteenth of"}


def write_run_report(run_dir: Path) -> str:
    """Write `report.md` and `figures/*.png` of an evaluated run, finished or about to be.

    Returns:
        The text of report.md.

    Raises:
        ConfigError: If the directory holds no run.json or metrics.json.
    """
    run = load_run(run_dir)
    figures.matryoshka_curve(run.metrics, run_dir / "figures" / "matryoshka.png")
    drawn = {"matryoshka.png": "Quality against the number of dimensions"}
    if history := (run.metrics.get("training") or {}).get("history"):
        figures.training_curve(history, run_dir / "figures" / "training.png")
        drawn["training.png"] = "Training loss and evaluation by step"
    section = _best(run.metrics)
    metric = _primary(run.metrics)
    parts = [
        f"# {run.record['name']}",
        f"**{headline(run.metrics)}**",
        retention_sentence(section, metric),
        _selected(run.metrics),
        _markdown(*_dimension_table(run.metrics)),
        *(f"![{caption}](figures/{name})" for name, caption in drawn.items()),
        "## Precision",
        f"{metric_label(metric)} and bytes of one embedding.",
        _markdown(*_precision_table(section, metric)),
        *_attributes(run.metrics),
        f"## All metrics at {dimensions(section)[0]} dimensions",
        _markdown(*_metrics_table(run.metrics)),
        "## What ran",
        _markdown(["", ""], _facts(run)),
        "## Commands",
        "```bash\n" + "\n".join(_commands(run)) + "\n```",
    ]
    text = "\n\n".join(part for part in parts if part) + "\n"
    (run_dir / "report.md").write_text(text, encoding="utf-8")
    return text


def headline(metrics: dict[str, Any]) -> str:
    """Return the result in a line: metric before and after, interval, and on what it was measured."""
    metric, evaluation = _primary(metrics), metrics["evaluation"]
    after = _score(_best(metrics), metric, interval=True)
    before = f"{_score(metrics['base'], metric)} → " if metrics.get("final") and metrics.get("base") else ""
    return f"{metric_label(metric)} {before}{after} on {evaluation['name']}: {_counts(evaluation)}"


def retention_sentence(section: dict[str, Any], metric: str = PRIMARY_METRIC) -> str:
    """Return a sentence such as "48 of 96 dimensions keep 98.9% at half the bytes"; empty with one dimension."""
    full, *smaller = dimensions(section)
    if not smaller:
        return ""
    dim = min(smaller, key=lambda each: abs(each - full / 2))
    size = (
        f"{_PARTS[full // dim]} the bytes"
        if full % dim == 0 and full // dim in _PARTS
        else f"{dim / full:.0%} of the bytes"
    )
    return f"{dim} of {full} dimensions keep {_percent(retention(section, metric)[dim])} at {size}."


def summary_table(metrics: dict[str, Any]) -> str:
    """Return the table that a run prints at its end, aligned for a terminal: a row per dimension."""
    headers, rows = _dimension_table(metrics)
    return _aligned(headers[:-1], [row[:-1] for row in rows])


def _primary(metrics: dict[str, Any]) -> str:
    return metrics.get("primary_metric", PRIMARY_METRIC)


def _best(metrics: dict[str, Any]) -> dict[str, Any]:
    return metrics.get("final") or metrics["base"]


def _sections(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: metrics[key] for key, name in (("base", "base"), ("final", "finetuned")) if metrics.get(key)}


def _counts(evaluation: dict[str, Any]) -> str:
    return f"{evaluation['num_queries']:,} queries, {evaluation['num_documents']:,} documents"


def _score(section: dict[str, Any] | None, metric: str, dim: int | None = None, *, interval: bool = False) -> str:
    """Return a rounded metric at a dimension (by default the full one), a dash where there is none."""
    values = section.get(str(dim or dimensions(section)[0]), {}) if section else {}
    if values.get(metric) is None:
        return "–"
    bounds = values.get(f"{metric}_ci95") if interval else None
    return f"{values[metric]:.3f}" + (f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else "")


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{share:.1%}"


def _dimension_table(metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    metric, section = _primary(metrics), _best(metrics)
    kept = retention(section, metric)
    sections = _sections(metrics)
    headers = ["dimensions", *(f"{name} [95% interval]" for name in sections), "% of full", "bytes"]
    return headers, [
        [
            str(dim),
            *(_score(values, metric, dim, interval=True) for values in sections.values()),
            _percent(kept[dim]),
            f"{4 * dim:,}",
        ]
        for dim in dimensions(section)
    ]


def _precision_table(section: dict[str, Any], metric: str) -> tuple[list[str], list[list[str]]]:
    dims = dimensions(section)
    names = [name for name in _BYTES if name == "float32" or isinstance(section[str(dims[0])].get(name), dict)]
    rows = []
    for dim in dims:
        row = [str(dim)]
        for name in names:
            values = section[str(dim)] if name == "float32" else section[str(dim)].get(name, {})
            row += [_score({str(dim): values}, metric), f"{math.ceil(dim * _BYTES[name]):,}"]
        rows.append(row)
    return ["dimensions", *(header for name in names for header in (name, "bytes"))], rows


def _metrics_table(metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    sections = _sections(metrics)
    full = _best(metrics)[str(dimensions(_best(metrics))[0])]
    names = [name for name, value in full.items() if isinstance(value, (int, float))]
    return ["metric", *sections], [[name, *(_score(each, name) for each in sections.values())] for name in names]


def _attributes(metrics: dict[str, Any]) -> list[str]:
    if not metrics.get("attributes"):
        return []
    intro = (
        "Share of the queries whose page ranks above the hard negative that differs from it in that attribute alone."
    )
    rows = [[name, f"{share:.1%}"] for name, share in metrics["attributes"].items()]
    return ["## Attributes", intro, _markdown(["attribute", "right page first"], rows)]


def _selected(metrics: dict[str, Any]) -> str:
    reasons = metrics.get("selected_on_this_set")
    if not reasons:
        return ""
    return f"Selected on this set: {', '.join(reasons)}. On other queries expect somewhat less."


def _facts(run: Run) -> list[list[str]]:
    """Return the rows of "What ran": model, data, hardware, versions, cost."""
    fields, metrics = run.record, run.metrics
    hardware, git = fields["hardware"], fields["git"]
    facts: dict[str, Any] = {f"model: {key.replace('_', ' ')}": value for key, value in metrics["model"].items()}
    facts["model: parameters"] = short_count(metrics["model"]["parameters"])
    facts["data fingerprint"] = fields["fingerprint"]
    facts["seed"] = fields["seed"]
    facts["CPU"] = f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB"
    facts["GPU"] = ", ".join(hardware["gpu"] or ["none"])
    facts["versions"] = ", ".join(f"{name} {version}" for name, version in fields["versions"].items() if version)
    facts["git revision"] = git and git["revision"] + (" with uncommitted changes" if git["dirty"] else "")
    facts["started"] = fields["start"]
    attempts = len(fields["attempts"])
    facts["time"] = _time(duration_s(fields)) + (f" in {attempts} attempts" if attempts > 1 else "")
    if energy := metrics.get("energy"):
        facts["energy"] = f"{energy['energy_kwh']:.3g} kWh ({energy['method']})"
        facts["CO2"] = f"{1000 * energy['emissions_kg']:.3g} g with the electricity of {energy['country']}"
    return [[name, _text(value)] for name, value in facts.items() if value is not None]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)


def _time(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def _commands(run: Run) -> list[str]:
    """Return the shell lines that repeat, take up, load and evaluate the run, each under a comment."""
    place = shlex.quote(_shown(run.path))
    lines = ["# The same again", run.record["command"]]
    overrides = [each for each in _hydra(run.path, "overrides.yaml") or [] if not each.startswith("trainer.resume")]
    if run.record["job"] == "train":
        resume = shlex.join(["python", "-m", "experiments.train", *overrides])
        lines += ["# Go on with this run, should it have been killed", f"{resume} trainer.resume={place}"]
    if (final := run.path / "final").is_dir():
        code = f"from sentence_transformers import SentenceTransformer; model = SentenceTransformer({_shown(final)!r})"
        lines += ["# Load the model", f"python -i -c {shlex.quote(code)}"]
        choices = (_hydra(run.path, "hydra.yaml") or {}).get("hydra", {}).get("runtime", {}).get("choices", {})
        data = [f"data={choices['data']}"] if choices.get("data") else []
        data += [each for each in overrides if each.lstrip("+~").startswith("data.")]
        again = ["python", "-m", "experiments.evaluate", "model=saved", f"model.name={_shown(final)}", *data]
        lines += ["# Evaluate the saved model again", shlex.join(again)]
    if dashboard := run.record.get("dashboard"):
        lines += ["# The dashboard", dashboard]
    return lines


def _hydra(run_dir: Path, name: str) -> Any:
    file = run_dir / ".hydra" / name
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else None


def _shown(path: Path) -> str:
    """Return a path as one would type it here: relative if it is below the working directory."""
    absolute, here = path.resolve(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)


def _markdown(headers: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table, padded so that it reads as plain text too; numbers to the right."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in [headers, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * max(3, width) for width in widths]
    rule = [mark[:-1] + ":" if index else mark for index, mark in enumerate(rule)] if len(headers) > 2 else rule
    padded = [_pad(row, [max(3, width) for width in widths]) for row in cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in [padded[0], rule, *padded[1:]])


def _aligned(headers: list[str], rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    return "\n".join(
        "  ".join(_pad(row, widths)).rstrip() for row in [headers, ["-" * width for width in widths], *rows]
    )


def _pad(row: list[str], widths: list[int]) -> list[str]:
    """Pad the first column to the right and, in tables of more than two, the others to the left."""
    return [
        cell.rjust(width) if index and len(row) > 2 else cell.ljust(width)
        for index, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


def leaderboards(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Group runs by what they were evaluated on, each group best first: other queries can't be ranked together."""
    groups: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: -_value(run)):
        evaluation = run.metrics["evaluation"]
        groups.setdefault(f"{evaluation['fingerprint']} {_primary(run.metrics)}", []).append(run)
    return groups


def _value(run: Run) -> float:
    section = _best(run.metrics)
    return section[str(dimensions(section)[0])][_primary(run.metrics)]


def _leaderboard(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    headers = [
        "run",
        "model",
        "data",
        "parameters",
        "base",
        "finetuned [95% interval]",
        "dimensions",
        "time",
        "energy",
    ]
    rows = []
    for run in runs:
        metrics, metric = run.metrics, _primary(run.metrics)
        model, full = metrics["model"], dimensions(_best(metrics))[0]
        saved = model.get("truncate_dim") or full
        row = [run.record["name"], model["name"], metrics["evaluation"]["name"], short_count(model["parameters"])]
        row.append(_score(metrics.get("base"), metric, interval=not metrics.get("final")))
        row.append(_score(metrics.get("final"), metric, interval=True))
        row += [str(full) if saved == full else f"{full}, saved {saved}", _time(duration_s(run.record))]
        energy = metrics.get("energy")
        rows.append([*row, f"{energy['energy_kwh']:.3g} kWh" if energy else "–", _shown(run.path)])
    return [*headers, "path"], rows


def write_report(dirs: Sequence[Path], out: Path) -> tuple[str, list[Path]]:
    """Write `report.md` and the figure of size against quality over the finished runs below some directories.

    Returns:
        The tables as text, and the files written.

    Raises:
        ConfigError: If a directory is missing or holds no finished run.
    """
    for folder in dirs:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is no directory; name one that holds runs, such as outputs or multirun")
    runs = load_finished(dirs)
    if not runs:
        others = sum(1 for _ in run_dirs(dirs))
        where = " and ".join(map(str, dirs))
        raise ConfigError(f"no finished run in {where} ({others} unfinished); try python -m experiments.train")
    printed, page, written = [], ["# Finished runs"], [out / "report.md"]
    for index, group in enumerate(leaderboards(runs).values(), start=1):
        evaluation, metric = group[0].metrics["evaluation"], _primary(group[0].metrics)
        title = f"## {metric_label(metric)} on {evaluation['name']}: {_counts(evaluation)}"
        figure = out / "figures" / ("size_against_ndcg.png" if index == 1 else f"size_against_ndcg-{index}.png")
        figures.size_against_quality(group, figure)
        written.append(figure)
        printed += [title, _markdown(*_leaderboard(group))]
        page += [*printed[-2:], f"![Size against quality](figures/{figure.name})"]
    written[0].write_text("\n\n".join(page) + "\n", encoding="utf-8")
    return "\n\n".join(printed), written


def main(arguments: Sequence[str] | None = None) -> int:
    """Print and write the table over all finished runs; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.report", description="One table over all finished runs."
    )
    parser.add_argument("dirs", nargs="*", type=Path, metavar="DIR", help="where runs are (default: outputs multirun)")
    parser.add_argument("--out", type=Path, help="where report.md and figures/ go (default: the first DIR)")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    dirs = options.dirs or [Path("outputs"), Path("multirun")]
    try:
        text, written = write_report(dirs, options.out or dirs[0])
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(text + "\n\n" + "\n".join(f"written: {os.fspath(path)}" for path in written) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
