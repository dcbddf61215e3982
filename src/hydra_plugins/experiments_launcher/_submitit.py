"""What submitit runs on the other machine: a job's frozen config, in a process of its own as everywhere else."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import submitit
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import LocalLauncher, SlurmLauncher

from experiments.runs.files import load_json, save_json
from experiments.runs.process import process_start, this_process
from hydra_plugins.experiments_launcher._jobs import TERMINATE_S, child_command

_POLL_S = 0.2
_OF_EXECUTOR = ("submitit_folder", "max_num_timeout")  # parameters that it is made with


def _submit(launcher: Any, jobs: Sequence[list[str]]) -> list[submitit.Job]:
    """Submit jobs as Hydra's launcher does, which waits for them and fails if one dies.

    Args:
        launcher: One of Hydra's, which is called with each job.
        jobs: Of each the paths of a frozen config and of the log.
    """
    cluster, params = launcher._EXECUTOR, launcher.params
    shared = BaseQueueConf.__dataclass_fields__
    retries = {f"{cluster}_{key}": params[key] for key in _OF_EXECUTOR[1:] if key in params}
    executor = submitit.AutoExecutor(folder=params["submitit_folder"], cluster=cluster, **retries)
    rest = {key: value for key, value in params.items() if key not in _OF_EXECUTOR}
    executor.update_parameters(**{key if key in shared else f"{cluster}_{key}": rest[key] for key in rest})
    return executor.map_array(launcher, jobs)


def _run(frozen_and_log: list[str], wait: Callable[[subprocess.Popen[bytes]], int]) -> int:
    frozen, log = map(Path, frozen_and_log)
    environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    with log.open("ab") as file:
        code = wait(subprocess.Popen(child_command(frozen), stdout=file, stderr=file, env=environment))
    told = frozen.with_suffix(".json")
    save_json(told, (load_json(told) or {}) | {"code": code})
    return code


class Slurm(SlurmLauncher):
    """Hydra's launcher for Slurm, called with the paths of a frozen config and of the log."""

    ends_with_sweep = False
    submit = _submit

    def __call__(self, frozen_and_log: list[str], *_: Any) -> Any:
        """Run the job and return its exit code; it is on the machine that Slurm chose."""
        return _run(frozen_and_log, subprocess.Popen.wait)


class Local(LocalLauncher):
    """Hydra's launcher for submitit's local executor, whose jobs would outlive the sweep: here they end with it."""

    ends_with_sweep = True

    def submit(self, jobs: Sequence[list[str]]) -> list[submitit.Job]:
        """Submit jobs, which get to know the process that they belong to."""
        self.sweep = this_process()
        return _submit(self, jobs)

    def __call__(self, frozen_and_log: list[str], *_: Any) -> Any:
        """Run the job and return its exit code."""
        return _run(frozen_and_log, self._wait)

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        while process.poll() is None and process_start(self.sweep["pid"]) == self.sweep["process_start"]:
            time.sleep(_POLL_S)
        process.terminate()
        try:
            return process.wait(TERMINATE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
