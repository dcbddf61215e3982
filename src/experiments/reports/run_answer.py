"""The answer of a run, as terminal, report and card give it: a sentence, and the table behind it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from experiments.reports import tables
from experiments.reports.tables import Table, markdown_table, percent, score
from experiments.runs.metrics_file import (
    KEPT,
    answered_by,
    best_measured,
    chance,
    dimensions,
    evaluations,
    is_above_chance,
    main_values,
    metric_label,
    parts,
    primary_metric,
    retention,
    retention_intervals,
    smallest_dimension,
)

FEWEST = 6  # queries that can show a difference, see `Difference.outcome`
PRESENT = "the right documents always among the candidates"
_PARTS = {2: "half", 4: "a quarter of", 8: "an eighth of", 16: "a sixteenth of"}


def verdict_sentence(metrics: dict[str, Any]) -> str:
    """Return whether training helped, by how much, and what follows if it did not; before it what spoils that.

    Empty where there is no verdict, as on a model that was only evaluated, and it lies above chance.
    """
    metric, said = answered_by(metrics), []
    why = (metrics.get("training") or {}).get("unchanged")
    if why is not None:
        said.append(f"The weights did not change{f': {why}' if why else ''}.")
    if is_above_chance(metrics, metric) is False:
        said.append(f"Not above chance: a random order has {label(metrics)} {score(chance(metrics), metric)}.")
    if (verdict := metrics.get("verdict")) and why is None:
        said.append("; ".join([_found(metrics, verdict), *_follows(metrics, verdict)]) + ".")
    return " ".join(said)


def _before(metrics: dict[str, Any]) -> float:
    """Return what the trained model is held against."""
    if metrics["verdict"]["against"] == "base":
        return main_values(metrics["base"])[metrics["verdict"]["metric"]]
    return main_values(metrics["final"])[f"retriever_{primary_metric(metrics)}"]


def _found(metrics: dict[str, Any], verdict: dict[str, Any]) -> str:
    """Return the outcome in words and numbers."""
    if of_base := verdict["against"] == "base":
        said = {"better": "Finetuning helped", "worse": "Finetuning made the model worse"}
    else:
        said = {"better": "Reranking helps", "worse": "Reranking is worse than the retriever alone"}
    said["not shown"] = f"No improvement {'' if of_base else 'over the retriever alone '}is shown"
    after = main_values(metrics["final"])[verdict["metric"]]
    values = f"{label(metrics)} {_before(metrics):.3f} → {after:.3f}"
    num_queries = tables.queries_text(verdict["num_queries"])
    if verdict["num_queries"] < FEWEST:
        return f"{num_queries} can't show whether {'training' if of_base else 'reranking'} helped ({values})"
    if verdict["outcome"] == "not shown" and _is_ceiling(metrics):
        first = "base model" if of_base else "retriever alone"
        return f"Nothing can be improved here: the {first} answers every query already ({values}, {num_queries})"
    change = tables.difference_text(verdict["difference"], verdict["interval"])
    return f"{said[verdict['outcome']]}: {values}, {change}, p {tables.p_text(verdict['p'])}, {num_queries}"


def _is_ceiling(metrics: dict[str, Any]) -> bool:
    """Return whether what the trained model is held against can't be beaten: every query has the highest value."""
    return _before(metrics) > 1 - 1e-9


def _follows(metrics: dict[str, Any], verdict: dict[str, Any]) -> list[str]:
    """Return what a reranker's training itself did, and what to do about one that did not help."""
    found, best = [], verdict.get("best")
    if verdict["num_queries"] < FEWEST:
        return [f"give {FEWEST} or more"]
    if (trained := verdict.get("training")) and (base := main_values(metrics.get("base")).get(verdict["metric"])):
        said = {"better": "training raised it from", "worse": "training lowered it from"}
        found.append(f"{said.get(trained, 'training is not shown to have changed it from')} {base:.3f}")
    if verdict["outcome"] == "not shown":
        harder = "harder queries, or more pages to search (data.corpus=FILE), could show more"
        found.append(harder if _is_ceiling(metrics) else "more queries would tell smaller differences")
    if verdict["outcome"] == "worse" and not (best and best["value"] > _before(metrics)):
        found.append(f"keep the {'base model' if verdict['against'] == 'base' else 'retriever alone'}")
    if best:
        found.append(f"step {best['step']} was better ({best['value']:.3f})")
    return found


