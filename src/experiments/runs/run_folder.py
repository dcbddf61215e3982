"""The directory of a run: a new one or that of the run which goes on, claimed by one process, never a finished one."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from experiments.config.errors import ConfigError, refuse
from experiments.config.hints import select
from experiments.config.keys import config_hash
from experiments.runs import new_folders
from experiments.runs.files import locked
from experiments.runs.log import log_files
from experiments.runs.run import find_unfinished, is_done, is_finished, is_live, read_record

_FINISHED = "{} holds a finished run, which is never overwritten; set hydra.run.dir to another"

logger = logging.getLogger(__name__)


def choose_run(
    config: dict[str, Any], fresh: Path, name: str, overrides: Sequence[str]
) -> tuple[dict[str, Any], Path, str]:
    """Return config, directory and name of the run: a fresh one's, or those of the run that is resumed.

    The overrides are what was typed.

    Raises:
        ConfigError: If `trainer.resume` names no unfinished run, or other keys are set that would change that run.
    """
    resume = config["trainer"].get("resume")
    if resume is None:
        return config, fresh, name
    if resume == "auto":
        found = find_unfinished((Path("outputs"), Path("multirun"), fresh.parent), config_hash(config))
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
    """Refuse a directory with a finished run, unless it is to be pushed, and folders that can't be written."""
    from experiments.config import checks

    record = read_record(output_dir) or {}
    is_same = record.get("config_hash") == config_hash(config) and select(config, "trainer.push_to_hub")
    if is_finished(output_dir) and (is_done(output_dir) or not is_same):
        raise ConfigError(_FINISHED.format(output_dir))
    checks.check_writable(output_dir, "hydra.run.dir")
    for key in ("tracking.dir", "data.cache_dir", "model.cache_dir", "evaluator.cache_dir"):
        if (folder := select(config, key)) is not None:
            new_folders.expect(Path(folder))
            checks.check_writable(Path(folder).expanduser(), key)


def check_place(key: str, place: object, of_ours: str) -> None:
    """Refuse a place to write that isn't a folder of its own: new, empty, or with the file that makes it ours.

    Raises:
        ConfigError: It names what else is in there.
    """
    said = f"{key}={'' if place is None else place}"
    refuse(place is None or not str(place).strip(), f"{said} is empty (a variable that isn't set?); type a folder")
    folder = Path(str(place))
    how = f"no ~ is expanded here; type {key}={folder.expanduser()}" if str(place)[0] == "~" else ""
    refuse(how, f"{said}: {how}")
    refuse(folder.is_file(), f"{said} is a file; type a folder")
    begun = {".hydra", ".lock", "run.json", "multirun.yaml"}  # all that one has which was killed at once
    with suppress(OSError):  # there is none, or it can't be read: whoever writes there says so
        others = sorted(each.name for each in folder.iterdir() if each.name not in begun and each.suffix != ".log")
        is_other = others and not (folder / of_ours).is_file()
        what = f"holds {', '.join(others[:3])}{' and more' * (len(others) > 3)}, which are no run's"
        refuse(is_other, f"{said} {what}; type another folder, new or empty")


def refuse_finished(arguments: list[str]) -> None:
    """Refuse a directory given by hand before Hydra writes its files there."""
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "hydra.run.dir" and is_finished(Path(value.strip("'\""))):
            raise ConfigError(f"{argument} holds a finished run, which is never overwritten; type another folder")


def claim(folder: Path, fields: dict[str, Any], write: Callable[[], None]) -> None:
    """Write the first `run.json`, unless the directory is another's; of two processes at once, one gets it.

    Where an unfinished run goes on, its first start and its attempts are put into the fields, before `write` writes
    them.

    Raises:
        ConfigError: If the directory belongs to a live process, to a finished run or to a run of another config.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        if (earlier := read_record(folder)) is not None:
            _take_up(folder, fields, earlier)
        write()


def _take_up(folder: Path, fields: dict[str, Any], earlier: dict[str, Any]) -> None:
    if is_live(folder, earlier):
        where = f"process {earlier['pid']} on {earlier['host']}"
        raise ConfigError(f"{folder} is in use by a run that is going on ({where}); wait, or set hydra.run.dir")
    if (earlier["job"], earlier["config_hash"]) != (fields["job"], fields["config_hash"]):
        raise ConfigError(f"{folder} holds a run of another config; set hydra.run.dir to another folder, or remove it")
    if earlier["status"] == "finished":
        raise ConfigError(_FINISHED.format(folder))
    attempts = earlier["attempts"]
    if attempts[-1]["status"] == "running":
        last_seen = datetime.fromtimestamp((folder / "run.json").stat().st_mtime).astimezone()
        attempts[-1].update(status="killed", end=last_seen.isoformat(timespec="seconds"))
    keys = ("start", "command", "commits", "choices", "fingerprint", "fingerprints", "tracked")
    kept: dict[str, Any] = {key: earlier[key] for key in keys if key in earlier}
    fields.update(kept, attempts=attempts + fields["attempts"])


def discard(folder: Path) -> None:
    """Remove what Hydra and the record put into the directory of a run that was refused, if nothing came of it.

    The directory itself goes, and those above it, where this command made them. Of several processes one does it.
    """
    ours = {".hydra", ".lock", "run.json", *(Path(handler.baseFilename).name for handler in log_files())}
    record = read_record(folder)
    is_ours = record is None or (record["pid"] == os.getpid() and len(record["attempts"]) == 1)
    with suppress(OSError):  # it is gone, or somebody else's: no reason for another error
        if is_ours and {path.name for path in folder.iterdir()} <= ours:
            shutil.rmtree(folder / ".hydra", ignore_errors=True)
            for name in ours - {".hydra"}:
                (folder / name).unlink(missing_ok=True)
    new_folders.remove_empty()
