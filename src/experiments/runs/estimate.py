"""What a job will cost, from past runs of the same model on the same data."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import mean
from typing import Any

from experiments.config.hints import dotted_keys, select
from experiments.config.keys import Role, effective, keys_of
from experiments.runs.metrics_file import OldRecordError
from experiments.runs.run import Run, duration_s, load_finished
from experiments.runs.sweeps import read_sweep, sweep_dirs

_MAX_START_S = 300.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Past:
    """A finished training run: its resolved config, its metrics, and the seconds of its whole process."""

    config: dict[str, Any]
    metrics: dict[str, Any]
    wall_s: float


@dataclass(frozen=True)
class Estimate:
    """What a job is expected to take: seconds of its whole process, energy and CO2 where they were measured."""

    seconds: float
    energy_kwh: float | None
    emissions_kg: float | None
    basis: str  # how many past runs, how alike, how far apart
    spread: float  # largest deviation of a past run from the estimate, as a share of it; NaN where one run tells none
    unlike: tuple[str, ...]  # keys in which the past runs differ, but seeds and what the estimate scales by


def past_runs(roots: Sequence[Path]) -> list[Past]:
    """Return the training runs under the directories that finished at the first attempt."""
    walls = {}
    for folder in sweep_dirs(roots):
        for job in (read_sweep(folder) or {"jobs": []})["jobs"]:
            walls[(folder / job["dir"]).resolve()] = job.get("wall_s")
    try:
        runs = load_finished(roots)
    except OldRecordError as error:
        logger.warning("no estimate: %s", error)
        return []
    found = []
    for run in runs:
        if run.record["job"] == "train" and len(run.record["attempts"]) == 1 and run.metrics.get("training"):
            wall_s = walls.get(run.path.resolve()) or duration_s(run.record) + _start_s(run)
            found.append(Past(run.record["config"], run.metrics, wall_s))
    return found


def _start_s(run: Run) -> float:
    """Return how long a run imported before its record began: since Hydra wrote the config beside it."""
    try:
        composed = (run.path / ".hydra" / "config.yaml").stat().st_mtime
    except OSError:
        return 0.0
    seconds = datetime.fromisoformat(run.record["start"]).timestamp() - composed
    return seconds if 0 < seconds < _MAX_START_S else 0.0  # a copied folder has other times


def estimate(config: dict[str, Any], past: Iterable[Past]) -> Estimate | None:
    """Return what a training job will cost by the past runs most like it; None if none has its model and data.

    A past run's time is split into steps, evaluations and the rest. Steps grow with rows, epochs, pages in a row and
    their pixels; an evaluation with its queries and pixels, and there are more or fewer of them; the rest stays.
    """
    distances = [(_distance(config, each.config), each) for each in past if _is_alike(config, each.config)]
    if not distances:
        return None
    least = min(distance for distance, _ in distances)
    nearest = [each for distance, each in distances if distance == least]
    seconds = [_scaled(config, each) for each in nearest]
    expected = mean(seconds)
    spread = max(abs(each - expected) for each in seconds) / expected if len(seconds) > 1 else math.nan
    rates = [rate for each in nearest if (rate := _energy_per_second(config, each))]
    kwh = mean(kwh for kwh, _ in rates) * expected if rates else None
    kg = mean(kg for _, kg in rates) * expected if rates else None
    unlike = (*_differing(config, nearest[-1].config),)
    steps, evaluations = _factors(config, nearest[-1].config)
    basis = [f"{len(nearest)} past run{'s' * (len(nearest) > 1)}" + ("" if math.isnan(spread) else f" ±{spread:.0%}")]
    basis += [] if math.isclose(steps, 1) else [f"steps ×{steps:.3g}"]
    basis += [] if math.isclose(evaluations, 1) else ["other evaluation"]
    basis += ["other settings"] if unlike else []
    return Estimate(expected, kwh, kg, ", ".join(basis), spread, unlike)


def _is_alike(config: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether a run's time tells another's: the same work on the same data, rows counted in both or neither."""
    # Without seeds: a twin's name is a node with a seed in it.
    ours, theirs = (effective(each, Role.SEED) for each in (config, other))
    return all(select(ours, key) == select(theirs, key) for key in keys_of(Role.SAME_COST)) and all(
        (select(config, key) is None) == (select(other, key) is None)
        for key in ("data.num_train_rows", "data.num_eval_rows")
    )


