"""The report of one run: report.md and its figures; its answer is in `reports.run_answer`."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import Any

import yaml

from experiments.config.hints import dotted_keys, select, show
from experiments.reports import figures, run_answer, tables
from experiments.reports.page import Page, render
from experiments.reports.tables import Table, score, shown
from experiments.runs.files import load_json
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
_RESOLVED = ("dtype", "attn_implementation")  # what `auto` became; the pixel bounds are saved with the model
_SCORED = ("data", "evaluator", "matryoshka")  # the groups that decide what is scored
_SAVED = {"CrossEncoder": "experiment=reranker"}  # what loads a saved model that isn't an embedding model


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
    if history := (run.metrics.get("training") or {}).get("history"):
        figures.training_curve(history, page.figure("training.png", "Training loss and evaluation by step"))
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
        "precision": _precision_table(run.metrics, metric),
        "all_metrics": _all_metrics(run.metrics),
        "seconds": duration_s(run.record),
        # A query has one right page, and one that differs from it in the attribute.
        "attributes": attributes + [["chance", "50.0%"]],
        "versions": [f"{name} {version}" for name, version in run.record["versions"].items() if version],
        "commands": _commands(run),
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
    if section not in best or not (dimensions(best) or answered_by(metrics) != metric):
        return None
    headers, rows = run_answer.values_by_part(metrics, metric, section)
    return ["direction", *headers], rows


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
        found[key] = [[name, *(score(column, name) for column in columns)] for name in names]
    return found


def _commands(run: Run) -> dict[str, str]:
    """Return the shell lines that repeat, take up, load and evaluate the run, by what each does."""
    place, commands = shlex.quote(shown(run.path)), {"The same again": run.record["command"]}
    overrides = [each for each in _hydra(run.path, "overrides.yaml") or [] if not each.startswith("trainer.resume")]
    runtime = (_hydra(run.path, "hydra.yaml") or {}).get("hydra", {}).get("runtime", {})
    own = _own_options(runtime.get("config_sources", []))
    if run.record["job"] == "train":
        resume = shlex.join(["python", "-m", "experiments.train", *own, *overrides])
        commands["Go on with this run, should it have been killed"] = f"{resume} trainer.resume={place}"
    if (final := run.path / "final").is_dir():
        kind = _kind(run)
        code = f"from sentence_transformers import {kind}; model = {kind}({json.dumps(shown(final))})"
        commands["Load the model"] = f"python -i -c {shlex.quote(code)}"
        commands["Evaluate the saved model again"] = evaluation_line(run, final)
    if (better := better_checkpoint(run)) is not None:
        commands["Evaluate the checkpoint that was better"] = evaluation_line(run, better)
    if dashboard := run.record.get("dashboard"):
        commands["The dashboard"] = dashboard
    return commands


def better_checkpoint(run: Run) -> Path | None:
    """Return the checkpoint that was better than a model that training made worse, if it is still there."""
    best = (run.metrics.get("verdict") or {}).get("best")
    folder = run.path / "checkpoints" / f"checkpoint-{best['step']}" if best else None
    return folder if folder is not None and folder.is_dir() else None


def evaluation_line(run: Run, folder: Path) -> str:
    """Return the shell line that evaluates a model that the run saved as the run evaluated its own."""
    overrides = _hydra(run.path, "overrides.yaml") or []
    runtime = (_hydra(run.path, "hydra.yaml") or {}).get("hydra", {}).get("runtime", {})
    sources, choices = runtime.get("config_sources", []), runtime.get("choices", {})
    option = _SAVED.get(_kind(run), "model=saved")
    groups = _SCORED if option == "model=saved" else ("data", "evaluator")
    data = [f"{group}={choices[group]}" for group in groups if choices.get(group)]
    data += [f"model.{key}={value}" for key in _RESOLVED if (value := run.metrics["model"].get(key))]
    data += _recipe_values(run, sources, choices.get("experiment"))
    typed = ("seed=", *(f"{group}." for group in _SCORED))
    data += [each for each in overrides if each.lstrip("+~").startswith(typed)]
    own = _own_options(sources)
    return shlex.join(["python", "-m", "experiments.evaluate", *own, option, f"model.name={shown(folder)}", *data])


def _kind(run: Run) -> str:
    """Return the library's class that loads the saved model."""
    saved = load_json(run.path / "final" / "config_sentence_transformers.json") or {}
    return saved.get("model_type", "SentenceTransformer")


def _own_options(sources: list[dict[str, str]]) -> list[str]:
    return [f"--config-dir={source['path']}" for source in sources if source["provider"] == "command-line"]


def _recipe_values(run: Run, sources: list[dict[str, str]], recipe: str | None) -> list[str]:
    """Return what a recipe sets of data, evaluator and dimensions, as overrides; its model is saved."""
    files = [Path(source["path"]) / "experiment" / f"{recipe}.yaml" for source in sources]
    file = next((file for file in files if file.is_file()), None)
    found: dict[str, Any] = (yaml.safe_load(file.read_text(encoding="utf-8")) if file else None) or {}
    keys = dotted_keys({group: found[group] for group in _SCORED if group in found})
    values = {key: select(run.record["config"], key) for key in keys}
    return [f"++{key}={show(value)}" for key, value in values.items() if not isinstance(value, dict)]


def _hydra(run_dir: Path, name: str) -> Any:
    file = run_dir / ".hydra" / name
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else None
