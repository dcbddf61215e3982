"""The leaderboard of finished runs on one evaluation: its tables, beside the article's values where they compare."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from experiments.config.errors import ConfigError
from experiments.evaluation.query_values import Part, read_query_values
from experiments.reports import run_answer, tables
from experiments.reports.answer import Contender, retriever_alone
from experiments.reports.tables import counts, markdown_table, percent, score
from experiments.runs import metrics_file
from experiments.runs.metrics_file import (
    answered_by,
    best_measured,
    dimensions,
    evaluations,
    main_values,
    metric_label,
    parts,
    primary_metric,
)
from experiments.runs.names import in_order, model_name, one_sweep, run_names, told_apart
from experiments.runs.run import Run, duration_s

PUBLISHED = Path(__file__).parent / "published.yaml"
FINETUNED, AS_IT_IS, AS_PUBLISHED = "finetuned", "as it is", "published"
_OF_BASE = ("seed", "model.", "evaluator.")  # keys that the metrics before training depend on


class Entry(NamedTuple):
    """A row of the leaderboard: a model, as it is, finetuned, or as published."""

    label: str
    kind: str
    parameters: float
    value: float
    interval: Sequence[float] | None = None  # 95%
    base: float | None = None  # before training
    run: Run | None = None
    is_before: bool = False  # the run's training


def boards(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    """Group runs, best first, by what they were evaluated on: other queries can't be ranked together.

    Each group has a heading: metric, name and size of the data, and its fingerprint where two are alike.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: _entry(run, -1, "").value, reverse=True):
        groups.setdefault((answered_by(run.metrics), run.metrics["evaluation"]["fingerprint"]), []).append(run)
    titles = []
    for (metric, _), (run, *_) in groups.items():
        evaluation, kind = run.metrics["evaluation"], "" if metric.startswith("cosine_") else ", reranked"
        titles.append(f"{run_answer.label(run.metrics)} on {evaluation['name']}{kind}: {counts(evaluation)}")
    prints = [f" (data {fingerprint})" for _, fingerprint in groups]
    titles = [title + data * (titles.count(title) > 1) for title, data in zip(titles, prints, strict=True)]
    return [*zip(titles, groups.values(), strict=True)]


def entries(runs: Sequence[Run]) -> list[Entry]:
    """Return what was measured: each run and, of trained ones, the model before, once for equal values.

    The best stand first, the jobs of one sweep in its order.
    """
    found, before, seen = [], [], set()
    runs = in_order(runs) if (ordered := one_sweep(runs)) else runs
    for run, label in zip(runs, run_names(runs), strict=True):
        base, *trained = evaluations(run.metrics)
        value = main_values(base.measured).get(answered_by(run.metrics)) if trained else None
        found.append(_entry(run, -1, label)._replace(base=value))
        if value is None:
            seen.add((run.metrics["model"]["name"], found[-1].value))
    for run, entry in zip(runs, found, strict=True):
        if entry.base is not None and (key := (run.metrics["model"]["name"], entry.base)) not in seen:
            seen.add(key)
            before.append(run)  # its model as it was has no row yet
    names = told_apart(before, [model_name(run) for run in before], _OF_BASE)
    found += [_entry(run, 0, f"{name} before training") for run, name in zip(before, names, strict=True)]
    return found if ordered else sorted(found, key=lambda entry: -entry.value)


def _entry(run: Run, index: int, label: str) -> Entry:
    """Return the row of one of a run's evaluations: the first (0), before training, or the last (-1)."""
    tag, _, measured = evaluations(run.metrics)[index]
    metric, values = answered_by(run.metrics), main_values(measured)
    kind, parameters = FINETUNED if tag == "final" else AS_IT_IS, run.metrics["model"]["parameters"]
    found = Entry(label, kind, parameters, values[metric], values.get(f"{metric}_ci95"))
    return found._replace(run=run, is_before=index == 0 and tag == "base" and bool(run.metrics.get("final")))


def contenders(found: Sequence[Entry]) -> list[Contender]:
    """Return the entries as the answer compares them, with the values of their queries where these were kept.

    After rerankers stands what they were given, once for equal values: the retriever alone.
    """
    compared = [
        Contender(
            entry.label,
            tables.score_text(entry.value, entry.interval),
            entry.value,
            [entry.run.path] if entry.run and not entry.is_before else [],
            _parts(entry),
            [entry.kind, tables.short_count(entry.parameters)],
            entry.interval,
        )
        for entry in found
    ]
    alone: dict[float, Contender] = {}
    for entry, each in zip(found, compared, strict=True):
        if entry.run and each.parts and (given := retriever_alone(entry.run.metrics, each.parts[0])):
            alone.setdefault(given.value, given._replace(cells=[AS_IT_IS, "–"]))
    return [*compared, *alone.values()]


def _parts(entry: Entry) -> list[Part]:
    if entry.run is None:
        return []
    run = replace(entry.run, metrics=entry.run.metrics | {"final": None}) if entry.is_before else entry.run
    try:
        return [next(iter(read_query_values(run).values()))]
    except ConfigError:  # of a version before, or damaged
        return []


