"""The leaderboard over all finished runs: which is better than the reference, in one table; and figures.

python -m experiments.report [DIR ...] [--reference RUN] [--all] [--out DIR] [--published]
                                          by default over outputs/ and multirun/, against the best
python -m experiments.report multirun/DAY/TIME      a sweep, in its order: what each key does, too
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.config.errors import ConfigError
from experiments.config.hints import parse_flags
from experiments.reports import answer, figures, leaderboard, leaderboard_figures, run_answer, sweep_figures
from experiments.reports.answer import Contender
from experiments.reports.leaderboard import Entry
from experiments.reports.page import Page
from experiments.reports.tables import shown
from experiments.runs.metrics_file import (
    EVALUATE_AGAIN,
    answered_by,
    best_measured,
    dimensions,
    metric_label,
    primary_metric,
    shared_chance,
)
from experiments.runs.names import one_sweep, run_names
from experiments.runs.run import Run, load_finished, named_dirs, read_record, run_dirs
from experiments.runs.sweeps import read_sweep

DEFAULT_DIRS = (Path("outputs"), Path("multirun"))


def write_report(
    dirs: Sequence[Path],
    out: Path,
    published: bool = False,
    reference: str | None = None,
    everything: bool = False,
) -> tuple[str, list[Path]]:
    """Write `report.md` (in a run's own directory, which has one: `leaderboard.md`) and figures over finished runs.

    Runs on other queries, or by another metric, have a section of their own. The answer stands first: each run
    against the reference, which is the best one unless another is named; `everything` adds costs and dimensions.
    Beside runs on the article's data its values stand, marked as published, if they are asked for.

    Returns:
        The tables as text, and the files written.

    Raises:
        ConfigError: If a directory is missing or holds no finished run, or the reference is none of the runs.
    """
    boards = leaderboard.boards(_finished(dirs))
    page, found = Page(out), [leaderboard.entries(runs) for _, runs in boards]
    compared = [leaderboard.contenders(entries) for entries in found]
    answer.find_reference([each for board in compared for each in board], reference)  # in one of them; or refused
    if len(boards) > 1:
        page.parts.append("# Finished runs")
    for index, ((title, runs), entries, board) in enumerate(zip(boards, found, compared, strict=True), start=1):
        suffix = "" if index == 1 else f"-{index}"
        page.parts.append(f"{'##' if len(boards) > 1 else '#'} {title}")
        values = _add_answer(page, runs, board, reference, published)
        entries += leaderboard.published_entries(values) if values else []
        for sweep_dir in dirs:
            _add_sweep(page, sweep_dir, runs, f"-{sweep_dir.name}" * (len(dirs) > 1) + suffix)
        _add_figures(page, runs, entries, title, suffix, values)
        if everything:
            _add_tables(page, runs, entries, values)
    if not everything:
        command = _command(dirs, out, published, reference)
        page.parts.append(f"--all adds what each run cost, and every dimension: `{command} --all`")
    file = out / ("leaderboard.md" if read_record(out) else "report.md")
    file.write_text("\n\n".join(page.parts) + "\n", encoding="utf-8")
    text = "\n\n".join(part for part in page.parts if not part.startswith("!["))
    return text, [file, *page.figures]


def _command(dirs: Sequence[Path], out: Path, published: bool, reference: str | None) -> str:
    """Return the line that writes this report again."""
    options = ["--reference", reference] if reference else []
    options += ["--out", shown(out)] if out != dirs[0] else []
    options += ["--published"] * published
    return shlex.join(["python", "-m", "experiments.report", *map(shown, dirs), *options])


def _finished(dirs: Sequence[Path]) -> list[Run]:
    """Return the finished runs below some directories, of which there must be one."""
    for folder in dirs:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is no directory; name one that holds runs, such as outputs or multirun")
    runs = load_finished(dirs)
    if not runs:
        others = sum(1 for _ in run_dirs(dirs))
        where = " and ".join(map(str, dirs))
        raise ConfigError(f"no finished run in {where} ({others} unfinished); try python -m experiments.train")
    return runs


def _add_answer(
    page: Page, runs: Sequence[Run], compared: list[Contender], reference: str | None, with_published: bool
) -> dict[str, Any] | None:
    """Put the sentence and the table on the page that answer which run is better; return the published values."""
    metrics, values, notes = runs[0].metrics, None, []
    metric, label = answered_by(metrics), run_answer.label(metrics)
    by_chance = shared_chance((run.metrics for run in runs), metric)
    try:
        place, is_chosen = answer.find_reference(compared, reference), reference is None
    except ConfigError:  # it is in another section
        place, is_chosen = answer.find_reference(compared), True
    found = answer.differences(compared, place, metric, is_chosen=is_chosen)
    if is_chosen and (note := answer.chosen_note(compared, found)):
        notes.append(note)
    if not all(each.parts for each in compared):
        notes.append(f"–: the values of its queries weren't kept; {EVALUATE_AGAIN}.")
    said = answer.sentence(compared, found, place, label)
    said += answer.not_above_chance(compared, by_chance, metrics["evaluation"]["num_queries"])
    if with_published:
        values = leaderboard.load_published()
        if reason := leaderboard.why_not_published(runs[0], values):
            notes.append(reason)
            values = None
        else:
            notes.append(leaderboard.published_note(runs[0], values))
            compared = [*compared, *leaderboard.contenders(leaderboard.published_entries(values))]
            found += [None] * (len(compared) - len(found))
    told = [{each.cells[column] for each in compared} - {"–"} for column in (0, 1)]
    kept = [column for column in (0, 1) if len(told[column]) > 1]
    compared = [each._replace(cells=[each.cells[column] for column in kept]) for each in compared]
    headers = ["run", *(("what", "parameters")[each] for each in kept), f"{label} [95% interval]"]
    table = answer.table(headers, compared, found, place, by_chance)
    page.parts += [f"**{said}**", table, *notes]
    return values


def _add_figures(
    page: Page, runs: Sequence[Run], entries: Sequence[Entry], title: str, suffix: str, values: dict[str, Any] | None
) -> None:
    """Put the figures of runs of one evaluation on the page: all of them, and the dimensions of the best trained."""
    metric = answered_by(runs[0].metrics)
    by_chance = shared_chance((run.metrics for run in runs), metric)
    sizes = [entry.parameters for entry in entries]
    if max(sizes) > 1.5 * min(sizes):
        file = page.figure(f"size_against_ndcg{suffix}.png", "Size against quality")
        leaderboard_figures.size_against_quality(entries, metric, f"{title}, 95% intervals", file, by_chance)
    elif len(entries) > 1 and not one_sweep(runs):  # whose figure of its keys shows the same
        file = page.figure(f"quality{suffix}.png", "Quality of each run")
        leaderboard_figures.quality_of_each(entries, metric, f"{title}, 95% intervals", file, by_chance)
    if of_best := _best_with_dimensions(runs):
        name, run = of_best
        file = page.figure(f"dimensions_against_ndcg{suffix}.png", f"Dimensions of {name} against quality")
        of = title.partition(" on ")[2]
        figures.dimensions_against_quality(
            run.metrics, f"{name} on {of}, 95% intervals", file, (values or {}).get("dimensions")
        )


def _best_with_dimensions(runs: Sequence[Run]) -> tuple[str, Run] | None:
    """Return name and run of the best trained one, or else of the best, among those with dimensions."""
    found = [pair for pair in zip(run_names(runs), runs, strict=True) if dimensions(best_measured(pair[1].metrics))]
    trained = [pair for pair in found if pair[1].metrics.get("final")]
    return next(iter(trained or found), None)


def _add_tables(page: Page, runs: Sequence[Run], entries: Sequence[Entry], values: dict[str, Any] | None) -> None:
    """Put what each run cost, and its dimensions, on the page."""
    page.parts += ["### What each run cost", leaderboard.costs_table(entries)]
    if of_best := _best_with_dimensions(runs):
        name, run = of_best
        page.parts += [f"### Dimensions of {name}", leaderboard.dimensions_table(run, values)]
    by_dimension = [
        pair for pair in zip(run_names(runs), runs, strict=True) if dimensions(best_measured(pair[1].metrics))
    ]
    if len(by_dimension) > 1:
        heading = f"### {metric_label(primary_metric(runs[0].metrics))} of every run by dimension"
        page.parts += [heading, leaderboard.every_run_table(by_dimension)]


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
    parser.add_argument("--reference", metavar="RUN", help="what the others are held against (default: the best)")
    parser.add_argument("--all", action="store_true", help="what each run cost, and every dimension, too")
    logging.basicConfig(format="%(message)s")
    try:
        options = parse_flags(parser, arguments)
        dirs = named_dirs(options.dirs) or [each for each in DEFAULT_DIRS if each.is_dir()]
        if not dirs:
            raise ConfigError("neither outputs nor multirun is here; name directories that hold runs")
        text, written = write_report(dirs, options.out or dirs[0], options.published, options.reference, options.all)
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(text + "\n\n" + "\n".join(f"written: {os.fspath(path)}" for path in written) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
