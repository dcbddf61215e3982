"""The tables of a sweep: a row for each job, from its own files."""

from __future__ import annotations

import csv
import io
import shlex
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

from experiments.reports import tables
from experiments.reports.page import render
from experiments.reports.tables import known, listed, named_or_counted, score_text, shown
from experiments.runs import metrics_file, terminal
from experiments.runs.files import replacing, save_json
from experiments.runs.names import point_names
from experiments.runs.run import duration_s, read_record
from experiments.runs.sweeps import FINAL, read_sweep

_WORDS = (  # of a verdict's outcome, by what it is against
    ("better", "base", "Finetuning helped"),
    ("not shown", "base", "No improvement is shown"),
    ("worse", "base", "Worse after training"),
    ("better", "retriever", "Reranking helps"),
    ("not shown", "retriever", "No improvement over the retriever alone is shown"),
    ("worse", "retriever", "Worse than the retriever alone"),
)


def write_summary(sweep_dir: Path, sweep: dict[str, Any]) -> None:
    """Fill in what the jobs' own files say and rewrite `summary.json`, `.csv` and `.md`, each atomically."""
    jobs = sweep["jobs"]
    for job in jobs:
        job.update(_results(sweep_dir / job["dir"], job))
    save_json(sweep_dir / "summary.json", sweep)
    dims = sorted({int(dim) for job in jobs for dim in job.get("dimensions") or {}}, reverse=True)
    logs = [job["log"] for job in jobs if (sweep_dir / job["log"]).exists()]  # a job that never started has none
    statuses = Counter(map(shown_status, jobs))
    said = {"answer": answer_sentence(jobs), "table": _table(sweep, dims), "place": shlex.quote(shown(sweep_dir))}
    page = render("sweep_summary", **sweep, **said, statuses=statuses, logs=logs)
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
    peaks = ("peak_memory_bytes", "peak_device_bytes")  # of a job that is reused its own record alone tells
    found |= {key: record[key] for key in peaks if job.get(key) is None and record.get(key) is not None}
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
        "chance": (metrics_file.chance(metrics) or {}).get(metric),
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


def answer_sentence(jobs: list[dict[str, Any]]) -> str:
    """Return which job is highest (whether by chance says the report) and, by name, what training did to each job."""
    names = dict(zip([job["number"] for job in jobs], point_names([job["point"] for job in jobs]), strict=True))
    scored = [job for job in jobs if job.get("value") is not None]
    if not scored:
        return ""
    best = max(scored, key=lambda job: job["value"])
    label = metrics_file.metric_label(best["metric"])
    said = [f"Highest: {names[best['number']]}, {label} {score_text(best['value'], best.get('interval'))}"]
    judged = [(names[job["number"]], job["verdict"]) for job in scored if job.get("verdict")]
    for outcome, against, words in _WORDS:
        alike = [each for each in judged if (each[1]["outcome"], each[1]["against"]) == (outcome, against)]
        if outcome == "worse":
            told = listed([name + _better_step(found) for name, found in alike])
        else:
            told = named_or_counted([name for name, _ in alike], len(judged))
        said += [f"{words}: {told}"] if told else []
    by_chance = [name for name, found in judged if found.get("above_chance") is False]
    said += [f"Not above chance: {named_or_counted(by_chance, len(judged))}"] if by_chance else []
    return ". ".join(said) + "."


def _better_step(verdict: dict[str, Any]) -> str:
    """Return which evaluation in training was better than a model that it made worse, if one was."""
    best = verdict.get("best")
    return f" (step {best['step']} was better, {score_text(best['value'])})" if best else ""


def _table(sweep: dict[str, Any], dims: list[int]) -> str:
    """Return a Markdown table of the jobs, for a person: rounded, with the metric at the smaller dimensions too."""
    jobs = sweep["jobs"]
    label = metrics_file.metric_label(next((job["metric"] for job in jobs if job.get("metric")), "metric"))
    judged = any(job.get("verdict") for job in jobs)
    headers = ["run", f"{label} [95% interval]", *["verdict"] * judged, *(f"{dim}d" for dim in dims[1:])]
    headers += ["time", "peak memory", "energy", "job", "status", "note"]
    rows = []
    for name, job in zip(point_names([job["point"] for job in jobs]), jobs, strict=True):
        values = job.get("dimensions") or {}
        row = [name, score_text(job.get("value"), job.get("interval"))]
        row += [known(job.get("verdict"), verdict_text)] * judged
        row += [score_text(values.get(str(dim))) for dim in dims[1:]]
        row += [known(job.get("time_s"), tables.time_text), known(peak_bytes(job), tables.memory_text)]
        row += [known(job.get("energy_kwh"), tables.energy_text), str(job["number"]), shown_status(job)]
        rows.append([*row, textwrap.shorten(note(job), 80, placeholder=" …")])
    by_chance = {job["chance"] for job in jobs if job.get("chance") is not None}
    if len(by_chance) == 1:  # of one evaluation
        rows.append(["chance", score_text(*by_chance), *[""] * (len(headers) - 2)])
    return tables.markdown_table(headers, rows)


def verdict_text(verdict: dict[str, Any]) -> str:
    """Return whether a job's training helped, and by how much: `better +0.051`, `no improvement shown (+0.012)`."""
    difference = f"{verdict['difference']:+z.3f}"
    return (
        f"no improvement shown ({difference})"
        if verdict["outcome"] == "not shown"
        else f"{verdict['outcome']} {difference}"
    )


def _csv(sweep: dict[str, Any], dims: list[int]) -> str:
    """Return the rows unrounded, in seconds, bytes and kWh."""
    plain = ("time_s", "wall_s", "peak_memory_bytes", "peak_device_bytes", "energy_kwh", "emissions_kg")
    headers = ["job", "run", *sweep["keys"], "status", "metric", "value", "interval_low", "interval_high"]
    judged = ("outcome", "difference", "p")  # of the verdict
    names = point_names([job["point"] for job in sweep["jobs"]])
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    headers += ["chance", *judged, *(f"value_dim{dim}" for dim in dims), *plain, "note", "log", "rerun"]
    writer.writerow(headers)
    for name, job in zip(names, sweep["jobs"], strict=True):
        values = job.get("dimensions") or {}
        row = [job["number"], name, *(job["point"].get(key, "") for key in sweep["keys"]), shown_status(job)]
        row += [job.get("metric"), job.get("value"), *(job.get("interval") or [None, None])]
        row += [job.get("chance"), *((job.get("verdict") or {}).get(key) for key in judged)]
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
    said = [f"{sentence}\n"] if (sentence := answer_sentence(sweep["jobs"])) else []
    lines = ["", *said, _table(sweep, []), "", f"Summary:   {sweep_dir / 'summary.md'}"]
    lines.append(f"Report:    {shlex.join(['python', '-m', 'experiments.report', tables.shown(sweep_dir)])}")
    lines += dashboard
    terminal.say("\n".join(lines) + "\n")
    bad = {job["status"] for job in sweep["jobs"] if job["status"] not in FINAL}
    return 0 if not bad else 2 if bad == {"refused"} else 1


def rerun_line(task: str, overrides: list[str], memory_limit: object = None) -> str:
    """Return the line that runs a job alone; with a memory limit as a sweep of one job, which alone sets limits."""
    limit = ["-m", f"hydra.launcher.memory_limit={memory_limit}"] if memory_limit is not None else []
    return shlex.join(["python", "-m", task, *limit, *overrides])