def costs_table(found: Sequence[Entry]) -> str:
    """Return what each run cost, and where it is."""
    rows = []
    for entry in found:
        if (run := entry.run) and not entry.is_before:
            full, *_ = [*dimensions(best_measured(run.metrics)), None]
            saved = run.metrics["model"].get("truncate_dim")
            dimension = "–" if full is None else str(full) if saved in (None, full) else f"{full}, saved {saved}"
            energy = (run.metrics.get("energy") or {}).get("energy_kwh")
            cost = [tables.time_text(duration_s(run.record)), tables.known(energy, tables.energy_text)]
            rows.append([entry.label, dimension, *cost, tables.shown(run.path)])
    return markdown_table(["model", "dimensions", "time", "energy", "run"], rows)


def dimensions_table(run: Run, published: dict[str, Any] | None = None) -> str:
    """Return the article's second table: dimension against base and finetuned, with the share of the full one."""
    metric = primary_metric(run.metrics)
    measured = {label: measured for _, label, measured in evaluations(run.metrics)}
    headers = [f"{name} [95% interval]" for name in measured]
    for k, name in enumerate(("base", FINETUNED)):
        if published:
            headers.append(f"{AS_PUBLISHED} {name}")
            values = {str(dim): {metric: row[k]} for dim, row in published["dimensions"].items()}
            measured[headers[-1]] = {"dimensions": values}
    dims = _dims(measured.values())
    rows = [[str(dim)] for dim in dims]
    for each in measured.values():
        shares = _shares(each, metric)
        for dim, row in zip(dims, rows, strict=True):
            row += [score(parts(each).get(str(dim)), metric, interval=True), shares.get(dim, "–")]
    return markdown_table(["dimensions", *(header for name in headers for header in (name, "% of full"))], rows)


def _dims(measured: Iterable[dict[str, Any]]) -> list[int]:
    return sorted({dim for each in measured for dim in dimensions(each)}, reverse=True)


def _shares(measured: dict[str, Any], metric: str) -> dict[int, str]:
    """Return each dimension's share of the full one in percent, with its interval where that is known."""
    shares, intervals = metrics_file.retention(measured, metric), metrics_file.retention_intervals(measured, metric)
    full, *_ = shares
    return {dim: percent(share, None if dim == full else intervals[dim]) for dim, share in shares.items()}


def every_run_table(runs: Sequence[tuple[str, Run]]) -> str:
    """Return the best metrics of runs, given with their names, by dimension, with the share of the full one."""
    dims, rows = _dims(best_measured(run.metrics) for _, run in runs), []
    for name, run in runs:
        each, metric = best_measured(run.metrics), primary_metric(run.metrics)
        cells = {
            dim: score(parts(each)[str(dim)], metric) + (f" ({share})" if share != "–" else "")
            for dim, share in _shares(each, metric).items()
        }
        rows.append([name, *(cells.get(dim, "–") for dim in dims)])
    return markdown_table(["model", *map(str, dims)], rows)


def load_published() -> dict[str, Any]:
    """Return the article's values, see `published.yaml`."""
    return yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))


def published_entries(published: dict[str, Any]) -> list[Entry]:
    """Return the article's models."""
    rows = published["models"].items()
    return [Entry(name, AS_PUBLISHED, parameters, value) for name, (parameters, value) in rows]


def why_not_published(run: Run, published: dict[str, Any]) -> str | None:
    """Return why the article's values don't compare with a run's evaluation; None if the data set is the same."""
    evaluation, data, theirs = run.metrics["evaluation"], run.record["config"].get("data") or {}, published["data"]
    # Deduplication, the default here, makes equal pages one document: somewhat fewer of the same pages.
    fewer = theirs["num_documents"] - evaluation["num_documents"]
    same_queries = theirs["num_queries"] * 0.98 <= evaluation["num_queries"] <= theirs["num_queries"]
    if data.get("path") != theirs["path"] or data.get("eval") != theirs["eval"]:
        these = f"of {evaluation['name']}"
    elif not same_queries or not 0 <= fewer <= theirs["num_documents"] * 0.1:
        these = f"of {counts(evaluation)} of it"
    elif primary_metric(run.metrics) != published["metric"]:
        these = "are ranked by another metric"
    else:
        return None
    wanted = f"{theirs['path']} ({theirs['eval']['name']}: {counts(theirs)}, {metric_label(published['metric'])})"
    return f"Published values not shown: they are of {wanted}, and these runs {these}."


def published_note(run: Run, published: dict[str, Any]) -> str:
    """Return where the published values come from, and in what the evaluation differs from the article's."""
    note = f"Published: as reported in [{published['source']}]({published['url']}), not measured here."
    if (theirs := counts(published["data"])) != counts(run.metrics["evaluation"]):
        note += f" The article has {theirs}: it keeps equal pages apart."
    return note
