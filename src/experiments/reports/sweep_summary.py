"""The tables of a sweep: a row for each job, from its own files."""

from __future__ import annotations

import csv
import io
import os
import re
import shlex
import sys
import textwrap
from pathlib import Path
from typing import Any
from urllib.parse import quote

from experiments.reports.tables import energy_text, joined, markdown_table, shortened, shown, time_text
from experiments.runs.files import save_json
from experiments.runs.metrics_file import (
    OldRecordError,
    best_measured,
    load_metrics,
    main_values,
    metric_label,
    primary_metric,
)
from experiments.runs.run import duration_s, read_record

_MIB = 2**20


def results(run_dir: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Return what a job's own files say: metric, interval, time, energy; empty until they are there.

    Args:
        run_dir: The job's directory.
        job: Its entry in the sweep; metrics are taken of a finished job alone.
    """
    record = read_record(run_dir) if job["status"] not in ("pending", "duplicate", "skipped") else None
    if record is None:
        return {}
    is_known = record["attempts"][-1]["end"] is not None or job["status"] == "running"
    found: dict[str, Any] = {"time_s": duration_s(record) if is_known else job.get("wall_s")}
    try:
        metrics = load_metrics(run_dir) if job["status"] == "finished" else None
    except OldRecordError as error:
        return found | {"error": str(error)}
    if not metrics:
        return found
    metric, best = primary_metric(metrics), best_measured(metrics)
    values = {dim: each.get(metric) for dim, each in best.get("dimensions", {}).items()}
    full = main_values(best)
    energy = metrics.get("energy") or {}
    return found | {
        "metric": metric,
        "value": full.get(metric),
        "interval": full.get(f"{metric}_ci95"),
        "dimensions": values,
        "energy_kwh": energy.get("energy_kwh"),
        "emissions_kg": energy.get("emissions_kg"),
    }


def write_tables(sweep_dir: Path, sweep: dict[str, Any]) -> None:
    """Write `summary.csv` and `summary.md`, each atomically."""
    dims = sorted({int(dim) for job in sweep["jobs"] for dim in job.get("dimensions") or {}}, reverse=True)
    _replace(sweep_dir / "summary.csv", _csv(sweep, dims))
    _replace(sweep_dir / "summary.md", _page(sweep_dir, sweep, dims))


def shown_status(job: dict[str, Any]) -> str:
    """Return a job's status as it is shown."""
    if job["status"] == "finished" and job["reused"]:
        return "reused"
    return str(job["status"])


def table(sweep: dict[str, Any], dims: list[int] | None = None) -> str:
    """Return a Markdown table of the jobs, for a person: rounded, in minutes and GiB.

    Args:
        sweep: As `sweeps.read_sweep` gives it.
        dims: Matryoshka dimensions to show the metric at; None: the full one alone.
    """
    label = metric_label(next((job["metric"] for job in sweep["jobs"] if job.get("metric")), "metric"))
    headers = ["job", *map(last_part, sweep["keys"]), "status", f"{label} [95% interval]"]
    headers += [*(f"{dim}d" for dim in (dims or [])[1:]), "time", "peak memory", "energy", "note"]
    rows = []
    for job in sweep["jobs"]:
        values = job.get("dimensions") or {}
        row = [str(job["number"]), *(job["point"].get(key, "") for key in sweep["keys"]), shown_status(job)]
        row.append(_score(job.get("value"), job.get("interval")))
        row += [_score(values.get(str(dim))) for dim in (dims or [])[1:]]
        row.append("–" if job.get("time_s") is None else time_text(job["time_s"]))
        row.append(_memory(job))
        row.append("–" if job.get("energy_kwh") is None else energy_text(job["energy_kwh"]))
        rows.append([*row, textwrap.shorten(note(job), 80, placeholder=" …")])
    return markdown_table(headers, rows)


def note(job: dict[str, Any]) -> str:
    """Return in a line why a job is what it is; empty for a finished one."""
    if job["status"] == "duplicate":
        return f"same as job {job['same_as']}"
    if job["status"] == "skipped":
        return f"needs at least the memory of job {job['dominated_by']}, which ran out of it"
    return job.get("error") or ""


def conclude(sweep_dir: Path) -> int:
    """Print a sweep's table and where to see more, and return its exit code.

    Returns:
        0 if every job finished, 2 if all that did not are mistakes in what was typed, else 1: running out of memory
        is a result, but not one that a script that goes on from the sweep can take for a model.
    """
    from experiments.runs.sweeps import FINAL, read_sweep

    sweep = read_sweep(sweep_dir)
    assert sweep is not None
    records = [read_record(sweep_dir / job["dir"]) or {} for job in sweep["jobs"]]
    lines = ["", table(sweep), "", f"Summary:   {sweep_dir / 'summary.md'}"]
    lines.append(f"Report:    {shlex.join(['python', '-m', 'experiments.report', shown(sweep_dir)])}")
    lines += _dashboard_lines([record for record in records if record.get("dashboard")])
    sys.stdout.write("\n".join(lines) + "\n")
    bad = {job["status"] for job in sweep["jobs"] if job["status"] not in FINAL}
    return 0 if not bad else 2 if bad == {"refused"} else 1


def _dashboard_lines(records: list[dict[str, Any]]) -> list[str]:
    """Return the command that opens the dashboard, and what to add to the address for these runs alone.

    Args:
        records: `run.json` of the runs that were tracked.
    """
    if not records:
        return []
    names = ",".join(quote(record.get("tracked_as") or record["name"], safe="=") for record in records)
    return [f"Dashboard: {records[-1]['dashboard']}", f"           add to the address: &smoothing=0&runs={names}"]


def _page(sweep_dir: Path, sweep: dict[str, Any], dims: list[int]) -> str:
    counts: dict[str, int] = {}
    for job in sweep["jobs"]:
        counts[shown_status(job)] = counts.get(shown_status(job), 0) + 1
    summary = ", ".join(f"{count} {status}" for status, count in counts.items())
    lines = []
    for job in sweep["jobs"]:
        has_log = (sweep_dir / job["log"]).exists()  # a job that never started has none
        log = f" (log: [{job['log']}]({job['log']}))" if has_log else ""
        lines.append(f"- job {job['number']}: `{job['rerun']}`{log}")
    parts = [
        f"# {sweep['name']}",
        f"`{sweep['command']}`",
        f"{len(sweep['jobs'])} jobs: {summary}. The sweep is {sweep['status']}.",
        table(sweep, dims),
        "## Each job alone",
        "\n".join(lines),
    ]
    return "\n\n".join(parts) + "\n"


def _csv(sweep: dict[str, Any], dims: list[int]) -> str:
    """Return the rows unrounded, in seconds, bytes and kWh."""
    low_high = ("interval_low", "interval_high")
    plain = ("time_s", "wall_s", "peak_memory_bytes", "peak_device_bytes", "energy_kwh", "emissions_kg")
    headers = ["job", *sweep["keys"], "status", "metric", "value", *low_high, *(f"value_dim{dim}" for dim in dims)]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*headers, *plain, "note", "log", "rerun"])
    for job in sweep["jobs"]:
        values = job.get("dimensions") or {}
        row = [job["number"], *(job["point"].get(key, "") for key in sweep["keys"]), shown_status(job)]
        row += [job.get("metric"), job.get("value"), *(job.get("interval") or [None, None])]
        row += [values.get(str(dim)) for dim in dims]
        writer.writerow([*row, *(job.get(key) for key in plain), note(job), job["log"], job["rerun"]])
    return file.getvalue()


