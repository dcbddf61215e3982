"""The report of one run: report.md and its figures."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import Any

import jinja2
import yaml

from experiments.reports import figures
from experiments.reports.tables import aligned, energy_text, markdown_table, short_count, shown, time_text
from experiments.runs.files import load_json
from experiments.runs.metrics_file import (
    PRIMARY_METRIC,
    best_measured,
    dimensions,
    main_values,
    metric_label,
    parts,
    primary_metric,
    retention,
)
from experiments.runs.run import Run, duration_s, load_run

_BYTES = {"float32": 4.0, "int8": 1.0, "binary": 1 / 8}  # of one dimension
_SAVED = {"CrossEncoder": "experiment=reranker"}  # what loads a saved model that isn't an embedding model
_TEMPLATES = jinja2.Environment(  # of Markdown: nothing is escaped
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.globals["table"] = markdown_table
_PARTS = {2: "half", 4: "a quarter of", 8: "an eighth of", 16: "a sixteenth of"}


def write_run_report(run_dir: Path) -> str:
    """Write `report.md` and `figures/*.png` of an evaluated run, finished or about to be.

    Returns:
        The text of report.md.

    Raises:
        ConfigError: If the directory holds no run.json or metrics.json.
    """
    run = load_run(run_dir)
    drawn = {}
    if dimensions(best_measured(run.metrics)):
        evaluation = run.metrics["evaluation"]
        title = f"{evaluation['name']}: {counts(evaluation)}, 95% intervals"
        figures.dimensions_against_quality(run.metrics, title, run_dir / "figures" / "matryoshka.png")
        drawn["matryoshka.png"] = "Quality against the number of dimensions"
    if history := (run.metrics.get("training") or {}).get("history"):
        figures.training_curve(history, run_dir / "figures" / "training.png")
        drawn["training.png"] = "Training loss and evaluation by step"
    text = _TEMPLATES.get_template("report.md.jinja").render(_content(run), figures=drawn)
    (run_dir / "report.md").write_text(text, encoding="utf-8")
    return text


def _content(run: Run) -> dict[str, Any]:
    """Return what `report.md.jinja` says."""
    best, metric, measured = best_measured(run.metrics), primary_metric(run.metrics), _measured(run.metrics)
    return {
        "name": run.record["name"],
        "headline": headline(run.metrics),
        "retention": retention_sentence(best, metric),
        "selected": run.metrics.get("selected_on_this_set"),
        "comparison": comparison_table(run.metrics),
        "metric": metric_label(metric),
        "full_dim": next(iter(dimensions(best)), None),
        "columns": [*measured],
        "with_intervals": [f"{each} [95% interval]" for each in measured],
        "directions": _directions(run.metrics),
        "precision": _precision_table(best, metric),
        "attributes": [[name, f"{share:.1%}"] for name, share in (run.metrics.get("attributes") or {}).items()],
        "all_metrics": _all_metrics(run.metrics),
        "facts": _facts(run),
        "commands": _commands(run),
    }


def headline(metrics: dict[str, Any]) -> str:
    """Return the result in a line: metric before and after, interval, and on what it was measured."""
    metric, evaluation = primary_metric(metrics), metrics["evaluation"]
    after = score(main_values(best_measured(metrics)), metric, interval=True)
    base = main_values(metrics.get("base"))
    before = f"{score(base, metric)} → " if metrics.get("final") and base else ""
    return f"{metric_label(metric)} {before}{after} on {evaluation['name']}: {counts(evaluation)}"


def retention_sentence(measured: dict[str, Any], metric: str = PRIMARY_METRIC) -> str:
    """Return a sentence such as "48 of 96 dimensions keep 98.9% at half the bytes"; empty with one or no dimension."""
    if len(dimensions(measured)) < 2:
        return ""
    full, *smaller = dimensions(measured)
    dim = min(smaller, key=lambda each: abs(each - full / 2))
    size = (
        f"{_PARTS[full // dim]} the bytes"
        if full % dim == 0 and full // dim in _PARTS
        else f"{dim / full:.0%} of the bytes"
    )
    return f"{dim} of {full} dimensions keep {_percent(retention(measured, metric)[dim])} at {size}."


def summary_table(metrics: dict[str, Any]) -> str:
    """Return the table that a run prints at its end, aligned for a terminal: a row per dimension or direction."""
    return aligned(*_comparison(metrics))


def _measured(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: metrics[key] for key, name in (("base", "base"), ("final", "finetuned")) if metrics.get(key)}


def counts(evaluation: dict[str, Any]) -> str:
    """Return how many queries and documents an evaluation has, in words."""
    return f"{evaluation['num_queries']:,} queries, {evaluation['num_documents']:,} documents"


def score(values: dict[str, Any] | None, metric: str, *, interval: bool = False) -> str:
    """Return a rounded metric of a part of an evaluation, a dash for none."""
    if not values or values.get(metric) is None:
        return "–"
    bounds = values.get(f"{metric}_ci95") if interval else None
    return f"{values[metric]:.3f}" + (f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else "")


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{share:.1%}"


def comparison_table(metrics: dict[str, Any]) -> str:
    """Return base against finetuned at each dimension or direction as Markdown, for the report and the model card."""
    headers, rows = _comparison(metrics)
    if dims := dimensions(best_measured(metrics)):
        return markdown_table(
            [*headers, "bytes"], [[*row, f"{4 * dim:,}"] for row, dim in zip(rows, dims, strict=True)]
        )
    return markdown_table(headers, rows)


def _comparison(metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    metric, best, measured = primary_metric(metrics), best_measured(metrics), _measured(metrics)
    dims = dimensions(best)
    shown = {metric: "" if dims else ", positives present"}
    if f"end_to_end_{metric}" in main_values(best):
        shown[f"end_to_end_{metric}"] = ", end to end"
    columns = [(name, each) for name in shown for each in measured]
    headers = ["dimensions" if dims else "direction"]
    headers += [f"{each}{shown[name]} [95% interval]" for name, each in columns]
    rows = [
        [key, *(score(parts(measured[each]).get(key), name, interval=True) for name, each in columns)]
        for key in parts(best)
    ]
    if f"retriever_{metric}" in main_values(best):
        headers.append("retriever alone")
        rows = [[*row, score(parts(best)[row[0]], f"retriever_{metric}")] for row in rows]
    if not dims:
        return headers, rows
    kept = retention(best, metric)
    return [*headers, "% of full"], [[*row, _percent(kept[dim])] for row, dim in zip(rows, dims, strict=True)]


def _directions(metrics: dict[str, Any]) -> list[list[str]]:
    """Return a row for each direction that the dimensions pool; a reranker's are in the first table."""
    metric, best, measured = primary_metric(metrics), best_measured(metrics), _measured(metrics).values()
    if "dimensions" not in best:
        return []
    return [
        [name, *(score(each.get("directions", {}).get(name), metric, interval=True) for each in measured)]
        for name in best.get("directions", {})
    ]


