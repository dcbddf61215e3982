"""The report of one run: report.md and its figures; its answer is in `reports.run_answer`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from experiments.reports import figures, run_answer, tables
from experiments.reports.commands import commands
from experiments.reports.page import Page, render
from experiments.reports.tables import Table, score
from experiments.runs.metrics_file import (
    answered_by,
    best_measured,
    chance,
    dimensions,
    evaluations,
    main_values,
    parts,
    primary_metric,
)
from experiments.runs.run import Run, duration_s, load_run

FAILURES = "failures.html"  # written before the report
AFTER_COMPARISON = "## Training Details"  # the heading on the library's model cards
BYTES = {"float32": 4.0, "int8": 1.0, "binary": 1 / 8}  # of one dimension


def write_run_report(run_dir: Path) -> str:
    """Write `report.md` and `figures/*.png` of an evaluated run, finished or about to be, and return the text.

    Raises:
        ConfigError: If the directory holds no run.json or metrics.json.
    """
    run, page = load_run(run_dir), Page(run_dir)
    if dimensions(best_measured(run.metrics)):
        evaluation = run.metrics["evaluation"]
        file = page.figure("matryoshka.png", "Quality against the number of dimensions")
        title = f"{evaluation['name']}: {tables.counts(evaluation)}, 95% intervals"
        figures.dimensions_against_quality(run.metrics, title, file)
    if (run.metrics.get("training") or {}).get("history"):
        figures.training_curve(run.metrics, page.figure("training.png", "Training loss and evaluation by step"))
    text = render("run_report", record=run.record, metrics=run.metrics, figures=page.parts, **_content(run))
    (run_dir / "report.md").write_text(text, encoding="utf-8")
    return text


def _content(run: Run) -> dict[str, Any]:
    """Return what `run_report.md.jinja` says beside the record and the metrics themselves."""
    best, metric, measured = best_measured(run.metrics), primary_metric(run.metrics), _measured(run.metrics)
    attributes = [[name, f"{share:.1%}"] for name, share in (run.metrics.get("attributes") or {}).items()]
    return {
        "main": [main_values(each) for each in measured.values()],
        "answered": answered_by(run.metrics),
        "run_answer": run_answer,
        "verdict": run_answer.verdict_sentence(run.metrics),
        "primary": metric,
        "retention": run_answer.retention_sentence(best, metric),
        "failures": FAILURES if (run.path / FAILURES).is_file() else None,
        "full_dim": next(iter(dimensions(best)), None),
        "columns": [*measured, *["chance"] * bool(chance(run.metrics))],
        "directions": _directions(run.metrics, metric),
        "all_candidates": _are_all_candidates(run.metrics),
        "precision": _precision_table(run.metrics, metric),
        "all_metrics": _all_metrics(run.metrics),
        "seconds": duration_s(run.record),
        # A query has one right page, and one that differs from it in the attribute.
        "attributes": attributes + [["chance", "50.0%"]],
        "versions": [f"{name} {version}" for name, version in run.record["versions"].items() if version],
        "commands": commands(run),
    }


def add_comparison(card: Path, metrics: dict[str, Any]) -> None:
    """Put the verdict and the table behind it on a model's card, before its training details or, without them, last.

    Of the rest of the card, `runs.energy` writes the energy and `evaluation.results.say` the table of evaluations.
    """
    before, heading, after = card.read_text(encoding="utf-8").partition(AFTER_COMPARISON)
    said = f"{sentence}\n\n" if (sentence := run_answer.verdict_sentence(metrics)) else ""
    table = run_answer.comparison_table(metrics)
    section = f"## Base against finetuned\n\n{said}{run_answer.title(metrics)}:\n\n{table}\n"
    rest = f"\n{heading}{after}" if heading else ""
    card.write_text(f"{before.rstrip()}\n\n{section}{rest}", encoding="utf-8")


def _measured(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {label: measured for _, label, measured in evaluations(metrics)}


def _directions(metrics: dict[str, Any], metric: str) -> Table | None:
    """Return a row for each direction of an embedder; of a reranker that is held against its retriever the rest."""
    best, section = best_measured(metrics), "directions"
    is_told = answered_by(metrics) == metric or _are_all_candidates(metrics)  # in the table above
    if section not in best or (is_told and not dimensions(best)):
        return None
    headers, rows = run_answer.values_by_part(metrics, metric, section)
    return ["direction", *headers], rows


def _are_all_candidates(metrics: dict[str, Any]) -> bool:
    """Return whether a reranker is given every document, so that end to end and by itself are the same numbers."""
    names = primary_metric(metrics), answered_by(metrics)
    values = [part for *_, measured in evaluations(metrics) for part in parts(measured).values()]
    return names[0] != names[1] and all(part.get(names[0]) == part.get(names[1]) for part in values)


def precisions(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the metrics at a dimension by the precision of the embeddings."""
    return {"float32": values} | {name: values[name] for name in BYTES if name in values}


def _precision_table(metrics: dict[str, Any], metric: str) -> Table | None:
    measured = best_measured(metrics)
    if not dimensions(measured):
        return None
    names, rows = [*precisions(main_values(measured))], []
    for dim, values in measured["dimensions"].items():
        row = [dim]
        for name in names:
            row += [score(precisions(values).get(name), metric), f"{math.ceil(int(dim) * BYTES[name]):,}"]
        rows.append(row)
    for name, *values in run_answer.chance_rows(metrics, ["all"], [metric] * len(names)):
        rows.append([name, *(cell for value in values for cell in (value, "–"))])
    return ["dimensions", *(header for name in names for header in (name, "bytes"))], rows


def _all_metrics(metrics: dict[str, Any]) -> dict[str, list[list[str]]]:
    """Return rows of every metric, at the full dimension or for each direction, and what it is by chance."""
    best, found = best_measured(metrics), {}
    for key, values in [*parts(best).items()][: 1 if dimensions(best) else None]:
        by_chance = chance(metrics, None if dimensions(best) else key)
        columns = [
            *(parts(measured).get(key) for *_, measured in evaluations(metrics)),
            *[by_chance] * bool(by_chance),
        ]
        names = [name for name, value in values.items() if isinstance(value, (int, float))]
        if _are_all_candidates(metrics):
            names = [name for name in names if not name.startswith("end_to_end_")]
        found[key] = [[name, *(score(column, name) for column in columns)] for name in names]
    return found
