"""The same launcher with Hydra's submitit launcher to start the jobs: on Slurm, or by its local executor."""

from __future__ import annotations

import time
from typing import Any

from experiments.runs.files import load_json
from experiments.runs.process import now
from hydra_plugins.experiments_launcher._jobs import frozen_path, outcome, prepare
from hydra_plugins.experiments_launcher._progress import Progress
from hydra_plugins.experiments_launcher.processes import ProcessLauncher

_POLL_S = 1.0


class SubmititLauncher(ProcessLauncher):
    """Hands each job to submitit; conf/hydra/launcher/slurm.yaml explains the options."""

    def __init__(self, submitit: Any, **options: Any) -> None:
        super().__init__(**options)
        self.submitit = submitit

    def _execute(self, pending: list[dict[str, Any]], progress: Progress) -> None:
        """Submit all jobs at once, so that none is skipped for what another shows, and note each one's end."""
        if not pending:
            return
        for job in pending:
            prepare(self.dir, job)
        self._save()
        paths = [[str(frozen_path(self.dir, job).resolve()), str(self.dir / job["log"])] for job in pending]
        waiting = dict(enumerate(self.submitit.submit(paths)))
        try:
            while waiting:
                for index, handle in [*waiting.items()]:
                    job, is_over = pending[index], handle.done()
                    told = load_json(frozen_path(self.dir, job).with_suffix(".json")) or {}
                    if "code" in told or is_over:
                        del waiting[index]
                        job.update(outcome(self.dir, job, None), end=now())
                        self._save()
                        progress.ended(job)
                time.sleep(_POLL_S)
        except (KeyboardInterrupt, SystemExit):  # Ctrl-C, SIGTERM
            if self.submitit.ends_with_sweep:
                for index in waiting:
                    pending[index].update(status="interrupted", end=now())
            raise