def _precision_table(measured: dict[str, Any], metric: str) -> tuple[list[str], list[list[str]]] | None:
    if not dimensions(measured):
        return None
    names = [name for name in _BYTES if name == "float32" or name in main_values(measured)]
    rows = []
    for dim, found in measured["dimensions"].items():
        row = [dim]
        for name in names:
            values = found if name == "float32" else found.get(name)
            row += [score(values, metric), f"{math.ceil(int(dim) * _BYTES[name]):,}"]
        rows.append(row)
    return ["dimensions", *(header for name in names for header in (name, "bytes"))], rows


def _all_metrics(metrics: dict[str, Any]) -> dict[str, list[list[str]]]:
    """Return rows of every metric, at the full dimension or for each direction."""
    best, measured, found = best_measured(metrics), _measured(metrics).values(), {}
    for key, values in [*parts(best).items()][: 1 if dimensions(best) else None]:
        names = [name for name, value in values.items() if isinstance(value, (int, float))]
        found[key] = [[name, *(score(parts(each).get(key), name) for each in measured)] for name in names]
    return found


def _facts(run: Run) -> list[tuple[str, str]]:
    """Return the lines of "What ran": model, data, hardware, versions, cost."""
    fields, metrics = run.record, run.metrics
    hardware, git = fields["hardware"], fields["git"]
    facts: dict[str, Any] = {f"model {key.replace('_', ' ')}": value for key, value in metrics["model"].items()}
    facts["model parameters"] = short_count(metrics["model"]["parameters"])
    facts["data fingerprint"] = fields["fingerprint"]
    facts["seed"] = fields["seed"]
    facts["CPU"] = f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB"
    facts["GPU"] = ", ".join(hardware["gpu"] or ["none"])
    facts["versions"] = ", ".join(f"{name} {version}" for name, version in fields["versions"].items() if version)
    facts["git revision"] = git and git["revision"] + (" with uncommitted changes" if git["dirty"] else "")
    facts["started"] = fields["start"]
    attempts = len(fields["attempts"])
    facts["time"] = time_text(duration_s(fields)) + (f" in {attempts} attempts" if attempts > 1 else "")
    if metrics.get("base_from_cache"):
        facts["base evaluation"] = "embeddings from the cache: what they cost is in another run's time and energy"
    if energy := metrics.get("energy"):
        facts["energy"] = f"{energy_text(energy['energy_kwh'])} ({energy['method']})"
        facts["CO2"] = f"{1000 * energy['emissions_kg']:.3g} g with the electricity of {energy['country']}"
    return [(name, _text(value)) for name, value in facts.items() if value is not None]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)


def _commands(run: Run) -> list[str]:
    """Return the shell lines that repeat, take up, load and evaluate the run, each under a comment."""
    place = shlex.quote(shown(run.path))
    lines = ["# The same again", run.record["command"]]
    overrides = [each for each in _hydra(run.path, "overrides.yaml") or [] if not each.startswith("trainer.resume")]
    runtime = (_hydra(run.path, "hydra.yaml") or {}).get("hydra", {}).get("runtime", {})
    sources = runtime.get("config_sources", [])
    own = [f"--config-dir={source['path']}" for source in sources if source["provider"] == "command-line"]
    if run.record["job"] == "train":
        resume = shlex.join(["python", "-m", "experiments.train", *own, *overrides])
        lines += ["# Go on with this run, should it have been killed", f"{resume} trainer.resume={place}"]
    if (final := run.path / "final").is_dir():
        kind = (load_json(final / "config_sentence_transformers.json") or {}).get("model_type", "SentenceTransformer")
        code = f"from sentence_transformers import {kind}; model = {kind}({json.dumps(shown(final))})"
        lines += ["# Load the model", f"python -i -c {shlex.quote(code)}"]
        choices = runtime.get("choices", {})
        data = [f"data={choices['data']}"] if choices.get("data") else []
        option = _SAVED.get(kind, "model=saved")
        if option == "model=saved" and choices.get("matryoshka"):
            data.append(f"matryoshka={choices['matryoshka']}")
        data += [each for each in overrides if each.lstrip("+~").startswith(("data.", "evaluator.", "matryoshka."))]
        again = ["python", "-m", "experiments.evaluate", *own, option, f"model.name={shown(final)}", *data]
        lines += ["# Evaluate the saved model again", shlex.join(again)]
    if dashboard := run.record.get("dashboard"):
        lines += ["# The dashboard", dashboard]
    return lines


def _hydra(run_dir: Path, name: str) -> Any:
    file = run_dir / ".hydra" / name
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else None
