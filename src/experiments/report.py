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
from experiments.config.hints import parse_flags
from experiments.reports import figures, leaderboard, leaderboard_figures, sweep_figures
from experiments.reports.page import Page
from experiments.runs.metrics_file import best_measured, dimensions, metric_label, primary_metric
from experiments.runs.names import run_names
from experiments.runs.run import Run, load_finished, run_dirs
from experiments.runs.sweeps import read_sweep


def write_report(dirs: Sequence[Path], out: Path, published: bool = False) -> tuple[str, list[Path]]:
    """Write `report.md` and its figures over the finished runs below some directories.

    Runs on other queries, or by another metric, have a section of their own. Beside runs on the article's data its
    values stand, marked as published, if they are asked for.

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
    page = Page(out)
    for index, (title, board) in enumerate(leaderboard.boards(runs), start=1):
        suffix = "" if index == 1 else f"-{index}"
        _add_board(page, board, title, suffix, published)
        for sweep_dir in dirs:
            _add_sweep(page, sweep_dir, board, f"-{sweep_dir.name}" * (len(dirs) > 1) + suffix)
    (out / "report.md").write_text("\n\n".join(["# Finished runs", *page.parts]) + "\n", encoding="utf-8")
    text = "\n\n".join(part for part in page.parts if not part.startswith("!["))
    return text, [out / "report.md", *page.figures]


def _add_board(page: Page, runs: Sequence[Run], title: str, suffix: str, with_published: bool) -> None:
    """Put the tables and figures of runs of one evaluation on the page."""
    metric, values = primary_metric(runs[0].metrics), leaderboard.load_published() if with_published else None
    found, names = leaderboard.entries(runs), run_names(runs)
    page.parts.append(f"## {title}")
    if values and (reason := leaderboard.why_not_published(runs[0], values)):
        page.parts.append(reason)
        values = None
    elif values:
        page.parts.append(leaderboard.published_note(runs[0], values))
        found = sorted([*found, *leaderboard.published_entries(values)], key=lambda entry: -entry.value)
    page.parts.append(leaderboard.models_table(found, metric))
    file = page.figure(f"size_against_ndcg{suffix}.png", "Size against quality")
    leaderboard_figures.size_against_quality(found, metric, f"{title}, 95% intervals", file)
    by_dimension = [pair for pair in zip(names, runs, strict=True) if dimensions(best_measured(pair[1].metrics))]
    if not by_dimension:
        return
    trained = [(name, run) for name, run in by_dimension if run.metrics.get("final")]
    name, run = (trained or by_dimension)[0]  # the best trained one
    page.parts += [f"### Dimensions of {name}", leaderboard.dimensions_table(run, values)]
    file = page.figure(f"dimensions_against_ndcg{suffix}.png", "Dimensions against quality")
    of = title.partition(" on ")[2]
    figures.dimensions_against_quality(run.metrics, f"{name} on {of}", file, (values or {}).get("dimensions"))
    if len(by_dimension) > 1:
        every = leaderboard.every_run_table(by_dimension)
        page.parts += [f"### {metric_label(metric)} of every run by dimension", every]


def _add_sweep(page: Page, sweep_dir: Path, runs: Sequence[Run], suffix: str) -> None:
    """Put the figures of a directory that is a sweep's on the page, with those of its jobs that are among the runs."""
    by_path = {run.path.resolve(): run for run in runs}
    sweep = read_sweep(sweep_dir) or {"jobs": [], "keys": []}
    found = [(job, by_path.get((sweep_dir / job["dir"]).resolve())) for job in sweep["jobs"]]
    results = [sweep_figures.Result(job, run) for job, run in found if run and job.get("value") is not None]
    if not results:
        return
    others = [f"job {job['number']} {job['status']}" for job, _ in found if job.get("value") is None]
    if others:
        counted = f"{len(found) - len(others)} of the sweep's {len(found)} jobs have a result"
        page.parts.append(f"{counted}; the others: {', '.join(others)}.")
    sweep_figures.draw(page, results, sweep["keys"], suffix)


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
    logging.basicConfig(format="%(message)s")
    try:
        options = parse_flags(parser, arguments)
        dirs = options.dirs or [Path("outputs"), Path("multirun")]
        text, written = write_report(dirs, options.out or dirs[0], options.published)
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(text + "\n\n" + "\n".join(f"written: {os.fspath(path)}" for path in written) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
