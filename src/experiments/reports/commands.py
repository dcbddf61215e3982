"""The shell lines of a report: what repeats the run, goes on with it, loads its model and evaluates that again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from experiments.config.hints import dotted_keys, quoted, select, show
from experiments.config.options import CONF, CONFIG_NAME
from experiments.config.signatures import signature
from experiments.reports.tables import shown
from experiments.runs.files import load_json
from experiments.runs.run import Run

BETTER = "Evaluate the checkpoint that was better"
_SAVED = {"CrossEncoder": "model=reranker"}  # the option that loads a saved model, if not model=saved
_RESOLVED = ("dtype", "attn_implementation")  # what `auto` became; the pixel bounds are saved with the model
_SCORED = ("data", "evaluator")  # the groups that decide what is scored; the model's card says at which dimensions


def commands(run: Run) -> dict[str, str]:
    """Return the shell lines by what each does."""
    place, found = quoted(shown(run.path)), {"The same again": run.record["command"]}
    overrides = [each for each in _hydra(run.path, "overrides.yaml") or [] if not each.startswith("trainer.resume")]
    runtime = (_hydra(run.path, "hydra.yaml") or {}).get("hydra", {}).get("runtime", {})
    sources = runtime.get("config_sources", [])
    own = [f"--config-dir={source['path']}" for source in sources if source["provider"] == "command-line"]
    if run.record["job"] == "train":
        resume = shlex.join(["python", "-m", "experiments.train", *own, *overrides, f"trainer.resume={place}"])
        found["Go on with this run, should it have been killed"] = resume
    if (final := run.path / "final").is_dir():
        kind = (load_json(final / "config_sentence_transformers.json") or {}).get("model_type", "SentenceTransformer")
        code = f"from sentence_transformers import {kind}; model = {kind}({json.dumps(shown(final))})"
        found["Load the model"] = f"python -i -c {shlex.quote(code)}"
        folders = [Path(source["path"]) for source in sources]
        chosen = _options(runtime.get("choices", {}), is_reranker=kind in _SAVED)
        chosen += _values(run, folders, runtime.get("choices", {}).get("experiment"), overrides)
        evaluate = ["python", "-m", "experiments.evaluate", *own, _SAVED.get(kind, "model=saved")]
        found["Evaluate the saved model again"] = shlex.join([*evaluate, f"model.name={place}", *chosen])
        if (better := _better_checkpoint(run)) is not None:
            found[BETTER] = shlex.join([*evaluate, f"model.name={quoted(shown(better))}", *chosen])
    if dashboard := run.record.get("dashboard"):
        found["The dashboard"] = dashboard
    return found


def _better_checkpoint(run: Run) -> Path | None:
    """Return the checkpoint that was better than the model that training made worse, if it is still there."""
    best = (run.metrics.get("verdict") or {}).get("best")
    folder = run.path / "checkpoints" / f"checkpoint-{best['step']}" if best else None
    return folder if folder is not None and folder.is_dir() else None


def _options(choices: dict[str, str], *, is_reranker: bool) -> list[str]:
    """Return the options of what is scored that aren't the default, and that no dimension was trained for."""
    config = yaml.safe_load((CONF / f"{CONFIG_NAME}.yaml").read_text(encoding="utf-8"))
    default = {group: each[group] for each in config["defaults"] for group in _SCORED if group in each}
    usual = default | ({"evaluator": "reranking"} if is_reranker else {})
    chosen = {group: choices.get(group, usual[group]) for group in _SCORED}
    found = [f"{group}={option}" for group, option in chosen.items() if option != default[group]]
    return [*found, "matryoshka=none"] if choices.get("matryoshka") == "none" and not is_reranker else found


def _values(run: Run, folders: Sequence[Path], recipe: str | None, overrides: Sequence[str]) -> list[str]:
    """Return the values that decide what is scored, and how: of the model, the recipe, and those typed."""
    model = run.record["config"].get("model") or {}
    found = [f"model.{key}={value}" for key in _RESOLVED if (value := run.metrics["model"].get(key))]
    found += ["+model.trust_remote_code=true"] if model.get("trust_remote_code") else []
    typed = ("seed=", *(f"{group}." for group in _SCORED))
    kept = _recipe_values(run, folders, recipe)
    kept += [each for each in overrides if each.lstrip("+~").startswith(typed)]
    return found + [each for each in kept if not each.lstrip("+~").startswith(_of_training(run))]


def _of_training(run: Run) -> tuple[str, ...]:
    """Return the keys of a run's data, as they are typed, that its evaluation doesn't depend on."""
    data = run.record["config"].get("data") or {}
    if "_target_" not in data or "evaluation_only" not in signature(data["_target_"]).parameters:
        return ()
    return ("data.num_train_rows=", "data.train.", *(["data.train="] if data.get("eval") is not None else []))


def _recipe_values(run: Run, folders: Sequence[Path], recipe: str | None) -> list[str]:
    """Return what a recipe sets of data and evaluator, as overrides; its model is saved."""
    files = [folder / "experiment" / f"{recipe}.yaml" for folder in folders]
    file = next((file for file in files if file.is_file()), None)
    found: dict[str, Any] = (yaml.safe_load(file.read_text(encoding="utf-8")) if file else None) or {}
    keys = dotted_keys({group: found[group] for group in _SCORED if group in found})
    values = {key: select(run.record["config"], key) for key in keys}
    return [f"++{key}={show(value)}" for key, value in values.items() if not isinstance(value, dict)]


def _hydra(run_dir: Path, name: str) -> Any:
    file = run_dir / ".hydra" / name
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else None
