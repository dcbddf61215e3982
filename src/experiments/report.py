"""One table over all finished runs, and figures: size against quality, and for a sweep what each key does.

python -m experiments.report [DIR ...] [--out DIR]      by default over outputs/ and multirun/
python -m experiments.report multirun/DAY/TIME          a sweep
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import figures, sweep_figures
from experiments.errors import ConfigError
from experiments.run_report import best_section, counts, primary_metric, score
from experiments.runs import Run, dimensions, duration_s, load_finished, main_values, run_dirs
from experiments.sweeps import read_sweep
from experiments.tables import markdown_table, metric_label, short_count, shown, time_text


def leaderboards(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Group runs by what they were evaluated on, each group best first: other queries can't be ranked together."""
    groups: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: -_value(run)):
        evaluation = run.metrics["evaluation"]
        groups.setdefault(f"{evaluation['fingerprint']} {primary_metric(run.metrics)}", []).append(run)
    return groups


def _value(run: Run) -> float:
    return main_values(best_section(run.metrics))[primary_metric(run.metrics)]


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
        metrics, metric = run.metrics, primary_metric(run.metrics)
        model, full = metrics["model"], max(dimensions(best_section(metrics)), default="–")
        saved = model.get("truncate_dim") or full
        row = [run.record["name"], model["name"], metrics["evaluation"]["name"], short_count(model["parameters"])]
        row.append(score(metrics.get("base"), metric, interval=not metrics.get("final")))
        row.append(score(metrics.get("final"), metric, interval=True))
        row += [str(full) if saved == full else f"{full}, saved {saved}", time_text(duration_s(run.record))]
        energy = metrics.get("energy")
        rows.append([*row, f"{energy['energy_kwh']:.3g} kWh" if energy else "–", shown(run.path)])
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
        evaluation, metric = group[0].metrics["evaluation"], primary_metric(group[0].metrics)
        title = f"## {metric_label(metric)} on {evaluation['name']}: {counts(evaluation)}"
        figure = out / "figures" / ("size_against_ndcg.png" if index == 1 else f"size_against_ndcg-{index}.png")
        figures.size_against_quality(group, figure)
        written.append(figure)
        printed += [title, markdown_table(*_leaderboard(group))]
        page += [*printed[-2:], f"![Size against quality](figures/{figure.name})"]
        for sweep_dir in dirs:
            of = f"-{sweep_dir.name}" * (len(dirs) > 1) + f"-{index}" * (index > 1)
            said, drawn = _draw_sweep(sweep_dir, group, figure.parent, of)
            page += said
            written += drawn
    written[0].write_text("\n\n".join(page) + "\n", encoding="utf-8")
    return "\n\n".join(printed), written


def _draw_sweep(sweep_dir: Path, runs: Sequence[Run], folder: Path, suffix: str) -> tuple[list[str], list[Path]]:
    """Draw the figures of a directory that is a sweep's, with those of its jobs that are among the runs.

    Returns:
        What the page says about it, and the files written; both empty where it is no sweep's.
    """
    by_path = {run.path.resolve(): run for run in runs}
    sweep = read_sweep(sweep_dir) or {"jobs": [], "keys": []}
    found = [(job, by_path.get((sweep_dir / job["dir"]).resolve())) for job in sweep["jobs"]]
    results = [sweep_figures.Result(job, run) for job, run in found if run and job.get("value") is not None]
    if not results:
        return [], []
    others = [f"job {job['number']} {job['status']}" for job in sweep["jobs"] if job.get("value") is None]
    with_value = len(sweep["jobs"]) - len(others)
    said = [f"{with_value} of the sweep's {len(sweep['jobs'])} jobs have a result; the others: {', '.join(others)}."]
    drawn = sweep_figures.draw(results, sweep["keys"], folder, suffix)
    figures_said = [f"![{caption}](figures/{name})" for name, caption in drawn.items()]
    return (said if others else []) + figures_said, [folder / name for name in drawn]


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
