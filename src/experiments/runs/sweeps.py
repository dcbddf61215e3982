"""A sweep on disk: what it holds, which sweep of the same jobs there is, and who runs it.

A sweep's directory holds `summary.json` (its state, the one truth), `summary.md` and `summary.csv` made from it, and a
folder for each job. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config.errors import ConfigError
from experiments.runs.files import load_json

if TYPE_CHECKING:
    from filelock import FileLock

FINAL = ("finished", "duplicate")  # statuses of jobs that are not to be run again


def read_sweep(sweep_dir: Path) -> dict[str, Any] | None:
    """Return a sweep's `summary.json`, or None where there is none.

    Its keys: `name`, `task`, `command`, `status` (running, interrupted or ended), `start`, `end`, `keys` (the swept
    ones), `memory_limit` (of each job, bytes) and `jobs`, each with `number`, `identity`, `overrides`, `point` (value
    of each swept key), `dir` (relative to the sweep's), `status`, `reused`, `error`, `same_as`, `dominated_by`,
    `wall_s` (the whole process), `time_s` (the run in it), `peak_memory_bytes`, `peak_device_bytes`, `metric`,
    `value`, `interval`, `dimensions`, `energy_kwh`, `emissions_kg`, `log` and `rerun`, as far as they are known. A
    job's status is one of pending, running, finished, failed, OOM, killed, exited, refused, skipped, duplicate,
    interrupted.
    """
    sweep = load_json(sweep_dir / "summary.json")
    return sweep if isinstance(sweep, dict) and "jobs" in sweep else None


def choose(
    wanted: Path, typed: bool, identities: Sequence[str], memory_limit: int | None, repeat: bool
) -> Path | None:
    """Return the sweep of the same jobs that a line goes on with, or None where it begins one.

    Of several sweeps it is an unfinished one, or else the newest.

    Args:
        wanted: The directory that the config names.
        typed: It was given on the command line: that one or none.
        identities: Of the jobs of the first batch, in any order (a sweeper may send the jobs in several).
        memory_limit: Of each job, bytes; a sweep under another limit is another sweep.
        repeat: Leave alone a sweep of these jobs that has ended or is going on.

    Raises:
        ConfigError: If the directory typed holds what is to be repeated.
    """
    found = []
    for folder in [wanted] if typed else sweep_dirs([root_of(wanted), wanted.parent]):
        sweep = read_sweep(folder)
        first = [job["identity"] for job in sweep["jobs"] if job["batch"] == 0] if sweep else []
        if sweep and sorted(first) == sorted(identities) and sweep["memory_limit"] == memory_limit:
            is_unfinished = any(job["status"] not in FINAL for job in sweep["jobs"])
            changed = (folder / "summary.json").stat().st_mtime_ns
            found.append((is_unfinished, sweep["start"], changed, folder, sweep["status"] == "ended"))
    for *_, folder, has_ended in sorted(found, reverse=True):
        if repeat and typed and has_ended:
            raise ConfigError(f"hydra.sweep.dir={folder} holds this sweep already; to repeat it, type another")
        if not repeat or typed or not (has_ended or is_held(folder)):
            return folder
    return None


def root_of(wanted: Path) -> Path:
    """Return the directory below which sweeps are chosen: that of all days, or the one above."""
    return Path("multirun") if wanted.parts[:1] == ("multirun",) else wanted.parent


def sweep_dirs(roots: Iterable[Path]) -> list[Path]:
    """Return every sweep's directory at a root or up to two levels below it (the day's, the time's), each once."""
    patterns = ("summary.json", "*/summary.json", "*/*/summary.json")
    found = [path for root in roots for pattern in patterns for path in sorted(root.glob(pattern))]
    return [*{path.resolve(): path.parent for path in found}.values()]


def hold(sweep_dir: Path) -> FileLock | None:
    """Take a sweep's directory for this process until it ends, whichever way; None if another process has it."""
    from filelock import FileLock, Timeout

    lock = FileLock(sweep_dir / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock


def is_held(sweep_dir: Path) -> bool:
    """Return whether a process runs the sweep."""
    if not (sweep_dir / ".lock").exists():
        return False
    if (lock := hold(sweep_dir)) is None:
        return True
    lock.release()
    return False
