"""The leaderboard over all finished runs: models by size and by dimension, in tables and figures.

python -m experiments.report [DIR ...] [--out DIR] [--published]      by default over outputs/ and multirun/
python -m experiments.report multirun/DAY/TIME                        a sweep: what each key does, too
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.config.errors import ConfigError
from experiments.reports import figures, leaderboard, leaderboard_figures, sweep_figures
from experiments.runs.metrics_file import best_measured, dimensions, metric_label, primary_metric
from experiments.runs.run import Run, load_finished, run_dirs
from experiments.runs.sweeps import read_sweep


def write_report(dirs: Sequence[Path], out: Path, published: bool = False) -> tuple[str, list[Path]]:
    """Write `report.md` and its figures over the finished runs below some directories.

    Runs on other queries, or by another metric, have a section of their own.

    Args:
        dirs: Where runs are.
        out: Where `report.md` and `figures/` go.
        published: Show the article's values beside those of runs on the same data, marked as published.

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
    written, page = [out / "report.md"], ["# Finished runs"]
    boards = leaderboard.groups(runs)
    for index, (board, title) in enumerate(zip(boards, leaderboard.titles(boards), strict=True), start=1):
        suffix = "" if index == 1 else f"-{index}"
        parts, drawn = _section(board, title, out / "figures", suffix, published)
        page += parts
        written += drawn
        for sweep_dir in dirs:
            of = f"-{sweep_dir.name}" * (len(dirs) > 1) + suffix
            parts, drawn = _draw_sweep(sweep_dir, board, out / "figures", of)
            page += parts
            written += drawn
    written[0].write_text("\n\n".join(page) + "\n", encoding="utf-8")
    return "\n\n".join(part for part in page[1:] if not part.startswith("![")), written


def _section(
    runs: Sequence[Run], title: str, folder: Path, suffix: str, with_published: bool
) -> tuple[list[str], list[Path]]:
    """Return the parts of the page on runs of one evaluation, and the figures written for it."""
    metric, parts, values = primary_metric(runs[0].metrics), [f"## {title}"], None
    found, names = leaderboard.entries(runs), leaderboard.labels(runs)
    if with_published:
        values = leaderboard.load_published()
        if reason := leaderboard.why_not_published(runs[0], values):
            parts.append(reason[:1].upper() + reason[1:] + ".")
            values = None
        else:
            parts.append(leaderboard.published_note(runs[0], values))
            found = sorted([*found, *leaderboard.published_entries(values)], key=lambda entry: -entry.value)
    size = folder / f"size_against_ndcg{suffix}.png"
    leaderboard_figures.size_against_quality(found, metric, f"{title}, 95% intervals", size)
    parts += [leaderboard.models_table(found, metric), f"![Size against quality](figures/{size.name})"]
    by_dimension = [run for run in runs if dimensions(best_measured(run.metrics))]
    if not by_dimension:
        return parts, [size]
    run = next((run for run in by_dimension if run.metrics.get("final")), by_dimension[0])  # the best trained one
    name, curve = names[runs.index(run)], folder / f"dimensions_against_ndcg{suffix}.png"
    rows = values["dimensions"] if values else None
    title = f"{name} on {title.partition(' on ')[2]}"
    figures.dimensions_against_quality(run.metrics, title, curve, rows)
    parts += [f"### Dimensions of {name}", leaderboard.dimensions_table(run, values)]
    parts.append(f"![Dimensions against quality](figures/{curve.name})")
    if len(by_dimension) > 1:
        every = leaderboard.every_run_table(by_dimension, [names[runs.index(each)] for each in by_dimension])
        parts += [f"### {metric_label(metric)} of every run by dimension", every]
    return parts, [size, curve]


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
    """Print and write the leaderboard over all finished runs; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.report", description="The leaderboard over all finished runs."
    )
    parser.add_argument("dirs", nargs="*", type=Path, metavar="DIR", help="where runs are (default: outputs multirun)")
    parser.add_argument("--out", type=Path, help="where report.md and figures/ go (default: the first DIR)")
    parser.add_argument(
        "--published", action="store_true", help="show the article's values beside runs on the same data"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    dirs = options.dirs or [Path("outputs"), Path("multirun")]
    try:
        text, written = write_report(dirs, options.out or dirs[0], options.published)
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(text + "\n\n" + "\n".join(f"written: {os.fspath(path)}" for path in written) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
