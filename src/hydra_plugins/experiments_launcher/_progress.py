"""What a sweep shows while it runs: a line for each job that has ended, and below them one of those that go on."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.reports.sweep_summary import note, shown_status, verdict_text
from experiments.reports.tables import time_text
from experiments.runs import terminal
from experiments.runs.files import load_json
from experiments.runs.metrics_file import metric_label
from experiments.runs.names import point_names
from experiments.runs.sweeps import num_done

_TERMINAL_S, _FILE_S = 1.0, 60.0  # between two looks at the jobs: on a terminal, where a line is redrawn; in a file


class Progress:
    """Prints a line when a job ends, with its score, and in between how far the jobs are, and the time left.

    Args:
        sweep_dir: The sweep's directory.
        jobs: The entries of all its jobs, which change while it runs.
        n_jobs: How many run at once.
    """

    def __init__(self, sweep_dir: Path, jobs: Sequence[dict[str, Any]], n_jobs: int) -> None:
        self.sweep_dir, self.jobs, self.n_jobs = sweep_dir, jobs, n_jobs
        self.in_place = terminal.is_live(sys.stdout)
        self._next = 0.0

    def started(self, job: dict[str, Any]) -> None:
        """Say that a job runs; a terminal shows it soon enough."""
        self._next = 0.0 if self.in_place else time.monotonic() + _FILE_S
        if not self.in_place:
            self._print(f"{self._name(job)}: running")

    def ended(self, job: dict[str, Any]) -> None:
        """Say how a job ended; also of one that was not run."""
        parts = [] if job["status"] == "finished" and not job["reused"] else [shown_status(job)]
        if job.get("value") is not None:
            parts.append(f"{metric_label(job['metric'])} {job['value']:.3f}")
        if job.get("verdict"):
            parts.append(verdict_text(job["verdict"]))
        if job.get("wall_s") and not job["reused"]:
            parts.append(time_text(job["wall_s"]))
        why = f": {note(job)}" if note(job) else ""
        self.erase()
        self._print(f"{self._name(job)}: {', '.join(parts) or 'finished'}{why}")

    def show(self, running: Sequence[tuple[dict[str, Any], float]]) -> None:
        """Show how far the jobs are that run, each with its start on the monotonic clock, if it is time to."""
        if not running or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + (_TERMINAL_S if self.in_place else _FILE_S)
        jobs, told = [job for job, _ in running], [self._told(job) for job, _ in running]
        left = self._left([time.monotonic() - start for _, start in running], [said.get("left_s") for said in told])
        in_all = f", {terminal.clock(left)} left" if left and left >= 1 else ""
        first = f"{num_done(self.jobs)}/{len(self.jobs)} done{in_all}"
        lines = [said.get("line", "starting") for said in told]
        if self.in_place:  # there is room for what matters most
            lines = [said.get("steps") or line for said, line in zip(told, lines, strict=True)]
        line = " | ".join([first, *map(": ".join, zip(map(self._name, jobs), lines, strict=True))])
        if not self.in_place:
            self._print(line)
        elif terminal.fits(line):
            terminal.draw(line)
        else:
            short = [f"#{job['number']} {said}" for job, said in zip(jobs, lines, strict=True)]
            terminal.draw(" | ".join([first, *short]).replace("  ", " "))

    def erase(self) -> None:
        """Take the line of the jobs that run away."""
        terminal.draw("")

    def _told(self, job: dict[str, Any]) -> dict[str, Any]:
        return load_json(self.sweep_dir / ".jobs" / f"{job['number']}.progress") or {}

    def _name(self, job: dict[str, Any]) -> str:
        names = point_names([each["point"] for each in self.jobs])
        index = [each["number"] for each in self.jobs].index(job["number"])
        return f"#{job['number']} {names[index]}".rstrip()

    def _left(self, ran: Sequence[float], left: Sequence[float | None]) -> float | None:
        """Return the seconds until the last job ends, by those that have ended and what those that run tell."""
        took = [job["wall_s"] for job in self.jobs if job["status"] == "finished" and job.get("wall_s")]
        took = took or [since + more for since, more in zip(ran, left, strict=True) if more is not None]
        if not took:
            return None
        mean = sum(took) / len(took)
        rest = [max(0.0, mean - since) if more is None else more for since, more in zip(ran, left, strict=True)]
        waiting = mean * sum(job["status"] == "pending" for job in self.jobs)
        return max(*rest, (sum(rest) + waiting) / self.n_jobs)

    def _print(self, line: str) -> None:
        terminal.say(f"{line}\n")
