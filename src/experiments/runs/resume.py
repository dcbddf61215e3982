"""Which run goes on: the one that `trainer.resume` names or finds, or else a new one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.config.errors import ConfigError
from experiments.config.keys import config_hash
from experiments.runs.run import find_unfinished, read_record

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
