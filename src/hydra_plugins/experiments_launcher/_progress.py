"""The lines that a sweep shows while it runs: one for each job."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from experiments.reports.sweep_summary import note, shown_status
from experiments.reports.tables import time_text
from experiments.runs.log import read_step
from experiments.runs.names import last_part

_TERMINAL_S, _FILE_S = 0.5, 60.0  # between two looks at the jobs: on a terminal, where lines are redrawn; in a file


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
            self._print(job, "running")

    def ended(self, job: dict[str, Any]) -> None:
        """Say how a job ended; also of one that was not run."""
        seconds = f" after {time_text(job['wall_s'])}" if job.get("wall_s") else ""
        why = f": {note(job)}" if note(job) else ""
        self.erase()
        self._print(job, f"{shown_status(job)}{seconds}{why}")

    def show(self, running: list[tuple[dict[str, Any], float]]) -> None:
        """Show the steps of the jobs that run, each with its start on the monotonic clock, if it is time to."""
        if not running or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + (_TERMINAL_S if self.in_place else _FILE_S)
        self.erase()
        for job, started in running:
            step = read_step(self.sweep_dir / job["dir"] / "console.log")
            self._print(job, f"running, {f'{step}, ' if step else ''}{time_text(time.monotonic() - started)}")
        self._drawn = len(running) if self.in_place else 0

    def erase(self) -> None:
        """Take the lines of running jobs away."""
        if self._drawn:
            sys.stdout.write(f"\x1b[{self._drawn}F\x1b[J")
            self._drawn = 0

    def _print(self, job: dict[str, Any], what: str) -> None:
        point = " ".join(f"{last_part(key)}={value}" for key, value in job["point"].items())
        name = f"#{job['number']} {point}".rstrip()
        sys.stdout.write(f"{name}  {what}\n")
        sys.stdout.flush()
