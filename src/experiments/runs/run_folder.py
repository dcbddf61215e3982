"""The directory of a run: refused where it holds a finished one, gone again where nothing came of the run, its log."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.config.errors import ConfigError
from experiments.config.hints import select
from experiments.runs.run import is_finished


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
