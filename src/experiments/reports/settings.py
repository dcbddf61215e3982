"""Settings: finished runs grouped by their config without seeds, and refused where they can't be ranked together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.config.errors import ConfigError
from experiments.config.hints import select, show
from experiments.config.keys import Role, digest, effective, keys_of, values_of
from experiments.evaluation.query_values import Part, read_query_values
from experiments.reports.tables import score_text, shown
from experiments.runs.metrics_file import dimensions, evaluations, parts, primary_metric
from experiments.runs.names import in_order, run_names
from experiments.runs.run import Run, is_finished, load_run, read_record, run_dirs

_DEFINING = keys_of(Role.METRICS)
_MAY_DIFFER = ("name", "from_corpus")  # of evaluations: what is told of data.corpus is of the training rows, too


@dataclass
class Setting:
    """Runs whose configs differ in their seeds alone, or one run before or after its training."""

    label: str = ""  # what tells it from the other settings
    runs: list[Run] = field(default_factory=list)
    before: bool = False  # its training
    values: list[dict[str, Part]] = field(default_factory=list)  # of each run

    @property
    def listed(self) -> str:
        """The runs and their seeds."""
        return ", ".join(f"{shown(run.path)} (seed {run.record['seed']})" for run in self.runs)

    @property
    def measured(self) -> dict[str, Any]:
        """What its first run measured, as in metrics.json."""
        return evaluations(self.runs[0].metrics)[0 if self.before else -1].measured

    @property
    def keys(self) -> list[str]:
        """The dimensions that every run was evaluated at, the full one first; or a reranker's directions."""
        return [key for key in self.values[0] if all(key in each for each in self.values)]

    @property
    def has_dimensions(self) -> bool:
        """Whether the keys are dimensions, of embedders, and not directions."""
        return bool(dimensions(self.measured))

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics that every run has."""
        names, *others = [each[self.keys[0]].values for each in self.values]
        return [name for name in names if all(name in each for each in others)]

    def matrix(self, key: str, metric: str) -> np.ndarray:
        """Return a metric of every run and query, shape (num_runs, num_queries)."""
        return np.stack([each[key].values[metric] for each in self.values])

    def interval(self, key: str, metric: str) -> list[float] | None:
        """Return the 95% interval of one run's mean; None of several runs, or where it wasn't computed."""
        return parts(self.measured)[key].get(f"{metric}_ci95") if len(self.runs) == 1 else None

    def score(self, key: str, metric: str, *, with_interval: bool = False) -> str:
        """Return the mean over runs and, with several, their standard deviation; of one its interval if asked for."""
        means = self.matrix(key, metric).mean(axis=1)
        if len(means) > 1:
            return f"{means.mean():.3f} ± {means.std(ddof=1):.3f}"
        return score_text(means[0], self.interval(key, metric) if with_interval else None)


def load_settings(paths: Sequence[Path]) -> list[Setting]:
    """Return the settings in the order in which their runs are named: by directories that are runs or hold some.

    Runs of one config but for its seeds are one setting; a second run of a seed makes a setting of its own. One run
    alone makes two: before and after its training.

    Raises:
        ConfigError: If one run was only evaluated, one of several isn't finished, or they can't be ranked together.
    """
    return settings_of(load_runs(paths))


def settings_of(runs: Sequence[Run]) -> list[Setting]:
    """Return the settings of runs, in their order; see `load_settings`."""
    if len(runs) == 1:
        return _before_and_after(runs[0])
    for run in runs[1:]:
        _refuse_other_evaluation(runs[0], run)
    values = [read_query_values(run) for run in runs]
    settings: dict[tuple[str, int], Setting] = {}
    seen: dict[tuple[str, str], int] = {}
    main_queries, *others = (next(iter(each.values())).query_ids for each in values)
    for run, query_ids in zip(runs[1:], others, strict=True):
        if query_ids != main_queries:
            raise ConfigError(f"not ranked: {shown(runs[0].path)} and {shown(run.path)} were scored on other queries")
    for run, each in zip(runs, values, strict=True):
        seeds = digest(values_of(run.record["config"], Role.SEED))
        rest = digest([run.record["job"], effective(run.record["config"], Role.SEED)])
        repeat = seen[rest, seeds] = seen.get((rest, seeds), -1) + 1
        setting = settings.setdefault((rest, repeat), Setting())
        setting.runs.append(run)
        setting.values.append(each)
    names = run_names([setting.runs[0] for setting in settings.values()], seeds=False)
    for setting, name in zip(settings.values(), names, strict=True):
        setting.label = name
    return [*settings.values()]


def _before_and_after(run: Run) -> list[Setting]:
    """Return a run before its training and after it."""
    found = evaluations(run.metrics)
    if len(found) == 1:
        raise ConfigError(f"{shown(run.path)} is one run with one evaluation: name another run to compare it with")
    before, after = replace(run, metrics=run.metrics | {"final": None}), run
    return [
        Setting(found[0].label, [run], True, [read_query_values(before)]),
        Setting(found[1].label, [run], False, [read_query_values(after)]),
    ]


def load_runs(paths: Sequence[Path]) -> list[Run]:
    """Return the runs that the directories are or hold, those of one directory in its sweep's order or by age.

    Directories without a finished run are left out beside others.

    Raises:
        ConfigError: If one is missing, or is a run that isn't finished, or there is no run at all.
    """
    runs: list[Run] = []
    for path in paths:
        record = read_record(path)
        if record is not None and record["status"] != "finished":
            status = "killed or still running" if record["status"] == "running" else record["status"]
            raise ConfigError(f"{path} is not finished ({status}); go on with it: trainer.resume={path}")
        folders = [path] if record else [each for each in run_dirs([path]) if is_finished(each)]
        if not path.is_dir():
            raise ConfigError(f"{path} is no directory; name directories of runs, such as outputs/DAY/RUN")
        runs += in_order([load_run(folder) for folder in folders])
    if not runs:
        said = f"{', '.join(map(str, paths))} {'holds' if len(paths) == 1 else 'hold'} no finished run"
        raise ConfigError(f"{said}; name directories of runs, such as outputs/DAY/RUN")
    return runs


def by_evaluation(runs: Sequence[Run]) -> list[list[Run]]:
    """Group runs by what they were measured on and the metric, in their order."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        shared = {key: value for key, value in _evaluated_by(run).items() if key not in _MAY_DIFFER}
        groups.setdefault(digest(shared), []).append(run)
    return [*groups.values()]


def _evaluated_by(run: Run) -> dict[str, Any]:
    """Return what runs must share to be ranked together, but for what may differ."""
    of_config = {key: show(select(run.record["config"], key)) for key in _DEFINING}
    return run.metrics["evaluation"] | {"metric": primary_metric(run.metrics)} | of_config


def _refuse_other_evaluation(first: Run, run: Run) -> None:
    """Refuse a run that was measured on other data or by another metric than the first."""
    both = [_evaluated_by(each) for each in (first, run)]
    keys = [key for key in both[0] | both[1] if both[0].get(key) != both[1].get(key) and key not in _MAY_DIFFER]
    if keys:
        what = "metrics" if {*keys} <= {"metric", *_DEFINING} else "evaluation data"
        values = [", ".join(f"{key.removeprefix('num_')} {each.get(key)}" for key in keys) for each in both]
        one, other = (f"{each['name']} ({listed})" for each, listed in zip(both, values, strict=True))
        said = f"{shown(first.path)} was evaluated on {one}, {shown(run.path)} on {other}"
        raise ConfigError(f"not ranked: the {what} differ: {said}")
