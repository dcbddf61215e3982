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
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from experiments.config.errors import ConfigError
from experiments.config.hints import dotted_keys, select
from experiments.runs.files import replacing

GROUPS = ("model", "data", "loss", "matryoshka", "trainer", "evaluator", "experiment")

JOURNAL_MODE, ROLLBACK = "TRACKIO_SQLITE_JOURNAL_MODE", "delete"  # Trackio reads it whenever it connects
SHARED = re.compile(  # file systems that several hosts may write to at once, or whose memory maps can't be relied on
    r"nfs\d?|cifs|smb\w*|lustre|gpfs|beegfs\w*|ceph|glusterfs|afs|panfs|pvfs2|wekafs|ocfs2|gfs2|9p|virtiofs|fuse(\..+)?"
)


def flatten(config: dict[str, Any], choices: dict[str, str]) -> dict[str, Any]:
    """Return what is worth grouping by as top-level scalars, named `group` or `group/option`.

    A group stands for the option chosen. Lists are joined; targets and anything nested deeper are left out.
    """
    flat: dict[str, Any] = {group: option for group, option in choices.items() if group in GROUPS}
    for key in dotted_keys(config):
        group, _, option = key.partition(".")
        value = select(config, key)
        if isinstance(value, list | tuple):
            value = ", ".join(map(str, value))
        is_near = not option or (group in GROUPS and "." not in option)
        if is_near and (value is None or isinstance(value, bool | int | float | str)):
            flat[key.replace(".", "/")] = value
    return flat


def file_system(folder: Path, mounts: Iterable[tuple[str, str]]) -> str:
    """Return the type of the file system that an absolute folder is on; `mounts` are mount points and types."""
    holding = [(len(Path(place).parts), kind) for place, kind in mounts if folder.is_relative_to(place)]
    return max(reversed(holding), key=lambda each: each[0], default=(0, ""))[1]  # of one place the last mounted


def is_shared(folder: Path) -> bool:
    """Return whether several hosts may write to a folder: Trackio's WAL needs memory that they don't share."""
    import psutil

    mounts = [(each.mountpoint, each.fstype) for each in psutil.disk_partitions(all=True)]
    return SHARED.fullmatch(file_system(folder, mounts).lower()) is not None


def show_command(folder: Path, project: str) -> str:
    """Return the line that serves the project's dashboard, to this machine alone."""
    journal = f"{JOURNAL_MODE}={ROLLBACK} " if is_shared(folder) else ""
    beside_python = shlex.quote(str(Path(sys.executable).with_name("trackio")))
    script = "trackio" if shutil.which("trackio") else beside_python  # of an environment that isn't activated
    shown = f"show --host 127.0.0.1 --project {shlex.quote(project)}"
    return f"{journal}TRACKIO_DIR={shlex.quote(str(folder))} {script} {shown}"


def address(project: str, run_ids: Sequence[str]) -> str:
    """Return the address of the dashboard's charts with these runs, as they were measured.

    By default every curve is a moving average. Two charts in a row, the first two, leave room for names beside bars.
    """
    return f"{server()}/?project={quote(project)}&smoothing=0&plots_per_row=2&run_ids={','.join(run_ids)}"


def server() -> str:
    """Return the address that `show_command` serves: Trackio takes this port if it is free."""
    return f"http://127.0.0.1:{os.environ.get('GRADIO_SERVER_PORT', '7860')}"


