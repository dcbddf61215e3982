"""Which directory a sweep gets: the one that the same jobs have already, or a new one that nobody else can get."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config.errors import ConfigError

if TYPE_CHECKING:
    from filelock import FileLock


@dataclass(frozen=True)
class Claim:
    """A directory that is this process's until it ends."""

    folder: Path
    lock: FileLock
    earlier: dict[str, Any] | None  # the sweep that is taken up, its jobs "finished" or "pending"


@contextmanager
def claim(
    wanted: Path, typed: bool, identities: Sequence[str], memory_limit: int | None, repeat: bool
) -> Iterator[Claim]:
    """Choose a sweep's directory; while the body runs nobody else chooses.

    Args:
        wanted: As in `sweeps.choose`; a new directory has a number added where that is taken.
        typed: As in `sweeps.choose`.
        identities: As in `sweeps.choose`.
        memory_limit: As in `sweeps.choose`.
        repeat: As in `sweeps.choose`.

    Raises:
        ConfigError: If a sweep of these jobs is going on, or the directory typed holds something else.
    """
    from experiments.runs import sweeps
    from experiments.runs.files import locked

    root = wanted.parent if typed else sweeps.root_of(wanted)
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / ".choosing.lock"):
        if (folder := sweeps.choose(wanted, typed, identities, memory_limit, repeat)) is not None:
            earlier = sweeps.read_sweep(folder)
            assert earlier is not None
            if (lock := sweeps.hold(folder)) is None:
                raise ConfigError(
                    f"{folder} is this sweep and is going on (process {earlier['pid']}); wait for it, "
                    "or type hydra.launcher.repeat=true to run it once more beside it"
                )
            _read_ends(folder, earlier)
            yield Claim(folder, lock, earlier)
            return
        folder = _new_dir(wanted, typed)
        if (lock := sweeps.hold(folder)) is None:
            raise ConfigError(f"hydra.sweep.dir={wanted} is in use by another sweep; type another")
        yield Claim(folder, lock, None)


def _read_ends(folder: Path, sweep: dict[str, Any]) -> None:
    """Note the jobs that finished although the sweep was killed before it could."""
    from experiments.runs.run import is_finished

    for job in sweep["jobs"]:
        finished = is_finished(folder / job["dir"])
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
