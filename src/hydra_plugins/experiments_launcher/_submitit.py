"""What submitit runs on the other machine: a job's frozen config, in a process of its own as everywhere else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from hydra_plugins.hydra_submitit_launcher.submitit_launcher import LocalLauncher, SlurmLauncher

from experiments import runs
from hydra_plugins.experiments_launcher._jobs import child_command


def _run(frozen_and_log: list[str]) -> int:
    frozen, log = map(Path, frozen_and_log)
    environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    with log.open("ab") as file:
        code = subprocess.run(child_command(frozen), stdout=file, stderr=file, env=environment).returncode
    told = frozen.with_suffix(".json")
    runs.save_json(told, (runs.load_json(told) or {}) | {"code": code})
    return code


class Slurm(SlurmLauncher):
    """Hydra's launcher for Slurm; its "overrides" are the paths of a frozen config and of the log."""

    def __call__(self, sweep_overrides: list[str], *_: Any) -> Any:
        """Run the job and return its exit code; it is on the machine that Slurm chose."""
        return _run(sweep_overrides)


class Local(LocalLauncher):
    """Hydra's launcher for submitit's local executor."""

    def __call__(self, sweep_overrides: list[str], *_: Any) -> Any:
        """Run the job and return its exit code."""
        return _run(sweep_overrides)