def _score(value: float | None, interval: list[float] | None = None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def peak_bytes(job: dict[str, Any]) -> int | None:
    """Return the peak of a job's memory: of the device where there is one, else resident."""
    return job.get("peak_device_bytes") or job.get("peak_memory_bytes")


def _memory(job: dict[str, Any]) -> str:
    peak = peak_bytes(job)
    return "–" if peak is None else f"{peak / _MIB:,.0f} MiB"


def rerun_line(task: str, overrides: list[str], memory_limit: object = None) -> str:
    """Return the line that runs a job alone; with a memory limit as a sweep of one job, which alone sets limits."""
    limit = ["-m", f"hydra.launcher.memory_limit={memory_limit}"] if memory_limit is not None else []
    return shlex.join(["python", "-m", task, *limit, *overrides])


def sweep_name(keys: list[str], folder: Path) -> str:
    """Return a name made of the swept keys and of when the sweep began: `mini_batch_size-2026-11-23-01-43-05`."""
    began = "-".join(folder.parts[-2:])
    return joined([*([joined([*map(last_part, keys)], 119 - len(began))] if keys else []), began], 120)


def job_name(point: dict[str, str]) -> str:
    """Return a name made of the swept keys only: `mini_batch_size=4-max_pixels=4096`."""
    last = [*map(last_part, point)]
    names = [name if last.count(name) == 1 else key for key, name in zip(point, last, strict=True)]
    values = (shortened(re.sub(r"[^\w.+-]+", "_", value).strip("_"), 60) for value in point.values())
    return joined([f"{name}={value}" for name, value in zip(names, values, strict=True)], 120)


def last_part(key: str) -> str:
    """Return `mini_batch_size` of `loss.mini_batch_size`."""
    return key.rpartition(".")[2]


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_summary(sweep_dir: Path, sweep: dict[str, Any]) -> None:
    """Fill in what the jobs' own files say and rewrite `summary.json`, `.csv` and `.md`, each atomically.

    Args:
        sweep_dir: The sweep's directory.
        sweep: Its state.
    """
    from experiments.reports import sweep_summary

    for job in sweep["jobs"]:
        job.update(sweep_summary.results(sweep_dir / job["dir"], job))
    save_json(sweep_dir / "summary.json", sweep)
    sweep_summary.write_tables(sweep_dir, sweep)
