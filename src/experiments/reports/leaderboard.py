"""The leaderboard of finished runs on one evaluation: its tables, beside the article's values where they compare."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from experiments.config.hints import dotted_keys, select, show
from experiments.config.keys import Role, effective, plays
from experiments.reports.run_report import counts, score
from experiments.reports.tables import energy_text, markdown_table, short_count, shown, time_text
from experiments.runs.metrics_file import best_measured, dimensions, main_values, metric_label, parts, primary_metric
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
    interval: tuple[float, float] | None = None  # 95%
    base: float | None = None  # before training
    run: Run | None = None


def groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Group runs by what they were evaluated on, each group best first: other queries can't be ranked together."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=_value, reverse=True):
        found.setdefault((run.metrics["evaluation"]["fingerprint"], primary_metric(run.metrics)), []).append(run)
    return list(found.values())


def titles(boards: Sequence[Sequence[Run]]) -> list[str]:
    """Return a heading for each group: metric, name and size of the data, and its fingerprint where two are alike."""
    names = []
    for board in boards:
        evaluation = board[0].metrics["evaluation"]
        metric = primary_metric(board[0].metrics)
        kind = "" if metric.startswith("cosine_") else ", reranked"
        names.append(f"{metric_label(metric)} on {evaluation['name']}{kind}: {counts(evaluation)}")
    prints = [board[0].metrics["evaluation"]["fingerprint"] for board in boards]
    return [
        f"{name} (data {data})" if names.count(name) > 1 else name for name, data in zip(names, prints, strict=True)
    ]


def _value(run: Run) -> float:
    return main_values(best_measured(run.metrics))[primary_metric(run.metrics)]


def entries(runs: Sequence[Run]) -> list[Entry]:
    """Return what was measured, best first: each run and, of trained ones, the model before, once for equal values."""
    found = []
    for run, label in zip(runs, labels(runs), strict=True):
        if run.metrics.get("final"):
            base = main_values(run.metrics.get("base")).get(primary_metric(run.metrics))
            found.append(_entry(run, "final", label)._replace(base=base, run=run))
        else:
            found.append(_entry(run, "base", label)._replace(run=run))
    seen = {(entry.run.metrics["model"]["name"], entry.value) for entry in found if entry.run and entry.base is None}
    before = []  # runs whose model as it was has no row yet
    for run in [entry.run for entry in found if entry.run and entry.base is not None]:
        model = run.metrics["model"]["name"]
        if (key := (model, _entry(run, "base", model).value)) not in seen:
            seen.add(key)
            before.append(run)
    names = _told_apart(before, [_model_label(run.metrics["model"]["name"]) for run in before], _OF_BASE)
    found += [_entry(run, "base", name) for run, name in zip(before, names, strict=True)]
    return sorted(found, key=lambda entry: -entry.value)


def _entry(run: Run, tag: str, label: str) -> Entry:
    """Return the row of a run's model before (`base`) or after training (`final`)."""
    metric, values = primary_metric(run.metrics), main_values(run.metrics[tag])
    low, high = values.get(f"{metric}_ci95") or (None, None)
    interval = None if low is None or high is None else (low, high)
    kind = FINETUNED if tag == "final" else AS_IT_IS
    return Entry(label, kind, run.metrics["model"]["parameters"], values[metric], interval)


def labels(runs: Sequence[Run]) -> list[str]:
    """Return a name for each run: the one it was given, or its model's, and what tells it from others of that name."""
    names = [
        # A sweep names a run after what it swept.
        (run.record["config"].get("run_name") or _model_label(run.metrics["model"]["name"])).removeprefix("model=")
        for run in runs
    ]
    return _told_apart(runs, names)


def _told_apart(runs: Sequence[Run], names: Sequence[str], within: tuple[str, ...] = ("",)) -> list[str]:
    """Return the names, those that several runs have with what differs in the config, of keys that begin so."""
    names = [*names]
    for name in {name for name in names if names.count(name) > 1}:
        alike = [i for i, other in enumerate(names) if other == name]
        told = [_differences(runs[i], [runs[k] for k in alike], within) for i in alike]
        for i, difference in zip(alike, told, strict=True):
            if told.count(difference) > 1 or not difference:
                start = datetime.fromisoformat(runs[i].record["start"])
                difference = ", ".join(filter(None, [difference, f"{start:%m-%d %H:%M:%S}"]))
            names[i] = f"{name} {difference}"
    return names


def _model_label(name: str) -> str:
    """Return a model's name; of a run's folder the run's, which is the folder above `final`."""
    path = Path(name)
    if path.name == "final" and len(path.parts) > 1:
        return f"{path.parent.name}/final"
    return name if name.count("/") < 2 else path.name