def _distance(config: dict[str, Any], other: dict[str, Any]) -> float:
    """Return how unlike two configs are, for their cost: differing keys, and the factor between their work."""
    return len([*_differing(config, other)]) + sum(abs(math.log2(factor)) for factor in _factors(config, other))


def _differing(config: dict[str, Any], other: dict[str, Any]) -> Iterator[str]:
    """Yield the keys that may cost time, but those that are scaled by, in which two configs differ."""
    ours, theirs = (effective(each, Role.SEED | Role.SCALES_COST | Role.NO_COST) for each in (config, other))
    for key in dict.fromkeys((*dotted_keys(ours), *dotted_keys(theirs))):
        values = select(ours, key), select(theirs, key)
        if values[0] != values[1] and not any(isinstance(value, dict) for value in values):
            yield key
    for group in ("loss", "evaluator"):
        if select(ours, f"{group}._target_") != select(theirs, f"{group}._target_"):
            yield group


def _scaled(config: dict[str, Any], past: Past) -> float:
    """Return the seconds of a job by one past run."""
    history = past.metrics["training"]["history"]
    evaluations = [entry["eval_runtime"] for entry in history if entry.get("eval_runtime") is not None]
    training = sum(entry["train_runtime"] for entry in history if entry.get("train_runtime") is not None)
    one = mean(evaluations) if evaluations else 0.0
    steps = max(0.0, training - sum(evaluations))
    rest = max(0.0, past.wall_s - steps - one * (2 + len(evaluations)))  # base and final beside those in between
    count = 2 + (_num_evaluations(config) if evaluations else 0)
    steps_factor, evaluation_factor = _factors(config, past.config)
    return rest + steps * steps_factor + one * count * evaluation_factor


def _energy_per_second(config: dict[str, Any], past: Past) -> tuple[float, float] | None:
    """Return kWh and kg CO2 by second of the process; None where a part is missing, or in another country."""
    energy = past.metrics.get("energy")
    if not energy or "without" in energy["method"] or energy["country"] != select(config, "tracking.country_iso_code"):
        return None
    return energy["energy_kwh"] / past.wall_s, energy["emissions_kg"] / past.wall_s


def _factors(config: dict[str, Any], other: dict[str, Any]) -> tuple[float, float]:
    """Return how much more one config's work is than another's: that of all steps, and of one evaluation."""
    (steps, evaluation), (other_steps, other_evaluation) = _work(config), _work(other)
    return steps / other_steps, evaluation / other_evaluation


def _work(config: dict[str, Any]) -> tuple[float, float]:
    """Return what the time of all steps, and of an evaluation, grows with: pixels seen; unknown rows count as one."""
    trainer, data = config["trainer"], config["data"]
    rows = (data.get("num_train_rows") or 1) * trainer.get("num_train_epochs", 1)
    if max_steps := _max_steps(trainer):
        rows = max_steps * _batch_size(trainer)
    low, high = (select(config, f"model.{key}") for key in ("min_pixels", "max_pixels"))
    pixels = math.prod(data["page_size"]) if data.get("page_size") else high or 1
    pixels = max(low or 1, min(pixels, high or pixels))  # of a page as the model sees it, or the most it may have
    return rows * (1 + (data.get("num_negatives") or 0)) * pixels, (data.get("num_eval_rows") or 1) * pixels


def _max_steps(trainer: dict[str, Any]) -> int | None:
    """Return the number of steps that is given in place of epochs, if one is."""
    max_steps = trainer.get("max_steps") or -1
    return max_steps if max_steps > 0 else None


def _batch_size(trainer: dict[str, Any]) -> int:
    return trainer["per_device_train_batch_size"] * trainer.get("gradient_accumulation_steps", 1)


def _num_evaluations(config: dict[str, Any]) -> float:
    """Return how often a training is evaluated on its way."""
    trainer = config["trainer"]
    epochs, strategy = trainer.get("num_train_epochs", 1), trainer.get("eval_strategy", "no")
    every = trainer.get("eval_steps") or trainer.get("logging_steps", 500)
    if strategy == "epoch":
        return math.ceil(epochs)
    if strategy != "steps":
        return 0
    if every < 1:
        return math.ceil(1 / every)
    rows = config["data"].get("num_train_rows") or 0
    return (_max_steps(trainer) or math.ceil(rows / _batch_size(trainer)) * epochs) // every
