"""Run the jobs of a sweep as processes, a few at a time, and say of each how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.runs import memory
from experiments.runs.files import load_json
from experiments.runs.process import now
from experiments.runs.provenance import visible_gpus
from experiments.runs.run import read_record
from hydra_plugins.experiments_launcher._progress import Progress

TERMINATE_S = 20.0  # for a job to close its files after SIGTERM
_POLL_S = 0.05


@dataclass
class Job:
    """A job of the batch that runs."""

    overrides: Sequence[str]
    config: DictConfig  # as Hydra runs it
    plain: dict[str, Any]  # as the task gets it
    refusal: str  # why it can't work; empty if it can
    is_mistaken: bool  # by what was typed, not by the Hub
    identity: str
    commits: dict[str, str]  # of what it names on the Hub
    entry: dict[str, Any] = field(default_factory=dict)  # in the sweep


@dataclass
class Child:
    """A job's process."""

    job: dict[str, Any]
    process: subprocess.Popen[bytes]
    started: float
    gpu: str | None
    oom_kills: int  # in the control group when it started
    peak: int | None = None  # resident memory as last seen, bytes


class Pool:
    """Runs jobs; each process has its own session, log and, where there are any, GPU."""

    def __init__(self, sweep_dir: Path, n_jobs: int, progress: Progress, save: Callable[[], None]) -> None:
        self.sweep_dir = sweep_dir
        self.save = save  # called whenever a job's entry has changed
        self.gpus: list[str | None] = [*visible_gpus()] or [None] * n_jobs
        self.n_jobs = min(n_jobs, len(self.gpus))
        self.running: list[Child] = []
        self.progress = progress
        self._oom_kills_seen = 0

    def run(self, pending: list[dict[str, Any]], blocked: Callable[[dict[str, Any]], bool], stop: bool) -> None:
        """Run jobs until none is left.

        Args:
            pending: Entries of the sweep, in the order to run them in.
            blocked: Called with an entry before it is started; True leaves it out.
            stop: Start no more after the first that fails.
        """
        waiting = list(pending)
        try:
            while waiting or self.running:
                while waiting and len(self.running) < self.n_jobs:
                    job = waiting.pop(0)
                    if blocked(job):
                        self.progress.ended(job)
                        self.save()
                    else:
                        self._start(job)
                time.sleep(_POLL_S)
                for child in [*self.running]:
                    if self._poll(child) and stop and child.job["status"] not in ("finished", "OOM"):
                        waiting.clear()
                self.progress.show([(child.job, child.started) for child in self.running])
        except BaseException:
            self._end_all()
            raise
        finally:
            self.progress.erase()

    def _start(self, job: dict[str, Any]) -> None:
        gpu = self.gpus.pop(0)
        environment = os.environ | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})
        environment.pop("HYDRA_FULL_ERROR", None)
        command = child_command(frozen_path(self.sweep_dir, job))
        with prepare(self.sweep_dir, job).open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        self.running.append(Child(job, process, time.monotonic(), gpu, memory.oom_kills()))
        self.save()
        self.progress.started(job)

    def _poll(self, child: Child) -> bool:
        """Look after a process; True if it has ended, its entry then says how."""
        child.peak = memory.peak_of(child.process.pid) or child.peak
        if child.process.poll() is None:
            return False
        self.running.remove(child)
        self.gpus.append(child.gpu)
        _signal_group(child, signal.SIGKILL)  # what it may have left behind
        _note(child, self._end(child))
        self.save()
        self.progress.ended(child.job)
        return True

    def _end(self, child: Child) -> dict[str, Any]:
        """Return status, error and peak memory of a process that has ended."""
        code = child.process.returncode
        ended = outcome(self.sweep_dir, child.job, code, child.peak)
        seen = max(child.oom_kills, self._oom_kills_seen)
        if code == -signal.SIGKILL and memory.oom_kills() > seen:
            self._oom_kills_seen = seen + 1
            ended |= {"status": "OOM", "error": "killed by the kernel, out of memory"}
        return ended

    def _end_all(self) -> None:
        """End what runs: SIGTERM, a while to close files, SIGKILL. The jobs stay resumable."""
        for child in self.running:
            _signal_group(child, signal.SIGTERM)
        deadline = time.monotonic() + TERMINATE_S
        try:
            while any(child.process.poll() is None for child in self.running) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        finally:  # a second Ctrl-C comes by here
            for child in self.running:
                _signal_group(child, signal.SIGKILL)
                child.process.wait()
                ended = self._end(child) if child.process.returncode == 0 else {"status": "interrupted"}
                _note(child, ended)
            self.running.clear()
            self.save()


def _note(child: Child, ended: dict[str, Any]) -> None:
    """Note in a job's entry how its process ended and how long it and those before it took."""
    seconds = (child.job.get("wall_s") or 0.0) + time.monotonic() - child.started
    child.job.update(ended, end=now(), wall_s=round(seconds, 2))


def _signal_group(child: Child, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.process.pid, number)


def frozen_path(sweep_dir: Path, job: dict[str, Any]) -> Path:
    """Return where a job's frozen config is; what the job tells of its end is beside it."""
    return sweep_dir / ".jobs" / f"{job['number']}.pickle"


def prepare(sweep_dir: Path, job: dict[str, Any]) -> Path:
    """Make a job's directory, forget how it ended before, note that it runs, and return its log."""
    (sweep_dir / job["dir"]).mkdir(parents=True, exist_ok=True)
    for told in (".json", ".progress"):
        frozen_path(sweep_dir, job).with_suffix(told).unlink(missing_ok=True)
    job.update(status="running", start=now(), end=None, error=None, reused=False, dominated_by=None)
    return sweep_dir / job["log"]


def child_command(frozen: Path) -> list[str]:
    """Return the command of a job's process, a child of this one."""
    module = "hydra_plugins.experiments_launcher._child"
    return [sys.executable, "-u", "-m", module, str(frozen), str(os.getpid())]


def outcome(sweep_dir: Path, job: dict[str, Any], code: int | None, peak: int | None = None) -> dict[str, Any]:
    """Return status, error and peak memory of a job that has ended.

    Args:
        sweep_dir: The sweep's directory.
        job: Its entry.
        code: The exit code of its process, below 0 the signal that ended it; None: what submitit noted.
        peak: Resident memory as last seen from outside, bytes.
    """
    told = load_json(frozen_path(sweep_dir, job).with_suffix(".json")) or {}
    record = read_record(sweep_dir / job["dir"]) or {}
    peaks = [each for each in (told.get("peak_memory_bytes"), peak) if each]
    memories = {"peak_memory_bytes": max(peaks, default=None), "peak_device_bytes": told.get("peak_device_bytes")}

    def ended(status: str, error: str | None) -> dict[str, Any]:
        return {"status": status, "error": error} | memories

    status, code = told.get("status"), told.get("code") if code is None else code
    if code == 0 and status == "finished" and record.get("status") == "finished":
        return ended("finished", None)
    if status in ("failed", "OOM", "refused") and code is not None and code > 0:
        return ended(status, record.get("error") or told.get("error"))
    if code is None:
        return ended("killed", "its process left no word")
    if code == 128 + signal.SIGTERM:
        code = -signal.SIGTERM
    if code in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP):
        return ended("killed", signal.Signals(-code).name)
    if memory.names_out_of_memory((sweep_dir / job["log"]).read_text(errors="replace")[-4000:]):
        return ended("OOM", "out of memory, see the log")
    if code < 0:
        return ended("failed", f"crashed: {signal.Signals(-code).name}")
    return ended("exited", f"exit code {code} before the run was finished")
