"""A run's directory as the name of a model: that is the model which the run saved, `final/` in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from experiments.config.errors import ConfigError
from experiments.config.hints import select
from experiments.config.model_files import named
from experiments.runs.metrics_file import metric_label
from experiments.runs.run import is_live, read_record
from experiments.runs.sweeps import read_sweep


def take_finals(config: dict[str, Any]) -> None:
    """Put the model that a run saved in the place of the run's directory, wherever a resolved config names a model.

    Raises:
        ConfigError: If the run saved none, or the directory is a sweep's; it says what to type instead.
    """
    try:
        nodes = [(key, node) for key, node in named(config) if key.endswith(".name")]
    except LookupError:  # of a target that isn't there, which is refused as such
        return
    for key, node in nodes:
        node["name"] = final_of(node["name"], key)


def final_of(name: str, key: str) -> str:
    """Return the folder of the model that a run's directory stands for; any other name as it is."""
    folder = Path(name).expanduser()
    if sweep := read_sweep(folder):
        raise ConfigError(f"{key}={name} is a sweep; {_best_job(sweep, name, key)}")
    if (record := read_record(folder)) is None:
        return name
    if (folder / "final").is_dir():
        return str(Path(name) / "final")
    if record["job"] == "evaluate":
        measured = select(record, "config.model.name")
        how = (
            f"{key}={measured}" if isinstance(measured, str) else f"model={select(record, 'choices.model') or 'NAME'}"
        )
        raise ConfigError(f"{key}={name} is a run that evaluated a model and saved none; type {how}")
    status, is_going_on = record["status"], is_live(folder, record)
    if status == "running":
        status = "still running" if is_going_on else "killed"
    ways = [f"type {key}={checkpoint} (its newest checkpoint)" for checkpoint in _checkpoints(Path(name))[-1:]]
    if status == "finished":
        status = "finished, and final/ is gone"
    elif not is_going_on:
        ways.append(f"type python -m experiments.train trainer.resume={name}, which goes on with it")
    how = ", or ".join(ways) or ("wait" if is_going_on else "train it again")
    raise ConfigError(f"{key}={name}: there is no model of this run ({status}); {how}")


def _checkpoints(run_dir: Path) -> list[Path]:
    """Return a run's checkpoints, the newest last."""
    found = (run_dir / "checkpoints").expanduser().glob("checkpoint-*")
    steps = {int(match[1]): each.name for each in found if (match := re.fullmatch(r"checkpoint-(\d+)", each.name))}
    return [run_dir / "checkpoints" / steps[step] for step in sorted(steps)]


def _best_job(sweep: dict[str, Any], name: str, key: str) -> str:
    """Return what to type for the best of a sweep's models."""
    saved = [job for job in sweep["jobs"] if (Path(name).expanduser() / job["dir"] / "final").is_dir()]
    best = max((job for job in saved if job.get("value") is not None), key=lambda job: job["value"], default=None)
    if best is None:
        return f"none of its jobs has saved a model: see {Path(name) / 'summary.md'}"
    score = f"{metric_label(best['metric'])} {best['value']:.3f}"
    return f"type {key}={Path(name) / best['dir']} (its best run: {score})"
