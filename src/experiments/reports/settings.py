"""Settings: finished runs grouped by their config without seeds, and refused where they can't be ranked together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase

import numpy as np

from experiments.config.errors import ConfigError
from experiments.config.hints import select, show
from experiments.config.keys import Role, digest, effective, keys_of, values_of
from experiments.evaluation.query_values import Part, read_query_values
from experiments.reports.tables import shown
from experiments.runs.metrics_file import best_measured, dimensions, primary_metric
from experiments.runs.run import Run, is_finished, load_run, read_record, run_dirs

_DEFINING = keys_of(Role.METRICS)
_LABELS = [*ascii_uppercase, *map("".join, itertools.product(ascii_uppercase, repeat=2))]  # A to Z, then AA and so on


@dataclass
class Setting:
    """Runs whose configs differ in their seeds alone."""

    label: str
    runs: list[Run] = field(default_factory=list)
    values: list[dict[str, Part]] = field(default_factory=list)  # of each run

    @property
    def listed(self) -> str:
        """The runs and their seeds."""
        return ", ".join(f"{shown(run.path)} (seed {run.record['seed']})" for run in self.runs)

    @property
    def keys(self) -> list[str]:
        """The dimensions that every run was evaluated at, the full one first; or a reranker's directions."""
        return [key for key in self.values[0] if all(key in each for each in self.values)]

    @property
    def has_dimensions(self) -> bool:
        """Whether the keys are dimensions, of embedders, and not directions."""
        return bool(dimensions(best_measured(self.runs[0].metrics)))

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics that every run has."""
        names, *others = [each[self.keys[0]].values for each in self.values]
        return [name for name in names if all(name in each for each in others)]

    def matrix(self, key: str, metric: str) -> np.ndarray:
        """Return a metric of every run and query, shape (num_runs, num_queries)."""
        return np.stack([each[key].values[metric] for each in self.values])

    def score(self, key: str, metric: str) -> str:
        """Return the mean over runs and, with several, their standard deviation."""
        means = self.matrix(key, metric).mean(axis=1)
        return f"{means.mean():.3f}" + (f" ± {means.std(ddof=1):.3f}" if len(means) > 1 else "")


def load_settings(paths: Sequence[Path]) -> list[Setting]:
    """Return the settings in the order in which their runs are named: by directories that are runs or hold some.

    Runs of one config but for its seeds are one setting; a second run of a seed makes a setting of its own.

    Raises:
        ConfigError: If there are fewer than two runs, one isn't finished, or they can't be ranked together.
    """
    runs = _load(paths)
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
        setting = settings.setdefault((rest, repeat), Setting(_LABELS[len(settings)]))
        setting.runs.append(run)
        setting.values.append(each)
    return [*settings.values()]


def _load(paths: Sequence[Path]) -> list[Run]:
    """Return the runs that the directories are or hold, those of one directory by age."""
    runs: list[Run] = []
    for path in paths:
        record = read_record(path)
        if record is not None and record["status"] != "finished":
            status = "killed or still running" if record["status"] == "running" else record["status"]
            raise ConfigError(f"{path} is not finished ({status}); go on with it: trainer.resume={path}")
        folders = [path] if record else [each for each in run_dirs([path]) if is_finished(each)]
        if not folders:
            what = "holds no finished run" if path.is_dir() else "is no directory"
            raise ConfigError(f"{path} {what}; name directories of runs, such as outputs/DAY/RUN")
        runs += sorted((load_run(folder) for folder in folders), key=lambda run: run.record["start"])
    if len(runs) < 2:
        report = shown(runs[0].path / "report.md")
        raise ConfigError(f"{paths[0]} is one run: name another too (before and after its training: {report})")
    return runs


def _refuse_other_evaluation(first: Run, run: Run) -> None:
    """Refuse a run that was measured on other data or by another metric than the first; the data's name may differ."""
    both = [
        each.metrics["evaluation"]
        | {"metric": primary_metric(each.metrics)}
        | {key: show(select(each.record["config"], key)) for key in _DEFINING}
        for each in (first, run)
    ]
    keys = [key for key in both[0] | both[1] if key != "name" and both[0].get(key) != both[1].get(key)]
    if keys:
        what = "metrics" if {*keys} <= {"metric", *_DEFINING} else "evaluation data"
        values = [", ".join(f"{key.removeprefix('num_')} {each.get(key)}" for key in keys) for each in both]
        one, other = (f"{each['name']} ({listed})" for each, listed in zip(both, values, strict=True))
        said = f"{shown(first.path)} was evaluated on {one}, {shown(run.path)} on {other}"
        raise ConfigError(f"not ranked: the {what} differ: {said}")
