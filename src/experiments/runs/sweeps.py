"""A sweep on disk: what it holds, which sweep of the same jobs there is, and who runs it.

A sweep's directory holds `summary.json` (its state, the one truth), `summary.md` and `summary.csv` made from it, and a
folder for each job. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config.errors import ConfigError
from experiments.runs.files import load_json, locked
from experiments.runs.run import is_done

if TYPE_CHECKING:
    from filelock import FileLock

FINAL = ("finished", "duplicate")  # statuses of jobs that are not to be run again


def num_done(jobs: Sequence[dict[str, Any]]) -> int:
    """Return how many jobs of a sweep have ended, in whatever way."""
    return sum(job["status"] not in ("pending", "running", "interrupted") for job in jobs)


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


@dataclass(frozen=True)
class Wanted:
    """Which sweep a command line asks for."""

    folder: Path  # the directory that the config names; a new sweep has a number added where that is taken
    typed: bool  # it was given on the command line: that one or none
    memory_limit: int | None  # of each job, bytes; a sweep under another limit is another sweep
    repeat: bool  # leave alone a sweep of these jobs that has ended or is going on

    @property
    def root(self) -> Path:
        """The directory below which a new one is chosen: that of all days, or the one above."""
        if self.typed or self.folder.parts[:1] != ("multirun",):
            return self.folder.parent
        return Path("multirun")


def choose(wanted: Wanted, identities: Sequence[str]) -> Path | None:
    """Return the sweep of the same jobs that a line goes on with, or None where it begins one.

    Of several sweeps it is an unfinished one, or else the newest.

    Args:
        wanted: What the line asks for.
        identities: Of the jobs of the first batch, in any order (a sweeper may send the jobs in several).

    Raises:
        ConfigError: If the directory typed holds what is to be repeated.
    """
    found = []
    for folder in [wanted.folder] if wanted.typed else sweep_dirs([wanted.root, wanted.folder.parent]):
        sweep = read_sweep(folder)
        first = [job["identity"] for job in sweep["jobs"] if job["batch"] == 0] if sweep else []
        if sweep and sorted(first) == sorted(identities) and sweep["memory_limit"] == wanted.memory_limit:
            is_unfinished = any(job["status"] not in FINAL for job in sweep["jobs"])
            changed = (folder / "summary.json").stat().st_mtime_ns
            found.append((is_unfinished, sweep["start"], changed, folder, sweep["status"] == "ended"))
    for *_, folder, has_ended in sorted(found, reverse=True):
        if wanted.repeat and wanted.typed and has_ended:
            raise ConfigError(f"hydra.sweep.dir={folder} holds this sweep already; to repeat it, type another")
        if not wanted.repeat or wanted.typed or not (has_ended or is_held(folder)):
            return folder
    return None


@contextmanager
def claim(wanted: Wanted, identities: Sequence[str]) -> Iterator[tuple[Path, FileLock, dict[str, Any] | None]]:
    """Choose a sweep's directory; while the body runs nobody else chooses.

    Yields:
        The directory, its lock, which is this process's until it ends, and the sweep that is taken up there, if any:
        its jobs are "finished" or "pending".

    Raises:
        ConfigError: If a sweep of these jobs is going on, or the directory typed holds something else.
    """
    wanted.root.mkdir(parents=True, exist_ok=True)
    with locked(wanted.root / ".choosing.lock"):
        found = choose(wanted, identities)
        folder = found or _new_dir(wanted)
        earlier = read_sweep(folder) if found else None
        if (lock := hold(folder)) is None:
            if earlier is None:
                raise ConfigError(f"hydra.sweep.dir={wanted.folder} is in use by another sweep; type another")
            raise ConfigError(
                f"{folder} is this sweep and is going on (process {earlier['pid']}); wait for it, "
                "or type hydra.launcher.repeat=true to run it once more beside it"
            )
        for job in earlier["jobs"] if earlier else []:  # some may have finished after the sweep had been killed
            job["reused"] = is_done(folder / job["dir"]) and job["status"] != "duplicate"
            job["status"] = "finished" if job["reused"] else "pending"
        yield folder, lock, earlier


def _new_dir(wanted: Wanted) -> Path:
    """Make a directory that wasn't there, with a number added if need be; one that was typed must be empty."""
    if wanted.typed:
        wanted.folder.mkdir(parents=True, exist_ok=True)
        if any(wanted.folder.iterdir()):
            raise ConfigError(
                f"hydra.sweep.dir={wanted.folder} holds something else than this sweep; type another folder"
            )
        return wanted.folder
    folder, number = wanted.folder, 1
    while folder.exists():  # nobody else chooses meanwhile
        number += 1
        folder = wanted.folder.with_name(f"{wanted.folder.name}-{number}")
    folder.mkdir(parents=True)
    return folder


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
