"""The same launcher with Hydra's submitit launcher to start the jobs: on Slurm, or by its local executor."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from hydra_plugins.experiments_launcher.processes import ProcessLauncher

_POLL_S = 1.0


class SubmititLauncher(ProcessLauncher):
    """Hands each job to submitit; conf/hydra/launcher/slurm.yaml explains the options."""

    def __init__(self, submitit: Any, **options: Any) -> None:
        super().__init__(**options)
        self.submitit = submitit

    def _execute(self, pending: list[dict[str, Any]], blocked: Callable[[dict[str, Any]], bool], show: Any) -> None:
        """Submit all jobs at once, so that none is skipped for what another shows, and note each one's end."""
        from experiments import runs
        from hydra_plugins.experiments_launcher._jobs import frozen_path, prepare

        if not pending:
            return
        for job in pending:
            prepare(self.dir, job)
            job.update(status="running", start=runs.now(), end=None, error=None, reused=False)
        self._save("running")
        self.submitit.setup(hydra_context=self.hydra_context, task_function=None, config=self.config)
        paths = [[str(frozen_path(self.dir, job).resolve()), str(self.dir / job["log"])] for job in pending]
        ended: Future = Future()

        def submit() -> None:
            try:
                ended.set_result(self.submitit.launch(paths, 0))
            except BaseException as error:
                ended.set_exception(error)

        threading.Thread(target=submit, daemon=True).start()  # after Ctrl-C nobody waits for it
        waiting = list(pending)
        try:
            self._wait(waiting, ended, show)
        except KeyboardInterrupt:
            if self.submitit.ends_with_sweep:
                for job in waiting:
                    job.update(status="interrupted", end=runs.now())
            raise

    def _wait(self, waiting: list[dict[str, Any]], ended: Future, show: Any) -> None:
        """Take each job from the list when it has ended."""
        from experiments import runs
        from hydra_plugins.experiments_launcher._jobs import frozen_path, outcome

        heard = False
        while waiting:
            is_over = ended.done()
            for job in [*waiting]:
                told = runs.load_json(frozen_path(self.dir, job).with_suffix(".json")) or {}
                heard |= "code" in told
                if is_over and not heard and (error := ended.exception()) is not None:
                    raise error  # nothing was submitted
                if "code" in told or is_over:
                    waiting.remove(job)
                    job.update(outcome(self.dir, job, None), end=runs.now())
                    self._save("running")
                    show.ended(job)
            time.sleep(_POLL_S)
