"""Keep `run.json` true while a run goes on: who runs it, each attempt, and how it ended."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from experiments.config.errors import ConfigError, one_line
from experiments.config.keys import config_hash
from experiments.runs.files import locked, save_json
from experiments.runs.memory import lift_memory_limit, peak
from experiments.runs.process import command_line, is_main_process, now, this_process
from experiments.runs.provenance import hardware, provenance
from experiments.runs.run import is_live, read_record

_HEARTBEAT_S = 60.0

logger = logging.getLogger(__name__)


class Record:
    """`run.json` of a run that is going on; every update rewrites the file atomically."""

    def __init__(self, output_dir: Path, fields: dict[str, Any]) -> None:
        self.path = output_dir / "run.json"
        self.fields = fields

    def update(self, **fields: Any) -> None:
        """Set top-level fields, for example `fingerprint` or `dashboard`."""
        self.fields.update(fields)
        if is_main_process():
            save_json(self.path, self.fields)

    def _close(self, status: str, error: BaseException | None = None) -> None:
        end = now()
        line = one_line(f"{type(error).__name__}: {error}".rstrip(": "), limit=300) if error else None
        self.fields["attempts"][-1].update(end=end, status=status)
        try:
            self.update(status=status, end=end, error=line, hardware=hardware(), **peak())  # the GPU is known only now
        except OSError as problem:
            if error is None:
                raise
            logger.error("%s cannot be written: %s", self.path, problem)  # must not hide the run's own error


@contextmanager
def keep_record(
    output_dir: Path,
    config: dict[str, Any],
    *,
    name: str | None = None,
    job: str = "train",
    command: str | None = None,
) -> Iterator[Record]:
    """Keep `run.json` true while the body runs; "finished" is written last, after everything in the body.

    An exception makes the status "failed"; Ctrl-C, `sys.exit` and SIGTERM make it "interrupted". A process that is
    killed leaves "running", which `is_live` tells from a process that still runs. In the directory of an unfinished
    run of the same config that run goes on: its first start is kept, and `attempts` gets another entry.

    Args:
        output_dir: The run's directory.
        config: The resolved config.
        name: Readable name; by default the config's `run_name` or else the directory's name.
        job: "train" or "evaluate".
        command: The shell line that started the run; by default this process's.

    Raises:
        ConfigError: If the directory belongs to a live process or to a run of another config.
    """
    start = now()
    fields = {
        "name": name or config.get("run_name") or output_dir.name,
        **{"job": job, "status": "running", "start": start, "end": None, "error": None},
        **{"command": command or command_line(), "seed": config.get("seed"), "fingerprint": None},
        **{"config_hash": config_hash(config), **this_process(), **provenance(), "config": config},
        "attempts": [{"start": start, "end": None, "status": "running", "pid": os.getpid()}],
    }
    run = Record(output_dir, fields)
    if is_main_process():
        _claim(output_dir, fields, run.update)
    with _heartbeat(run.path), _sigterm_as_exit():
        try:
            yield run
        except (KeyboardInterrupt, SystemExit) as error:
            run._close("interrupted", error)
            raise
        except BaseException as error:
            lift_memory_limit()
            run._close("failed", error)
            raise
        run._close("finished")


def _claim(folder: Path, fields: dict[str, Any], write: Callable[[], None]) -> None:
    """Write the first `run.json`, unless the directory is another's; of two processes at once, one gets it.

    Args:
        folder: The run's directory.
        fields: Of `run.json`; where an unfinished run goes on, its first start and its attempts are put in.
        write: Writes the fields.

    Raises:
        ConfigError: If the directory belongs to a live process, to a finished run or to a run of another config.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        if (earlier := read_record(folder)) is not None:
            _go_on(folder, fields, earlier)
        write()


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


@contextmanager
def _heartbeat(path: Path) -> Iterator[None]:
    """Touch the file now and then, so that other hosts, which cannot see the process, know that it lives."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(_HEARTBEAT_S):
            with suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=beat, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Turn SIGTERM into SystemExit(143), so that files are closed and the status is written."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
