"""Names of runs and sweeps: what differs between those that are seen together, in few words.

The launcher names jobs, Trackio its runs and the reports their rows by the same functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from experiments.config.hints import dotted_keys, select, show
from experiments.config.keys import Role, effective, plays
from experiments.runs.run import Run
from experiments.runs.sweeps import read_sweep

_SPEAKING = ("model", "data", "experiment")  # groups whose options say what they are without the group's name
_MOST = 4  # keys in a name: runs that differ in more have other options altogether


def last_part(key: str) -> str:
    """Return `mini_batch_size` of `loss.mini_batch_size`."""
    return key.rpartition(".")[2]


def short_keys(keys: Iterable[str]) -> dict[str, str]:
    """Return the last part of each key, or all of it where several end alike."""
    last = {key: last_part(key) for key in keys}
    return {key: name if [*last.values()].count(name) == 1 else key for key, name in last.items()}


def short_value(value: str, limit: int = 24) -> str:
    """Return a value as it is read beside others: of a path or a name on the Hub the last part."""
    value = value.rstrip("/")
    folder, _, name = value.rpartition("/")
    if name == "final":  # the model of a run
        name = f"{folder.rpartition('/')[2]}/{name}"
    return name if len(name) <= limit else f"{name[: limit - 1]}…"


def point_names(points: Sequence[Mapping[str, str]]) -> list[str]:
    """Return a name for each job of a sweep, given the value of each swept key: `mini_batch_size=4, max_pixels=4096`.

    Keys that have one value in all of several jobs are left out; of `model` and `data` the option says enough.
    """
    keys = [*dict.fromkeys(key for point in points for key in point)]
    told = [key for key in keys if len({point.get(key) for point in points}) > 1] or keys
    for shorten in (short_value, str):  # whole values where the short ones are alike
        names = [", ".join(_assigned(point, told, shorten)) for point in points]
        if len({*names}) == len({tuple(point.get(key) for key in told) for point in points}):
            break
    return names


def job_name(point: Mapping[str, str]) -> str:
    """Return a job's name, by which a run's record knows it: `mini_batch_size=4-max_pixels=4096`."""

    def safe(value: str) -> str:
        return shortened(re.sub(r"[^\w.+-]+", "_", value).strip("_"), 60)

    return joined(_assigned(point, [*point], safe), 120)


def tracked_name(run_dir: Path, name: str) -> str:
    """Return the name by which Trackio knows a run, such as `4 16384 (mini_batch_size max_pixels)` in a sweep.

    The values of several keys come first: what is drawn beside bars and in the list of runs ends after twenty letters.
    """
    _, job = job_of(Run(run_dir, {}, {})) or (run_dir, {"point": {}})
    if len(point := job["point"]) < 2 or name != job_name(point):
        return name
    return f"{' '.join(map(short_value, point.values()))} ({' '.join(short_keys(point).values())})"


def _assigned(point: Mapping[str, str], keys: Sequence[str], shorten: Any) -> list[str]:
    """Return `key=value` of the keys that a point has, each in its short form."""
    short, values = short_keys(keys), {key: shorten(point[key]) for key in keys if key in point}
    return [value if key in _SPEAKING else f"{short[key]}={value}" for key, value in values.items()]


def sweep_name(keys: Sequence[str], folder: Path) -> str:
    """Return a name made of the swept keys and of when the sweep began: `mini_batch_size-2026-11-23-01-43-05`."""
    began = "-".join(folder.parts[-2:])
    return joined([*([joined([*map(last_part, keys)], 119 - len(began))] if keys else []), began], 120)


def run_names(runs: Sequence[Run], *, seeds: bool = True) -> list[str]:
    """Return a name for each run: of jobs of one sweep what was swept; else the run's own name or its model's.

    Runs of one name are told apart by what differs in their configs, or else by when they started. Without `seeds`
    these aren't named: each run stands for several that differ in them.
    """
    if jobs := one_sweep(runs):
        names = point_names(
            [{key: value for key, value in job["point"].items() if seeds or not plays(key, Role.SEED)} for job in jobs]
        )
        if all(names) and len({*names}) == len(names):
            return names
    names = [run.record["config"].get("run_name") or model_name(run) for run in runs]
    names = [name.removeprefix("model=") for name in names]  # as sweeps named runs before
    jobs_of = {
        name: {run.record["job"] for each, run in zip(names, runs, strict=True) if each == name} for name in names
    }
    names = [  # a config tells of a training that an evaluation did not do
        f"{name} {'finetuned' if run.record['job'] == 'train' else 'evaluated'}" if len(jobs_of[name]) > 1 else name
        for name, run in zip(names, runs, strict=True)
    ]
    told = _differences(runs, ("",), seeds) if len({*names}) == 1 else []
    if told and all(told) and len({*told}) == len(told):
        return told
    return told_apart(runs, names, seeds=seeds)


def one_sweep(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the entries of the runs in their sweep, if they are all jobs of one."""
    found = [job for job in map(job_of, runs) if job]
    is_one = len(found) == len(runs) and len({sweep for sweep, _ in found}) == 1
    return [job for _, job in found] if is_one else []


