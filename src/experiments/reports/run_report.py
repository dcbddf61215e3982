"""The report of one run: report.md and its figures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from experiments.reports import figures, tables
from experiments.reports.commands import commands
from experiments.reports.page import Page, render
from experiments.reports.tables import Table, markdown_table, score
from experiments.runs.metrics_file import (
    best_measured,
    dimensions,
    evaluations,
    main_values,
    metric_label,
    parts,
    primary_metric,
    retention,
)
from experiments.runs.run import Run, duration_s, load_run

FAILURES = "failures.html"  # written before the report
AFTER_COMPARISON = "## Training Details"  # the heading on the library's model cards
BYTES = {"float32": 4.0, "int8": 1.0, "binary": 1 / 8}  # of one dimension
_PARTS = {2: "half", 4: "a quarter of", 8: "an eighth of", 16: "a sixteenth of"}


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
    return {
        "main": [main_values(each) for each in measured.values()],
        "primary": metric,
        "verdict": verdict_sentence(run.metrics),
        "retention": retention_sentence(best, metric),
        "comparison": comparison_table(run.metrics),
        "failures": FAILURES if (run.path / FAILURES).is_file() else None,
        "full_dim": next(iter(dimensions(best)), None),
        "columns": [*measured],
        "directions": _directions(best, measured, metric),
        "precision": _precision_table(best, metric),
        "all_metrics": _all_metrics(best, measured),
        "seconds": duration_s(run.record),
        "attributes": [[name, f"{share:.1%}"] for name, share in (run.metrics.get("attributes") or {}).items()],
        "versions": [f"{name} {version}" for name, version in run.record["versions"].items() if version],
        "commands": commands(run),
    }


def retention_sentence(measured: dict[str, Any], metric: str) -> str:
    """Return a sentence such as "48 of 96 dimensions keep 98.9% at half the bytes"; empty with one or no dimension."""
    if len(dimensions(measured)) < 2:
        return ""
    full, *smaller = dimensions(measured)
    dim = min(smaller, key=lambda each: abs(each - full / 2))
    is_simple = full % dim == 0 and full // dim in _PARTS
    size = f"{_PARTS[full // dim]} the bytes" if is_simple else f"{dim / full:.0%} of the bytes"
    return f"{dim} of {full} dimensions keep {tables.percent(retention(measured, metric)[dim])} at {size}."


def verdict_sentence(metrics: dict[str, Any]) -> str:
    """Return whether training helped, by how much, and what follows if it did not; empty where there is no verdict."""
    if not (verdict := metrics.get("verdict")):
        return ""
    after, best = main_values(metrics["final"])[verdict["metric"]], verdict.get("best")
    if of_base := verdict["against"] == "base":
        before = main_values(metrics["base"])[verdict["metric"]]
        said = {"better": "Finetuning helped", "worse": "Finetuning made the model worse"}
    else:
        before = main_values(metrics["final"])[f"retriever_{primary_metric(metrics)}"]
        said = {"better": "Reranking helps", "worse": "Reranking is worse than the retriever alone"}
    said["not shown"] = f"No improvement {'' if of_base else 'over the retriever alone '}is shown"
    metric = metric_label(verdict["metric"]) + ("" if of_base else " end to end")
    change = tables.difference_text(verdict["difference"], verdict["interval"])
    found = [f"{metric} {before:.3f} → {after:.3f}", change, f"p {tables.p_text(verdict['p'])}"]
    num_queries = verdict["num_queries"]
    found.append(f"{num_queries:,} {'query' if num_queries == 1 else 'queries'}")
    follows = []
    if verdict["outcome"] == "not shown":
        few = num_queries < 6  # see `Difference.outcome`
        follows.append("fewer than 6 can show none" if few else "more would tell smaller differences")
    if verdict["outcome"] == "worse" and not (best and best["value"] > before):
        follows.append(f"keep the {'base model' if of_base else 'retriever alone'}")
    if best:
        follows.append(f"step {best['step']} was better ({best['value']:.3f})")
    return "; ".join([f"{said[verdict['outcome']]}: {', '.join(found)}", *follows]) + "."


def summary_table(metrics: dict[str, Any]) -> str:
    """Return the table that a run prints at its end, aligned for a terminal: a row per dimension or direction."""
    return tables.aligned(*_comparison(metrics))


def comparison_table(metrics: dict[str, Any]) -> str:
    """Return base against finetuned at each dimension or direction as Markdown, for the report and the model card."""
    headers, rows = _comparison(metrics)
    if dims := dimensions(best_measured(metrics)):
        headers, rows = [*headers, "bytes"], [[*row, f"{4 * dim:,}"] for row, dim in zip(rows, dims, strict=True)]
    return markdown_table(headers, rows)


def add_comparison(card: Path, metrics: dict[str, Any]) -> None:
    """Put the verdict and the table behind it on a model's card, before its training details or, without them, last.

    Of the rest of the card, `runs.energy` writes the energy and `evaluation.results.say` the table of evaluations.
    """
    before, heading, after = card.read_text(encoding="utf-8").partition(AFTER_COMPARISON)
    said = f"{sentence}\n\n" if (sentence := verdict_sentence(metrics)) else ""
    section = f"## Base against finetuned\n\n{metrics['primary_metric']}.\n\n{said}{comparison_table(metrics)}\n"
    rest = f"\n{heading}{after}" if heading else ""
    card.write_text(f"{before.rstrip()}\n\n{section}{rest}", encoding="utf-8")


def _measured(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {label: measured for _, label, measured in evaluations(metrics)}


def _comparison(metrics: dict[str, Any]) -> Table:
    metric, best, measured = primary_metric(metrics), best_measured(metrics), _measured(metrics)
    dims = dimensions(best)
    shown = {metric: "" if dims else ", positives present"}
    if f"end_to_end_{metric}" in main_values(best):
        shown[f"end_to_end_{metric}"] = ", end to end"
    columns = [(name, each) for name in shown for each in measured]
    headers = ["dimensions" if dims else "direction"]
    headers += [f"{each}{shown[name]} [95% interval]" for name, each in columns]
    rows = []
    for key in parts(best):
        rows.append([key, *(score(parts(measured[each]).get(key), name, interval=True) for name, each in columns)])
    if f"retriever_{metric}" in main_values(best):
        headers.append("retriever alone")
        rows = [[*row, score(parts(best)[row[0]], f"retriever_{metric}")] for row in rows]
    if not dims:
        return headers, rows
    kept = retention(best, metric)
    return [*headers, "% of full"], [[*row, tables.percent(kept[dim])] for row, dim in zip(rows, dims, strict=True)]


def _directions(best: dict[str, Any], measured: dict[str, dict[str, Any]], metric: str) -> Table | None:
    """Return a row for each direction that the dimensions pool; a reranker's are in the first table."""
    if "dimensions" not in best or "directions" not in best:
        return None
    rows = []
    for name in best["directions"]:
        of_each = (each.get("directions", {}).get(name) for each in measured.values())
        rows.append([name, *(score(values, metric, interval=True) for values in of_each)])
    return ["direction", *(f"{each} [95% interval]" for each in measured)], rows


def precisions(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the metrics at a dimension by the precision of the embeddings."""
    return {"float32": values} | {name: values[name] for name in BYTES if name in values}


def _precision_table(measured: dict[str, Any], metric: str) -> Table | None:
    if not dimensions(measured):
        return None
    names, rows = [*precisions(main_values(measured))], []
    for dim, values in measured["dimensions"].items():
        row = [dim]
        for name in names:
            row += [score(precisions(values).get(name), metric), f"{math.ceil(int(dim) * BYTES[name]):,}"]
        rows.append(row)
    return ["dimensions", *(header for name in names for header in (name, "bytes"))], rows


def _all_metrics(best: dict[str, Any], measured: dict[str, dict[str, Any]]) -> dict[str, list[list[str]]]:
    """Return rows of every metric, at the full dimension or for each direction."""
    found = {}
    for key, values in [*parts(best).items()][: 1 if dimensions(best) else None]:
        names = [name for name, value in values.items() if isinstance(value, (int, float))]
        found[key] = [[name, *(score(parts(each).get(key), name) for each in measured.values())] for name in names]
    return found
