"""The record of a run on disk: status, configuration, provenance, metrics."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from experiments.config.errors import ConfigError
from experiments.config.hints import select
from experiments.runs.files import load_json
from experiments.runs.metrics_file import EVALUATE_AGAIN, OldRecordError, load_metrics
from experiments.runs.process import now, process_start

_NOT_RUNS = {"checkpoints", "final", "figures", "rankings"}  # folders inside a run: large, and no run is in them
_HEARTBEAT_LOST_S = 300.0

logger = logging.getLogger(__name__)


def read_record(run_dir: Path) -> dict[str, Any] | None:
    """Return a run's `run.json`, or None where there is none of ours."""
    value = load_json(run_dir / "run.json")
    return value if isinstance(value, dict) and "attempts" in value else None


def is_finished(run_dir: Path) -> bool:
    """Return whether a directory holds a finished run."""
    return (read_record(run_dir) or {}).get("status") == "finished"


def is_done(run_dir: Path) -> bool:
    """Return whether a directory holds a finished run whose model is pushed, if that was asked for."""
    record = read_record(run_dir) or {}
    must_push = record.get("job") == "train" and select(record.get("config") or {}, "trainer.push_to_hub")
    return record.get("status") == "finished" and (not must_push or "pushed" in record)


def is_live(run_dir: Path, fields: dict[str, Any]) -> bool:
    """Return whether the process that wrote `run.json` still runs (elsewhere: gave a sign within five minutes)."""
    if fields["status"] != "running":
        return False
    if fields["host"] == socket.gethostname():
        return process_start(fields["pid"]) == fields["process_start"]
    return time.time() - (run_dir / "run.json").stat().st_mtime < _HEARTBEAT_LOST_S


def run_dirs(roots: Iterable[Path]) -> list[Path]:
    """Return every directory under the roots that holds a `run.json`, each once."""
    found: dict[Path, Path] = {}
    for root in roots:
        for folder, subfolders, files in os.walk(root):
            subfolders[:] = sorted(name for name in subfolders if name not in _NOT_RUNS and name[0] != ".")
            if "run.json" in files:
                found.setdefault(Path(folder).resolve(), Path(folder))
    return [*found.values()]


def find_unfinished(roots: Iterable[Path], config_hash: str) -> Path | None:
    """Return the newest training run of this config that neither finished nor is going on."""
    found = []
    for path in run_dirs(roots):
        fields = read_record(path)
        if not fields or fields["job"] != "train" or fields["config_hash"] != config_hash:
            continue
        if fields["status"] != "finished" and not is_live(path, fields):
            started = datetime.fromisoformat(fields["attempts"][-1]["start"])
            found.append((started, (path / "run.json").stat().st_mtime_ns, path))
    return max(found)[-1] if found else None


def named_dirs(paths: Sequence[Path]) -> list[Path]:
    """Return the directories that a command was given, without files between them, as `outputs/*/*` has."""
    return [path for path in paths if not path.is_file()] or [*paths]


@dataclass(frozen=True)
class Run:
    """A finished run: its directory, `run.json` and `metrics.json`."""

    path: Path
    record: dict[str, Any]
    metrics: dict[str, Any]


def load_run(run_dir: Path) -> Run:
    """Read a run's record and metrics, finished or not.

    Raises:
        ConfigError: If the directory doesn't hold both, or metrics that the version before wrote.
    """
    fields, metrics = read_record(run_dir), load_metrics(run_dir)
    if fields is None or not metrics:
        raise ConfigError(f"{run_dir} is no evaluated run: run.json and metrics.json must be there")
    return Run(run_dir, fields, metrics)


def load_finished(dirs: Iterable[Path]) -> list[Run]:
    """Return the finished runs under the directories, the oldest first; those that can't be read are logged.

    Raises:
        OldRecordError: If there are some, and the version before wrote them all.
    """
    runs, num_old = [], 0
    for path in filter(is_finished, run_dirs(dirs)):
        try:
            runs.append(load_run(path))
        except OldRecordError:
            num_old += 1
        except ConfigError as error:
            logger.warning("left out: %s", error)
    if num_old:
        said = f"{num_old} run{'s' * (num_old > 1)} of a version before, without sections; {EVALUATE_AGAIN}"
        if not runs:
            raise OldRecordError(f"no run but {said}")
        logger.warning("left out: %s", said)
    return sorted(runs, key=lambda run: datetime.fromisoformat(run.record["start"]))


def duration_s(fields: dict[str, Any]) -> float:
    """Return the seconds that a run's attempts took together, one that is going on up to now."""
    spans = [(attempt["start"], attempt["end"] or now()) for attempt in fields["attempts"]]
    return sum((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds() for start, end in spans)