def in_order(runs: Iterable[Run]) -> list[Run]:
    """Return runs by age, and the jobs of a sweep in its order."""

    def place(run: Run) -> tuple[str, int, str]:
        folder, job = job_of(run) or (run.path.resolve().parent, {"number": 0})
        return str(folder), job["number"], run.record["start"]

    return sorted(runs, key=place)


def job_of(run: Run) -> tuple[Path, dict[str, Any]] | None:
    """Return the folder of the sweep that a run is a job of, and the job's entry there; None of a run by itself."""
    place = run.path.resolve()
    for folder in [*place.parents][:3]:
        for job in (read_sweep(folder) or {"jobs": []})["jobs"]:
            if (folder / job["dir"]).resolve() == place:
                return folder, job
    return None


def model_name(run: Run) -> str:
    """Return the name of a run's model; of another run's folder that run's, which is the folder above `final`."""
    name = run.metrics["model"]["name"]
    path = Path(name)
    if path.name == "final" and len(path.parts) > 1:
        return f"{path.parent.name}/final"
    return name if name.count("/") < 2 else path.name


def told_apart(
    runs: Sequence[Run], names: Sequence[str], within: tuple[str, ...] = ("",), *, seeds: bool = True
) -> list[str]:
    """Return the names, those that several runs have with what differs in the config, of keys that begin so."""
    found = [*names]
    for name in {name for name in names if names.count(name) > 1}:
        alike = {index: run for index, run in enumerate(runs) if names[index] == name}
        told = _differences([*alike.values()], within, seeds)
        starts = [f"{datetime.fromisoformat(run.record['start']):%m-%d %H:%M:%S}" for run in alike.values()]
        for number, ((index, run), difference) in enumerate(zip(alike.items(), told, strict=True), start=1):
            if told.count(difference) > 1 or not difference:
                start = starts[number - 1]
                start = start if starts.count(start) == 1 else f"{run.path.name} ({number})"
                difference = f"{difference}, {start}" if difference else start
            found[index] = f"{name} {difference}"
    return found


def _differences(runs: Sequence[Run], within: tuple[str, ...], seeds: bool) -> list[str]:
    """Return of each run the config keys, with their values, in which the runs differ."""
    configs = [effective(run.record["config"]) for run in runs]
    found = {}
    for key in dict.fromkeys(key for config in configs for key in dotted_keys(config) if key.startswith(within)):
        # Not where a run's model lies, and each seed once.
        if (
            key == "model.name"
            or key.startswith("model.card")
            or (plays(key, Role.SEED) and not (seeds and key == "seed"))
        ):
            continue
        values = [select(config, key) for config in configs]
        if not any(isinstance(value, dict) for value in values) and any(value != values[0] for value in values):
            found[key] = [show(value) for value in values]
    points = [{key: values[index] for key, values in found.items()} for index in range(len(runs))]
    return [""] * len(runs) if not 0 < len(found) <= _MOST else point_names(points)


def shortened(text: str, limit: int) -> str:
    """Return as many whole words of a text as fit; words end at spaces and punctuation."""
    if len(text) <= limit:
        return text
    end = max(text.rfind(mark, 0, limit + 1) for mark in " _-.,")
    return text[: end if end > 0 else limit].rstrip(" _-.,")


def joined(parts: Sequence[str], limit: int) -> str:
    """Return the parts with hyphens between them, and the number of those that don't fit: `a=1-b=2-3_more`."""
    for kept in range(len(parts), -1, -1):
        text = "-".join([*parts[:kept], *([f"{len(parts) - kept}_more"] if kept < len(parts) else [])])
        if len(text) <= limit:
            break
    return text
