"""Which directory a sweep gets: the one that the same jobs have already, or a new one that nobody else can get."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.errors import ConfigError


@dataclass(frozen=True)
class Claim:
    """A directory that is this process's until it ends."""

    folder: Path
    lock: int
    earlier: dict[str, Any] | None  # the sweep that is taken up, its jobs "finished" or "pending"


@contextmanager
def claim(
    wanted: Path, typed: bool, identities: Sequence[str], memory_limit: int | None, repeat: bool
) -> Iterator[Claim]:
    """Choose a sweep's directory; while the body runs nobody else chooses.

    Args:
        wanted: The directory that the config names; one with a number added where that is taken.
        typed: It was given on the command line: that one or none.
        identities: Of the jobs of the first batch.
        memory_limit: Of each job, bytes; a sweep under another limit is another sweep.
        repeat: Leave alone a sweep of these jobs that has ended or is going on.

    Raises:
        ConfigError: If a sweep of these jobs is going on, or the directory typed holds something else.
    """
    from experiments import sweeps

    root = Path("multirun") if wanted.parts[0] == "multirun" and not typed else wanted.parent
    with sweeps.exclusive(root):
        for folder in sweeps.find_sweeps([wanted] if typed else [root, wanted.parent], identities):
            earlier = sweeps.read_sweep(folder)
            assert earlier is not None
            if earlier["memory_limit"] != memory_limit:
                continue
            if repeat and not typed and (earlier["status"] == "ended" or sweeps.is_held(folder)):
                continue
            if (lock := sweeps.hold(folder)) is None:
                raise ConfigError(
                    f"{folder} is this sweep and is going on (process {earlier['pid']}); wait for it, "
                    "or type hydra.launcher.repeat=true to run it once more beside it"
                )
            if repeat and earlier["status"] == "ended":
                raise ConfigError(f"hydra.sweep.dir={folder} holds this sweep already; to repeat it, type another")
            _read_ends(folder, earlier)
            yield Claim(folder, lock, earlier)
            return
        folder = _new_dir(wanted, typed)
        if (lock := sweeps.hold(folder)) is None:
            raise ConfigError(f"hydra.sweep.dir={wanted} is in use by another sweep; type another")
        yield Claim(folder, lock, None)


def _read_ends(folder: Path, sweep: dict[str, Any]) -> None:
    """Note the jobs that finished although the sweep was killed before it could."""
    from experiments import runs

    for job in sweep["jobs"]:
        finished = (runs.read_record(folder / job["dir"]) or {}).get("status") == "finished"
        job["reused"] = finished and job["status"] != "duplicate"
        job["status"] = "finished" if job["reused"] else "pending"


def _new_dir(wanted: Path, typed: bool) -> Path:
    """Make a directory that wasn't there, with a number added if need be; one that was typed must be empty."""
    if typed:
        wanted.mkdir(parents=True, exist_ok=True)
        if any(wanted.iterdir()):
            raise ConfigError(f"hydra.sweep.dir={wanted} holds something else than this sweep; type another folder")
        return wanted
    number = 1
    while True:
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder
