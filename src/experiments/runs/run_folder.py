"""The directory of a run: claimed by one process, refused where it holds another run, gone again if empty; its log."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from experiments.config.errors import ConfigError
from experiments.config.hints import select
from experiments.runs.run import is_finished, is_live, read_record


def check(output_dir: Path, config: dict[str, Any]) -> None:
    """Refuse a directory that holds a finished run, and folders that can't be written."""
    from experiments.config import checks

    if is_finished(output_dir):
        raise ConfigError(
            f"{output_dir} holds a finished run, which is never overwritten; set hydra.run.dir to another"
        )
    checks.check_writable(output_dir, "hydra.run.dir")
    for key in ("tracking.dir", "data.cache_dir", "model.cache_dir", "evaluator.cache_dir"):
        if (folder := select(config, key)) is not None:
            checks.check_writable(Path(folder).expanduser(), key)


def refuse_finished(arguments: list[str]) -> None:
    """Refuse a directory given by hand before Hydra writes its files there."""
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "hydra.run.dir" and is_finished(Path(value.strip("'\""))):
            raise ConfigError(f"{argument} holds a finished run, which is never overwritten; type another folder")


def claim(folder: Path, fields: dict[str, Any], write: Callable[[], None]) -> None:
    """Write the first `run.json`, unless the directory is another's; of two processes at once, one gets it.

    Args:
        folder: The run's directory.
        fields: Of `run.json`; where an unfinished run goes on, its first start and its attempts are put in.
        write: Writes the fields.

    Raises:
        ConfigError: If the directory belongs to a live process, to a finished run or to a run of another config.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if (earlier := read_record(folder)) is not None:
            _go_on(folder, fields, earlier)
        write()
    finally:
        os.close(descriptor)


def _go_on(folder: Path, fields: dict[str, Any], earlier: dict[str, Any]) -> None:
    """Keep the first start and the attempts of the unfinished run in the directory."""
    if is_live(folder, earlier):
        where = f"process {earlier['pid']} on {earlier['host']}"
        raise ConfigError(f"{folder} is in use by a run that is going on ({where}); wait, or set hydra.run.dir")
    if (earlier["job"], earlier["config_hash"]) != (fields["job"], fields["config_hash"]):
        raise ConfigError(f"{folder} holds a run of another config; set hydra.run.dir to another folder, or remove it")
    if earlier["status"] == "finished":
        raise ConfigError(f"{folder} holds a finished run, which is never overwritten; set hydra.run.dir to another")
    attempts = earlier["attempts"]
    if attempts[-1]["status"] == "running":
        last_seen = datetime.fromtimestamp((folder / "run.json").stat().st_mtime).astimezone()
        attempts[-1].update(status="killed", end=last_seen.isoformat(timespec="seconds"))
    kept = {key: earlier[key] for key in ("start", "command")}
    fields.update(kept, attempts=attempts + fields["attempts"])


def discard(folder: Path) -> None:
    """Remove a run's directory that holds nothing but what Hydra put there."""
    logs = [Path(handler.baseFilename) for handler in log_files()]
    names = {".hydra", *(log.name for log in logs)}
    if not folder.is_dir() or not {path.name for path in folder.iterdir()} <= names:
        return
    shutil.rmtree(folder)
    if not any(folder.parent.iterdir()):  # the day's
        folder.parent.rmdir()


def log_files() -> Iterator[logging.FileHandler]:
    """Yield the files that this process logs to."""
    yield from (handler for handler in logging.getLogger().handlers if isinstance(handler, logging.FileHandler))


def move_log(folder: Path) -> None:
    """Go on in the log of the run that is resumed."""
    root = logging.getLogger()
    for handler in [*log_files()]:
        moved = logging.FileHandler(folder / Path(handler.baseFilename).name)
        moved.setFormatter(handler.formatter)
        moved.setLevel(handler.level)
        root.removeHandler(handler)
        handler.close()
        root.addHandler(moved)
