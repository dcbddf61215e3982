"""The lines that a sweep shows while it runs: one for each job."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from experiments.reports import sweep_summary
from experiments.reports.tables import last_part, time_text
from experiments.runs.log import read_step

_TERMINAL_S, _FILE_S = 0.5, 60.0  # between two looks at the jobs: on a terminal, where lines are redrawn; in a file


class Running(Protocol):
    """A job that runs."""

    job: dict[str, Any]  # its entry in the sweep
    started: float  # on the monotonic clock


class Progress:
    """Prints a line when a job starts and when it ends; in between its step, in place on a terminal."""

    def __init__(self, sweep_dir: Path) -> None:
        self.sweep_dir = sweep_dir
        self.in_place = sys.stdout.isatty()
        self._drawn = 0
        self._next = 0.0

    def started(self, job: dict[str, Any]) -> None:
        """Say that a job runs; a terminal shows it soon enough."""
        self._next = 0.0 if self.in_place else time.monotonic() + _FILE_S
        if not self.in_place:
            self._print(f"{name(job)}  running")

    def ended(self, job: dict[str, Any]) -> None:
        """Say how a job ended; also of one that was not run."""
        seconds = "" if not job.get("wall_s") else f" after {time_text(job['wall_s'])}"
        note = sweep_summary.note(job)
        self._erase()
        self._print(f"{name(job)}  {sweep_summary.shown_status(job)}{seconds}{f': {note}' if note else ''}")

    def show(self, running: Sequence[Running]) -> None:
        """Show the running jobs' steps, if it is time to."""
        if not running or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + (_TERMINAL_S if self.in_place else _FILE_S)
        self._erase()
        for child in running:
            seconds = time_text(time.monotonic() - child.started)
            step = read_step(self.sweep_dir / child.job["dir"] / "console.log")
            self._print(f"{name(child.job)}  running, {f'{step}, ' if step else ''}{seconds}")
        self._drawn = len(running) if self.in_place else 0

    def close(self) -> None:
        """Take the lines of running jobs away."""
        self._erase()

    def _erase(self) -> None:
        if self._drawn:
            sys.stdout.write(f"\x1b[{self._drawn}F\x1b[J")
            self._drawn = 0

    def _print(self, line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def name(job: dict[str, Any]) -> str:
    """Return a job's number and the values of the swept keys."""
    point = " ".join(f"{last_part(key)}={value}" for key, value in job["point"].items())
    return f"#{job['number']} {point}".rstrip()
