"""The tables of a sweep: a row for each job, from its own files."""

from __future__ import annotations

import csv
import io
import shlex
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

from experiments.reports import tables
from experiments.reports.page import render
from experiments.reports.tables import known, score_text
from experiments.runs import metrics_file
from experiments.runs.files import replacing, save_json
from experiments.runs.names import last_part
from experiments.runs.run import duration_s, read_record
from experiments.runs.sweeps import FINAL, read_sweep


def write_summary(sweep_dir: Path, sweep: dict[str, Any]) -> None:
    """Fill in what the jobs' own files say and rewrite `summary.json`, `.csv` and `.md`, each atomically."""
    jobs = sweep["jobs"]
    for job in jobs:
        job.update(_results(sweep_dir / job["dir"], job))
    save_json(sweep_dir / "summary.json", sweep)
    dims = sorted({int(dim) for job in jobs for dim in job.get("dimensions") or {}}, reverse=True)
    logs = [job["log"] for job in jobs if (sweep_dir / job["log"]).exists()]  # a job that never started has none
    statuses = Counter(map(shown_status, jobs))
    page = render("sweep_summary", **sweep, statuses=statuses, logs=logs, table=_table(sweep, dims))
    for name, text in (("summary.csv", _csv(sweep, dims)), ("summary.md", page)):
        with replacing(sweep_dir / name) as unfinished:
            unfinished.write_text(text, encoding="utf-8")


def _results(run_dir: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Return what a job's own files say: time and, of a finished one, metrics and energy; empty without files."""
    record = read_record(run_dir) if job["status"] not in ("pending", "duplicate", "skipped") else None
    if record is None:
        return {}
    is_known = record["attempts"][-1]["end"] is not None or job["status"] == "running"
    found: dict[str, Any] = {"time_s": duration_s(record) if is_known else job.get("wall_s")}
    try:
        metrics = metrics_file.load_metrics(run_dir) if job["status"] == "finished" else None
    except metrics_file.OldRecordError as error:
        return found | {"error": str(error)}
    if not metrics:
        return found
    metric, best, energy = (
        metrics_file.primary_metric(metrics),
        metrics_file.best_measured(metrics),
        metrics.get("energy") or {},
    )
    return found | {
        "metric": metric,
        "value": metrics_file.main_values(best).get(metric),
        "interval": metrics_file.main_values(best).get(f"{metric}_ci95"),
        "verdict": metrics.get("verdict"),
        "dimensions": {dim: each.get(metric) for dim, each in best.get("dimensions", {}).items()},
        "energy_kwh": energy.get("energy_kwh"),
        "emissions_kg": energy.get("emissions_kg"),
    }


def shown_status(job: dict[str, Any]) -> str:
    """Return a job's status as it is shown."""
    return "reused" if job["status"] == "finished" and job["reused"] else str(job["status"])


def note(job: dict[str, Any]) -> str:
    """Return in a line why a job is what it is; empty for a finished one."""
    if job["status"] == "duplicate":
        return f"same as job {job['same_as']}"
    if job["status"] == "skipped":
        return f"needs at least the memory of job {job['dominated_by']}, which ran out of it"
    return job.get("error") or ""


def _point(sweep: dict[str, Any], job: dict[str, Any]) -> list[str]:
    return [job["point"].get(key, "") for key in sweep["keys"]]


def _table(sweep: dict[str, Any], dims: list[int]) -> str:
    """Return a Markdown table of the jobs, for a person: rounded, with the metric at the smaller dimensions too."""
    label = metrics_file.metric_label(next((job["metric"] for job in sweep["jobs"] if job.get("metric")), "metric"))
    headers = ["job", *map(last_part, sweep["keys"]), "status", f"{label} [95% interval]"]
    judged = any(job.get("verdict") for job in sweep["jobs"])
    headers += [*["verdict"] * judged, *(f"{dim}d" for dim in dims[1:]), "time", "peak memory", "energy", "note"]
    rows = []
    for job in sweep["jobs"]:
        values = job.get("dimensions") or {}
        row = [str(job["number"]), *_point(sweep, job), shown_status(job)]
        row.append(score_text(job.get("value"), job.get("interval")))
        row += [known(job.get("verdict"), _verdict_text)] * judged
        row += [score_text(values.get(str(dim))) for dim in dims[1:]]
        row += [known(job.get("time_s"), tables.time_text), known(peak_bytes(job), tables.memory_text)]
        row += [known(job.get("energy_kwh"), tables.energy_text), textwrap.shorten(note(job), 80, placeholder=" …")]
        rows.append(row)
    return tables.markdown_table(headers, rows)


def _verdict_text(verdict: dict[str, Any]) -> str:
    """Return whether a job's training helped, and by how much: `better +0.051`."""
    return f"{verdict['outcome']} {verdict['difference']:+z.3f}"


def _csv(sweep: dict[str, Any], dims: list[int]) -> str:
    """Return the rows unrounded, in seconds, bytes and kWh."""
    plain = ("time_s", "wall_s", "peak_memory_bytes", "peak_device_bytes", "energy_kwh", "emissions_kg")
    headers = ["job", *sweep["keys"], "status", "metric", "value", "interval_low", "interval_high"]
    judged = ("outcome", "difference", "p")  # of the verdict
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*headers, *judged, *(f"value_dim{dim}" for dim in dims), *plain, "note", "log", "rerun"])
    for job in sweep["jobs"]:
        values = job.get("dimensions") or {}
        row = [job["number"], *_point(sweep, job), shown_status(job)]
        row += [job.get("metric"), job.get("value"), *(job.get("interval") or [None, None])]
        row += [(job.get("verdict") or {}).get(key) for key in judged]
        row += [*(values.get(str(dim)) for dim in dims), *(job.get(key) for key in plain)]
        writer.writerow([*row, note(job), job["log"], job["rerun"]])
    return file.getvalue()


def peak_bytes(job: dict[str, Any]) -> int | None:
    """Return the peak of a job's memory: of the device where there is one, else resident."""
    return job.get("peak_device_bytes") or job.get("peak_memory_bytes")


def conclude(sweep_dir: Path, dashboard: list[str]) -> int:
    """Print a sweep's table and where to see more, `dashboard` last, and return its exit code.

    Returns:
        0 if every job finished, 2 if all that did not are mistakes in what was typed, else 1: running out of memory
        is a result, but not one that a script that goes on from the sweep can take for a model.
    """
    sweep = read_sweep(sweep_dir)
    assert sweep is not None
    lines = ["", _table(sweep, []), "", f"Summary:   {sweep_dir / 'summary.md'}"]
    lines.append(f"Report:    {shlex.join(['python', '-m', 'experiments.report', tables.shown(sweep_dir)])}")
    lines += dashboard
    sys.stdout.write("\n".join(lines) + "\n")
    bad = {job["status"] for job in sweep["jobs"] if job["status"] not in FINAL}
    return 0 if not bad else 2 if bad == {"refused"} else 1


def rerun_line(task: str, overrides: list[str], memory_limit: object = None) -> str:
    """Return the line that runs a job alone; with a memory limit as a sweep of one job, which alone sets limits."""
    limit = ["-m", f"hydra.launcher.memory_limit={memory_limit}"] if memory_limit is not None else []
    return shlex.join(["python", "-m", task, *limit, *overrides])