def _differences(run: Run, others: Sequence[Run], within: tuple[str, ...]) -> str:
    """Return the config keys, with their values, in which a run differs from any of the others."""
    configs = [effective(other.record["config"]) for other in others]
    keys = dict.fromkeys(key for config in configs for key in dotted_keys(config) if key.startswith(within))
    found = {}
    for key in keys:
        # Not where a run's model lies, and each seed once.
        if key == "model.name" or key.startswith("model.card") or (plays(key, Role.SEED) and key != "seed"):
            continue
        values = [select(config, key) for config in configs]
        if not any(isinstance(value, dict) for value in values) and any(value != values[0] for value in values):
            found[key] = select(run.record["config"], key)
    if len(found) > 4:  # other options altogether
        return ""
    return ", ".join(f"{key.rpartition('.')[2]}={show(value)}" for key, value in found.items())


def models_table(found: Sequence[Entry], metric: str) -> str:
    """Return the article's first table, best first: model, parameters, metric; and what each run cost."""
    headers = ["model", "what", "parameters", f"{metric_label(metric)} [95% interval]", "dimensions"]
    rows = []
    for entry in found:
        value = f"{entry.value:.3f}" + ("" if entry.interval is None else " [{:.3f}, {:.3f}]".format(*entry.interval))
        row = [entry.label, entry.kind, short_count(entry.parameters), value]
        rows.append([*row, *(_cost(entry.run) if entry.run else ["–"] * 4)])
    return markdown_table([*headers, "time", "energy", "run"], rows)


def _cost(run: Run) -> list[str]:
    dims = dimensions(best_measured(run.metrics))
    saved = run.metrics["model"].get("truncate_dim")
    dimension = "–" if not dims else str(dims[0]) if saved in (None, dims[0]) else f"{dims[0]}, saved {saved}"
    energy = run.metrics.get("energy")
    cost = energy_text(energy["energy_kwh"]) if energy else "–"
    return [dimension, time_text(duration_s(run.record)), cost, shown(run.path)]


def dimensions_table(run: Run, published: dict[str, Any] | None = None) -> str:
    """Return the article's second table: dimension against base and finetuned, with the share of the full one."""
    metric = primary_metric(run.metrics)
    base = "base" if run.metrics.get("final") else AS_IT_IS
    measured = {name: run.metrics[key] for key, name in (("base", base), ("final", FINETUNED)) if run.metrics.get(key)}
    if published:
        for k, name in enumerate(("base", FINETUNED)):
            values = {str(dim): {metric: row[k]} for dim, row in published["dimensions"].items()}
            measured[f"{AS_PUBLISHED} {name}"] = {"dimensions": values}
    dims = _dims(measured.values())
    headers, rows = ["dimensions"], [[str(dim)] for dim in dims]
    for name, each in measured.items():
        headers += [name if name.startswith(AS_PUBLISHED) else f"{name} [95% interval]", "% of full"]
        for dim, row in zip(dims, rows, strict=True):
            row += [score(parts(each).get(str(dim)), metric, interval=True), _share(each, dim, metric)]
    return markdown_table(headers, rows)


def _dims(measured: Iterable[dict[str, Any]]) -> list[int]:
    return sorted({dim for each in measured for dim in dimensions(each)}, reverse=True)


def _share(measured: dict[str, Any], dim: int, metric: str) -> str:
    full = main_values(measured)[metric]
    value = parts(measured).get(str(dim), {}).get(metric)
    return "–" if value is None or not full or math.isnan(full) else f"{value / full:.1%}"


def every_run_table(runs: Sequence[Run], names: Sequence[str]) -> str:
    """Return each run's best metrics by dimension, with the share of its full one."""
    best = [best_measured(run.metrics) for run in runs]
    dims, rows = _dims(best), []
    for run, name, each in zip(runs, names, best, strict=True):
        metric, row = primary_metric(run.metrics), [name]
        for dim in dims:
            values = parts(each).get(str(dim))
            row.append(f"{score(values, metric)} ({_share(each, dim, metric)})" if values else "–")
        rows.append(row)
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
    evaluation, data = run.metrics["evaluation"], run.record["config"].get("data") or {}
    theirs = published["data"]
    wanted = f"{theirs['path']} ({theirs['eval']['name']}: {counts(theirs)}, {metric_label(published['metric'])})"
    if data.get("path") != theirs["path"] or data.get("eval") != theirs["eval"]:
        return f"published values not shown: they are of {wanted}, and these runs of {evaluation['name']}"
    # Deduplication, the default here, makes equal pages one document: somewhat fewer of the same pages.
    fewer = theirs["num_documents"] - evaluation["num_documents"]
    same_queries = theirs["num_queries"] * 0.98 <= evaluation["num_queries"] <= theirs["num_queries"]
    if not same_queries or not 0 <= fewer <= theirs["num_documents"] * 0.1:
        return f"published values not shown: they are of {wanted}, and these runs of {counts(evaluation)} of it"
    if primary_metric(run.metrics) != published["metric"]:
        return f"published values not shown: they are of {wanted}, and these runs are ranked by another metric"
    return None


def published_note(run: Run, published: dict[str, Any]) -> str:
    """Return where the published values come from, and in what the evaluation differs from the article's."""
    evaluation, theirs = run.metrics["evaluation"], published["data"]
    note = f"Published: as reported in [{published['source']}]({published['url']}), not measured here."
    if counts(evaluation) != counts(theirs):
        note += f" The article has {counts(theirs)}: it keeps equal pages apart."
    return note
