"""Keep `run.json` true while a run goes on: who runs it, each attempt, and how it ended."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from experiments.config.errors import one_line
from experiments.config.keys import config_hash
from experiments.runs.files import save_json
from experiments.runs.memory import lift_memory_limit, peak
from experiments.runs.process import command_line, is_main_process, now, repeated, sigterm_raises, this_process
from experiments.runs.provenance import hardware, provenance
from experiments.runs.run_folder import claim

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
    output_dir: Path, config: dict[str, Any], *, name: str | None = None, job: str = "train"
) -> Iterator[Record]:
    """Keep `run.json` true while the body runs; "finished" is written last, after everything in the body.

    An exception makes the status "failed"; Ctrl-C, `sys.exit` and SIGTERM make it "interrupted". A process that is
    killed leaves "running", which `is_live` tells from a process that still runs. In the directory of an unfinished
    run of the same config that run goes on: its first start is kept, and `attempts` gets another entry.

    The job is to "train" or to "evaluate"; the name is by default the config's `run_name`, or else the directory's.

    Raises:
        ConfigError: If the directory belongs to a live process or to a run of another config.
    """
    start = now()
    fields = {
        "name": name or config.get("run_name") or output_dir.name,
        **{"job": job, "status": "running", "start": start, "end": None, "error": None},
        **{"command": command_line(), "seed": config.get("seed"), "fingerprint": None},
        **{"config_hash": config_hash(config), **this_process(), **provenance(), "config": config},
        "attempts": [{"start": start, "end": None, "status": "running", "pid": os.getpid()}],
    }
    run = Record(output_dir, fields)
    if is_main_process():
        claim(output_dir, fields, run.update)
    with _heartbeat(run.path), sigterm_raises(SystemExit(128 + signal.SIGTERM)):
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


@contextmanager
def _heartbeat(path: Path) -> Iterator[None]:
    """Touch the file now and then, so that other hosts, which cannot see the process, know that it lives."""

    def beat() -> None:
        with suppress(OSError):
            os.utime(path)

    with repeated(beat, _HEARTBEAT_S, "heartbeat"):
        yield
