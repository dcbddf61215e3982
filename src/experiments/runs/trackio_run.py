"""Start a Trackio run in a folder of one's own, without asking any server."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

from experiments.config.errors import ConfigError

GROUPS = ("model", "data", "loss", "matryoshka", "trainer", "evaluator", "experiment")


def flatten(config: dict[str, Any], choices: dict[str, str] | None = None) -> dict[str, Any]:
    """Return what is worth grouping by as top-level scalars, named `group` or `group/option`.

    Lists are joined, targets and anything nested deeper are left out, and a group itself stands for the option
    chosen (without `choices`: for its target).
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and key in GROUPS:
            flat[key] = str(value.get("_target_", "none")).removeprefix("experiments.")
            options = {f"{key}/{option}": inner for option, inner in value.items() if not option.startswith("_")}
        else:
            options = {} if isinstance(value, dict) or key.startswith("_") else {key: value}
        for option, inner in options.items():
            if isinstance(inner, list | tuple):
                inner = ", ".join(map(str, inner))
            if inner is None or isinstance(inner, bool | int | float | str):
                flat[option.replace(".", "_")] = inner
    return flat | {key: option for key, option in (choices or {}).items() if key in GROUPS}


def show_command(folder: Path, project: str) -> str:
    """Return the line that opens the project's dashboard."""
    # In a virtual environment that isn't activated the script is not on the path.
    script = shutil.which("trackio") or str(Path(sys.executable).with_name("trackio"))
    script = "trackio" if shutil.which("trackio") else shlex.quote(script)
    return f"TRACKIO_DIR={shlex.quote(str(folder))} {script} show --project {shlex.quote(project)}"


def start(folder: Path, project: str, name: str, group: str | None, config: dict[str, Any]) -> Any:
    """Open the project's database, store the run's config in it and return the run, which has `store_config`.

    Args:
        folder: Absolute; the folder of Trackio's SQLite files.
        project: Trackio project.
        name: Readable name; a number is added if the project has it already.
        group: Runs shown together.
        config: Scalars.

    Raises:
        ConfigError: If the folder can't be written or Trackio reserves the project's name.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        storage = _import_trackio(folder)
        storage.validate_project_name(project)
        # Trackio only warns when it can't write, and then loses the run: try it first.
        with contextlib.closing(sqlite3.connect(storage.init_db(project), timeout=60)) as database:
            database.execute("BEGIN IMMEDIATE")
        name = _reserve_name(folder / ".names" / storage.get_project_db_path(project).stem, name)
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(
            f"tracking.dir={folder} cannot be written ({error}); choose another folder, or tracking=none"
        ) from error
    except ValueError as error:
        raise ConfigError(f"tracking.project={project}: {error}") from error
    run = _local_run()(url=None, project=project, client=None, name=name, group=group, config=config)
    run.store_config({}, step=0)
    return run


def _local_run() -> Any:
    """Return Trackio's run with what its public side lacks; nothing else here knows its private one."""
    from trackio import Run

    class LocalRun(Run):
        def _get_username(self) -> str | None:
            return None  # `trackio.init` asks the Hub who is logged in, even for a local run

        def store_config(self, values: dict[str, Any], step: int) -> None:
            """Add values to the config and write it to disk at once."""
            self.config.update(values)
            self._config_logged = False  # it is stored with a row, once,
            self._flush()  # and of the rows that are written together only the first one's counts
            self.log({}, step=step)
            self._flush()

        def _flush(self) -> None:
            with self._client_lock:  # as its own sender does, which writes every half second
                self._flush_queues_inline()

    return LocalRun


def _import_trackio(folder: Path) -> Any:
    """Import Trackio for a folder, which it reads when it is imported, and return its storage."""
    os.environ["TRACKIO_DIR"] = str(folder)
    from trackio.sqlite_storage import SQLiteStorage

    paths = {"TRACKIO_DIR": folder, "MEDIA_DIR": folder / "media", "ARTIFACTS_DIR": folder / "artifacts"}
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == "trackio"]
    for module in modules:  # it may have been imported for another folder
        for attribute in paths.keys() & vars(module).keys():
            setattr(module, attribute, paths[attribute])
    return SQLiteStorage


def _reserve_name(folder: Path, name: str) -> str:
    """Return a name that no other run has, not even one that starts at the same moment."""
    name = re.sub(r"[^\w.,=+-]+", "-", name).strip("-.")[:120] or "run"
    folder.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        unique = name if number == 1 else f"{name}-{number}"
        with contextlib.suppress(FileExistsError):
            (folder / unique).touch(exist_ok=False)
            return unique
    raise AssertionError