def start(
    folder: Path, project: str, name: str, group: str | None, config: dict[str, Any], earlier: str | None = None
) -> Any:
    """Open the project's database in an absolute folder and return the run, see `_local_run`.

    The name gets a number if the project has it already; the config, of scalars, is stored at once.

    Args:
        folder: Of Trackio's files.
        project: Its name.
        name: The run's.
        group: Runs shown together.
        config: Scalars.
        earlier: The id of a run to go on with; if the project has it not, a new one begins.

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
        known = {record["id"]: record["name"] for record in storage.get_run_records(project)} if earlier else {}
        reserved = folder / ".names" / storage.get_project_db_path(project).stem
        name = known[earlier] if earlier in known else _reserve_name(reserved, name)
    except (OSError, sqlite3.Error) as error:
        said = f"tracking.dir={folder} cannot be written ({error}); choose another folder, or tracking=none"
        raise ConfigError(said) from error
    except ValueError as error:
        raise ConfigError(f"tracking.project={project}: {error}") from error
    run_id = earlier if earlier in known else uuid.uuid4().hex[:10]  # short: addresses list them
    options = {"project": project, "name": name, "run_id": run_id, "group": group, "config": config}
    run = _local_run()(url=None, client=None, **options)
    run.is_resumed, run.name_file = earlier in known, reserved / name
    run.store_config({}, step=0)
    return run


def put_page(folder: Path, project: str, name: str, html: str) -> Path:
    """Make a page of HTML, or its new content, the only thing of a run of that name, and return its file."""
    storage = _import_trackio(folder)
    from trackio.media.utils import get_project_media_path

    name = safe_name(name)
    file = get_project_media_path(project=project, run=name, step=0) / "page.html"
    with replacing(file) as unfinished:
        unfinished.write_text(html, encoding="utf-8")
    if name not in storage.get_runs(project):
        page = {"_type": "trackio.html", "file_path": str(file.relative_to(folder / "media")), "caption": None}
        storage.bulk_log(project, name, [{"runs": page}], steps=[0], config={"_Group": name})
    return file


def mark_ended(folder: Path, project: str, statuses: dict[str, str]) -> None:
    """Say how runs ended, by id, whose processes had no time to: their config still says "running"."""
    storage = _import_trackio(folder)
    configs = storage.get_all_run_configs(project)
    for run_id, name in [(record["id"], record["name"]) for record in storage.get_run_records(project)]:
        if run_id in statuses and configs.get(run_id, {}).get("status") == "running":
            told = configs[run_id] | {"status": statuses[run_id]}
            storage.bulk_log(project, name, [{}], steps=[0], config=told, run_id=run_id)


def _local_run() -> Any:
    """Return Trackio's run with what its public side lacks; nothing else here knows its private one."""
    from trackio import Run
    from trackio.sqlite_storage import SQLiteStorage

    class LocalRun(Run):
        is_resumed: bool  # it goes on with what an earlier process logged
        name_file: Path

        def _get_username(self) -> str | None:
            return None  # `trackio.init` asks the Hub who is logged in, even for a local run

        def store_config(self, values: dict[str, Any], step: int) -> None:
            """Add values to the config and write it to disk at once."""
            self.config.update(values)
            self._config_logged = False  # it is stored with a row, once,
            self._flush()  # and of the rows that are written together only the first one's counts
            self.log({}, step=step)
            self._flush()

        def logged(self) -> set[tuple[int, str]]:
            """Return the steps and names of all that is stored."""
            rows = SQLiteStorage.get_logs(self.project, self.name, run_id=self.id)
            return {(row["step"], key) for row in rows for key in row.keys() - {"step", "timestamp"}}

        def forget_after(self, step: int) -> None:
            """Remove what an earlier process logged beyond a step."""
            self._flush()
            with contextlib.closing(sqlite3.connect(SQLiteStorage.init_db(self.project), timeout=60)) as database:
                with database:
                    database.execute("DELETE FROM metrics WHERE run_id = ? AND step > ?", (self.id, step))

        def discard(self) -> None:
            """End the run and leave nothing of it."""
            self.finish()
            SQLiteStorage.delete_run(self.project, self.name, run_id=self.id)
            self.name_file.unlink(missing_ok=True)

        def _flush(self) -> None:
            with self._client_lock:  # as its own sender does, which writes every half second
                self._flush_queues_inline()

    return LocalRun


def _import_trackio(folder: Path) -> Any:
    """Import Trackio for a folder, which it reads when it is imported, and return its storage."""
    os.environ["TRACKIO_DIR"] = str(folder)
    if is_shared(folder) and not os.environ.get(JOURNAL_MODE):
        os.environ[JOURNAL_MODE] = ROLLBACK
    from trackio.sqlite_storage import SQLiteStorage

    paths = {"TRACKIO_DIR": folder, "MEDIA_DIR": folder / "media", "ARTIFACTS_DIR": folder / "artifacts"}
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == "trackio"]
    for module in modules:  # it may have been imported for another folder
        for attribute in paths.keys() & vars(module).keys():
            setattr(module, attribute, paths[attribute])
    return SQLiteStorage


def safe_name(name: str) -> str:
    """Return a name as a folder may be called and an address list it."""
    return re.sub(r"[^\w.=+() -]+", "-", name).strip("-. ")[:120] or "run"


def _reserve_name(folder: Path, name: str) -> str:
    """Return a name that no other run has, not even one that starts at the same moment."""
    name = safe_name(name)
    folder.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        unique = name if number == 1 else f"{name}-{number}"
        with contextlib.suppress(FileExistsError):
            (folder / unique).touch(exist_ok=False)
            return unique
    raise AssertionError