def label(metrics: dict[str, Any]) -> str:
    """Return the metric of the answer as it is read: `nDCG@10`, or `nDCG@10 end to end`."""
    metric = answered_by(metrics)
    return metric_label(metric) + (" end to end" if metric != primary_metric(metrics) else "")


def retention_sentence(measured: dict[str, Any], metric: str) -> str:
    """Return what a smaller dimension keeps, and whether one is shown to be enough; empty where nothing can be said.

    Such as "48 of 96 dimensions keep 98.9% [97.0%, 100.5%] at half the bytes; no fewer are shown to keep 99%."
    """
    if len(dimensions(measured)) < 2:
        return ""
    shares, intervals = retention(measured, metric), retention_intervals(measured, metric)
    full, *smaller = shares
    if math.isnan(shares[full]):
        return ""
    enough = smallest_dimension(measured, KEPT, metric)
    dim = enough if enough != full else min(smaller, key=lambda each: abs(each - full / 2))
    is_simple = full % dim == 0 and full // dim in _PARTS
    size = f"{_PARTS[full // dim]} the bytes" if is_simple else f"{dim / full:.0%} of the bytes"
    keep = f"keep {percent(shares[dim], intervals[dim])} at {size}"
    if enough != full:
        return f"{dim} of {full} dimensions are enough: they {keep}."
    unshown = f"; no fewer than {full} are shown to keep {KEPT:.0%}" if intervals[dim] else ""
    return f"{dim} of {full} dimensions {keep}{unshown}."


def title(metrics: dict[str, Any]) -> str:
    """Return what the values of `comparison` are."""
    values = main_values(best_measured(metrics))
    is_drawn = not any(name.startswith(("cosine_", "end_to_end_")) for name in values)
    return f"{label(metrics)} [95% interval]" + (f", {PRESENT}" if is_drawn else "")


def comparison(metrics: dict[str, Any]) -> Table:
    """Return base against finetuned, a row for each dimension or direction; of a reranker its retriever comes first.

    The last rows are of chance.
    """
    metric, primary, best = answered_by(metrics), primary_metric(metrics), best_measured(metrics)
    headers, rows = values_by_part(metrics, metric)
    if dims := dimensions(best):
        shares, intervals = retention(best, primary), retention_intervals(best, primary)
        kept = [percent(shares[dim], intervals[dim] if dim != dims[0] else None) for dim in dims]
        kept += ["–"] * (len(rows) - len(dims))
        return ["dimensions", *headers, "% of full"], [[*row, each] for row, each in zip(rows, kept, strict=True)]
    if metric == primary:
        return ["direction", *headers], rows
    _, alone = values_by_part(metrics, f"retriever_{primary}")
    joined = [[name, first[-1], *rest] for (name, *rest), first in zip(rows, alone, strict=True)]
    return ["direction", "retriever alone", *headers], joined


def values_by_part(metrics: dict[str, Any], metric: str, section: str = "") -> Table:
    """Return a metric before and after training at each part of a section (the first one), then of chance."""
    found = {name: each.get(section, {}) if section else parts(each) for _, name, each in evaluations(metrics)}
    keys = [*found.values()][-1]
    rows = [[key, *(score(each.get(key), metric, interval=True) for each in found.values())] for key in keys]
    is_by_direction = section == "directions" or not dimensions(best_measured(metrics))
    rows += chance_rows(metrics, keys if is_by_direction else ["all"], [metric] * len(found))
    return [*found], rows


def chance_rows(metrics: dict[str, Any], directions: Iterable[str], names: list[str]) -> list[list[str]]:
    """Return what a random order has of some metrics: a row for each direction, or one if they are alike."""
    found = {each: [score(values, name) for name in names] for each in directions if (values := chance(metrics, each))}
    first = next(iter(found.values()), [])
    if all(row == first for row in found.values()):
        found = {"all": first} if found else {}
    return [["chance" if each == "all" else f"chance, {each}", *row] for each, row in found.items()]


def summary_table(metrics: dict[str, Any]) -> str:
    """Return the table that a run prints at its end, aligned for a terminal."""
    return tables.aligned(*comparison(metrics))


def comparison_table(metrics: dict[str, Any]) -> str:
    """Return the same table as Markdown, for the report and the model card, with an embedding's bytes."""
    headers, rows = comparison(metrics)
    if dims := dimensions(best_measured(metrics)):
        sizes = [f"{4 * dim:,}" for dim in dims] + ["–"] * (len(rows) - len(dims))
        headers, rows = [*headers, "bytes"], [[*row, size] for row, size in zip(rows, sizes, strict=True)]
    return markdown_table(headers, rows)
