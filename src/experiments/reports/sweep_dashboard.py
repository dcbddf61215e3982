"""A sweep in the dashboard: a table of its jobs that sorts by a click, and the addresses that show them."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

from experiments.reports import tables
from experiments.reports.sweep_summary import answer_sentence, note, peak_bytes, shown_status
from experiments.reports.tables import known
from experiments.runs import trackio_run
from experiments.runs.metrics_file import metric_label
from experiments.runs.names import short_keys
from experiments.runs.run import read_record
from experiments.runs.sweeps import read_sweep

_TEMPLATES = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True)

Cell = tuple[str, Any]  # a text, and what it is sorted by: a number or a text, None if it isn't known

logger = logging.getLogger(__name__)


def update(sweep_dir: Path, sweep: dict[str, Any]) -> Path | None:
    """Bring the table of a sweep's jobs in Trackio up to date and return its file; None where no job is tracked.

    What goes wrong is logged: the jobs are worth more than their table.
    """
    places = _places(sweep_dir, sweep)
    if not places:
        return None
    folder, project = Path([*places.values()][-1]["folder"]), [*places.values()][-1]["project"]
    places = {number: place for number, place in places.items() if place["project"] == project}
    ended = {job["number"]: job["status"] for job in sweep["jobs"] if job["status"] in ("killed", "exited", "OOM")}
    try:
        if ended:
            trackio_run.mark_ended(folder, project, {places[n]["id"]: ended[n] for n in places.keys() & ended.keys()})
        return trackio_run.put_page(folder, project, f"sweep {sweep['name']}", _page(sweep, places))
    except (OSError, sqlite3.Error) as error:
        logger.warning("the dashboard's table of this sweep can't be written: %s", error)
        return None


def lines(sweep_dir: Path) -> list[str]:
    """Return what a terminal is told of a sweep's dashboard: the line that serves it, and what to open then."""
    sweep = read_sweep(sweep_dir)
    places = [*_places(sweep_dir, sweep).values()] if sweep else []
    if not sweep or not places:
        return []
    folder, project = Path(places[-1]["folder"]), places[-1]["project"]
    ids = [place["id"] for place in places if place["project"] == project]
    told = [f"Dashboard: {trackio_run.show_command(folder, project)}"]
    told.append(f"  curves:  {trackio_run.address(project, ids)}")
    if table := update(sweep_dir, sweep):
        told.append(f"  table:   {trackio_run.server()}/file?path={quote(str(table))}")
    return told


def _places(sweep_dir: Path, sweep: dict[str, Any]) -> dict[int, dict[str, str]]:
    """Return where in Trackio the jobs are that have a run there, by their number."""
    records = {job["number"]: job for job in sweep["jobs"] if job["status"] not in ("pending", "refused", "skipped")}
    found = {number: (read_record(sweep_dir / job["dir"]) or {}).get("tracked") for number, job in records.items()}
    return {number: place for number, place in found.items() if place}


def _page(sweep: dict[str, Any], places: dict[int, dict[str, str]]) -> str:
    """Return the page: a row for each job, the best first, each with a link to its curves."""
    jobs = sorted(sweep["jobs"], key=lambda job: (job.get("value") is None, -(job.get("value") or 0)))
    metric = metric_label(next((job["metric"] for job in jobs if job.get("metric")), "metric"))
    dims = sorted({int(dim) for job in jobs for dim in job.get("dimensions") or {}}, reverse=True)[1:]
    headers = ["job", *short_keys(sweep["keys"]).values(), "status", metric, "95% interval", "gain", "verdict"]
    headers += [*(f"{dim}d" for dim in dims), "time", "peak memory", "energy", "CO2 (g)", "note"]
    links = {number: trackio_run.address(place["project"], [place["id"]]) for number, place in places.items()}
    links = {number: link.removeprefix(trackio_run.server()) for number, link in links.items()}
    rows = [(links.get(job["number"]), _cells(sweep, job, dims)) for job in jobs]
    template = _TEMPLATES.get_template("sweep_table.html.jinja")
    said = [answer_sentence(jobs), f"{len(jobs)} jobs, {sweep['status']}."]
    by_chance = {job["chance"] for job in jobs if job.get("chance") is not None}
    said += [f"A random order of the documents gives {metric} {tables.score_text(each)}." for each in by_chance]
    return template.render(name=sweep["name"], said=said, headers=headers, rows=rows)


def _cells(sweep: dict[str, Any], job: dict[str, Any], dims: list[int]) -> list[Cell]:
    verdict, values, low_high = job.get("verdict") or {}, job.get("dimensions") or {}, job.get("interval")
    gain, carbon = verdict.get("difference"), job.get("emissions_kg")
    cells: list[Cell] = [(str(job["number"]), job["number"])]
    cells += [(value, _number(value)) for value in (job["point"].get(key, "") for key in sweep["keys"])]
    cells += [(shown_status(job), shown_status(job)), (tables.score_text(job.get("value")), job.get("value"))]
    cells.append((known(low_high, "[{0[0]:.3f}, {0[1]:.3f}]".format), low_high and low_high[0]))
    cells += [(known(gain, "{:+.3f}".format), gain), (known(verdict.get("outcome"), str), verdict.get("outcome"))]
    cells += [(tables.score_text(values.get(str(dim))), values.get(str(dim))) for dim in dims]
    cells.append((known(job.get("time_s"), tables.time_text), job.get("time_s")))
    cells.append((known(peak_bytes(job), tables.memory_text), peak_bytes(job)))
    cells.append((known(job.get("energy_kwh"), tables.energy_text), job.get("energy_kwh")))
    return [*cells, (known(carbon, lambda kg: f"{1000 * kg:.3g}"), carbon), (note(job), note(job))]


def _number(value: str) -> float | str:
    with contextlib.suppress(ValueError):
        return float(value)
    return value
