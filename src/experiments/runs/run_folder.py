"""The directory of a run: a new one or that of the run which goes on; refused where it holds a finished run."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.config.errors import ConfigError
from experiments.config.hints import select
from experiments.config.keys import config_hash
from experiments.runs.log import log_files
from experiments.runs.run import find_unfinished, is_finished, read_record

logger = logging.getLogger(__name__)


def choose_run(
    config: dict[str, Any], fresh: Path, name: str, overrides: Sequence[str]
) -> tuple[dict[str, Any], Path, str]:
    """Return config, directory and name of the run: a fresh one's, or those of the run that is resumed.

    Args:
        config: The resolved config.
        fresh: The directory of a new run.
        name: Of a new run.
        overrides: What was typed.

    Raises:
        ConfigError: If `trainer.resume` names no unfinished run, or other keys are set that would change that run.
    """
    resume = config["trainer"].get("resume")
    if resume is None:
        return config, fresh, name
    if resume == "auto":
        roots = (Path("outputs"), Path("multirun"), fresh.parent)
        found = find_unfinished(roots, config_hash(config))
        if found is None:
            logger.info("trainer.resume=auto: no unfinished run with this config, so a new one starts")
            return config, fresh, name
    else:
        found = Path(resume).expanduser()
    record = read_record(found)
    if record is None or record["status"] == "finished" or record["job"] != "train":
        state = "no training run" if record is None or record["job"] != "train" else "a finished run"
        raise ConfigError(f"trainer.resume={resume}: it holds {state}; name the directory of an unfinished run")
    others = [each for each in overrides if not each.startswith("trainer.resume=")]
    if others and config_hash(config) != record["config_hash"]:
        raise ConfigError(f"trainer.resume={resume} takes that run's own config; leave out {' '.join(others)}")
    logger.info("Resuming %s", found)
    return config if others or resume == "auto" else record["config"], found.resolve(), record["name"]


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
