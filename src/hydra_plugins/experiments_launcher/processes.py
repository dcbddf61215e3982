"""Hydra's side of the launcher: which sweep this is, its jobs frozen, and what becomes of them.

Hydra imports this file whenever it starts, so that what it needs is imported when there is a sweep.
"""

from __future__ import annotations

import atexit
import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from experiments.config import checks
from experiments.config.errors import ConfigError
from experiments.runs.process import sigterm_raises
from hydra_plugins.experiments_launcher._claim import Claim, claim


class ProcessLauncher(Launcher):
    """Runs each job in a process of its own; conf/hydra/launcher/processes.yaml explains the options."""

    def __init__(
        self,
        n_jobs: int = 1,
        on_failure: str = "continue",
        skip_dominated: bool = True,
        memory_limit: str | int | None = None,
        repeat: bool = False,
    ) -> None:
        self.n_jobs, self.on_failure, self.skip_dominated = n_jobs, on_failure, skip_dominated
        self.memory_limit, self.repeat = memory_limit, repeat
        self.sweep: dict[str, Any] | None = None
        self.plain: dict[int, dict[str, Any]] = {}  # each job's config, by its number
        self.batch = 0

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Check the options, and give the sweeper a folder for its file until it is known which sweep this is."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        self.budget = checks.check_launcher(self)
        self.wanted = Path(str(config.hydra.sweep.dir))
        self.typed = any(each.startswith("hydra.sweep.dir=") for each in config.hydra.overrides.hydra)
        self.wanted.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".starting-", dir=self.wanted.parent))
        atexit.register(shutil.rmtree, staging, ignore_errors=True)
        self._set_dir(staging)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs, all of the sweep's or as many as the sweeper wants to know at once."""
        from experiments.runs.identity import job_identity

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        composed, refusals = [], []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            config, plain, refusal = self._compose(overrides, number)
            composed.append((config, plain))
            refusals.append(refusal)
        if self.sweep is None and all(refusals):
            raise ConfigError("; ".join(dict.fromkeys(map(str, refusals))))
        identities = [job_identity(plain, self.config.hydra.job.name) for _, plain in composed]
        if self.sweep is None:
            with claim(self.wanted, self.typed, identities, self.budget, self.repeat) as claimed:
                self._begin(claimed)
                entries = self._enter(job_overrides, identities, composed)
                self._save("running")  # before anybody else chooses
        else:
            entries = self._enter(job_overrides, identities, composed)
        for job, refusal in zip(entries, refusals, strict=True):
            if job["status"] == "pending" and refusal is not None:
                job |= {"status": "refused", "error": refusal}
        with sigterm_raises(KeyboardInterrupt()):
            try:
                self._run(entries, composed)
            except BaseException:
                self._save("interrupted")
                raise
        self._save("ended")
        self.batch += 1
        return [self._job_return(job, overrides) for job, overrides in zip(entries, job_overrides, strict=True)]

    def _compose(self, overrides: Sequence[str], number: int) -> tuple[DictConfig, dict[str, Any], str | None]:
        """Return a job's config as Hydra runs it and as plain values, and why it can't work, if it can't."""
        from experiments import cli

        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
            if OmegaConf.select(config, "trainer.resume") == "auto":
                config.trainer.resume = None  # a sweep takes up its own
        HydraConfig.instance().set_config(config)
        with read_write(config.hydra):
            config.hydra.sweep.subdir = str(config.hydra.sweep.subdir)  # resolved for this job, not a later one
        job = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        plain: dict[str, Any] = {"overrides": [*overrides]}  # if a value is missing
        try:
            plain = cli.resolve(job)
            checks.check(plain)
        except ConfigError as error:
            return config, plain, str(error)
        return config, plain, None

    def _begin(self, claim: Claim) -> None:
        """Make a directory this sweep's."""
        from experiments.reports import sweep_summary
        from experiments.runs.process import command_line, now, this_process

        self.dir, self._lock = claim.folder, claim.lock
        staging = Path(self.config.hydra.sweep.dir)
        if (staging / "multirun.yaml").exists():
            shutil.move(staging / "multirun.yaml", self.dir / "multirun.yaml")
        shutil.rmtree(staging, ignore_errors=True)
        self._set_dir(self.dir)
        self.task_function.sweep_dir = self.dir  # type: ignore[attr-defined]  # where the entry point finds it
        keys = self._swept_keys()
        fresh = {"start": now(), "keys": keys, "jobs": [], "memory_limit": self.budget}
        fresh["name"] = self.dir.name if self.typed else sweep_summary.sweep_name(keys, self.dir)
        here = this_process() | {"task": self.config.hydra.job.name, "command": command_line()}
        self.sweep = (claim.earlier or fresh) | here
        sys.stdout.write(f"{'Going on with' if claim.earlier else 'Sweep:'} {self.dir}\n")

    def _set_dir(self, folder: Path) -> None:
        with read_write(self.config.hydra):
            self.config.hydra.sweep.dir = str(folder)

    def _swept_keys(self) -> list[str]:
        """Return the keys with several values, as typed or as the sweeper's configuration has them."""
        parsed = OverridesParser.create().parse_overrides([*self.config.hydra.overrides.task])
        keys = [each.key_or_group for each in parsed if each.is_sweep_override()]
        return [*dict.fromkeys([*keys, *map(str, self.config.hydra.sweeper.get("params") or {})])]

    def _enter(
        self,
        job_overrides: Sequence[Sequence[str]],
        identities: list[str],
        composed: list[tuple[DictConfig, dict[str, Any]]],
    ) -> list[dict[str, Any]]:
        """Return the batch's entries in the sweep, those of the sweep that is taken up where they are the same."""
        from experiments import cli
        from experiments.reports import sweep_summary

        assert self.sweep is not None
        jobs = self.sweep["jobs"]
        own = cli.own_options(self.config)
        module, _ = self._task()
        earlier = [job for job in jobs if job["batch"] == self.batch]
        jobs[:] = [job for job in jobs if job["batch"] != self.batch]
        numbers = {job["identity"]: job["number"] for job in jobs if job["batch"] < self.batch}
        taken = {job["number"] for job in [*jobs, *earlier]}
        entries: list[dict[str, Any]] = []
        for overrides, identity, (config, _) in zip(job_overrides, identities, composed, strict=True):
            job = next((job for job in earlier if job["identity"] == identity), None)
            if job is None:
                number = config.hydra.job.num if config.hydra.job.num not in taken else max(taken) + 1
                taken.add(number)
                job = {"number": number, "dir": config.hydra.sweep.subdir, "status": "pending", "reused": False}
            else:
                earlier.remove(job)
            values = dict(each.lstrip("+").partition("=")[::2] for each in overrides)
            job |= {"identity": identity, "batch": self.batch, "overrides": [*overrides]}
            job["point"] = {key: values[key] for key in self.sweep["keys"] if key in values}
            job["log"] = f"{job['dir']}/console.log"
            job["rerun"] = sweep_summary.rerun_line(module, [*own, *overrides], self.memory_limit)
            if identity in numbers:
                job |= {"status": "duplicate", "same_as": numbers[identity]}
            numbers.setdefault(identity, job["number"])
            entries.append(job)
        jobs[:] = sorted([*jobs, *entries], key=lambda job: job["number"])
        folders = [job["dir"] for job in jobs]
        if shared := [folder for folder in folders if folders.count(folder) > 1]:
            raise ConfigError(f"hydra.sweep.subdir gives two jobs one folder, such as {shared[0]}; leave it out")
        return entries

    def _run(self, entries: list[dict[str, Any]], composed: list[tuple[DictConfig, dict[str, Any]]]) -> None:
        """Freeze the configs of the jobs that are to run, and run them."""
        from experiments.runs.skipped_jobs import is_dominated, memory_rank
        from hydra_plugins.experiments_launcher._progress import Progress

        assert self.sweep is not None
        self.plain |= {job["number"]: config for job, (_, config) in zip(entries, composed, strict=True)}
        plain, jobs = self.plain, self.sweep["jobs"]
        for job, (config, _) in zip(entries, composed, strict=True):
            if job["status"] == "pending":
                self._freeze(job, config)
        self._save("running")
        progress = Progress(self.dir)
        for job in entries:
            if job["status"] != "pending":
                progress.ended(job)

        def blocked(job: dict[str, Any]) -> bool:
            for other in [each for each in jobs if each["status"] == "OOM" and self.skip_dominated]:
                if is_dominated(plain[job["number"]], plain[other["number"]]):
                    job |= {"status": "skipped", "dominated_by": other["number"]}
                    return True
            return False

        pending = [job for job in entries if job["status"] == "pending"]
        stopped = any(job["batch"] < self.batch and job["status"] in ("failed", "killed", "exited") for job in jobs)
        if self.on_failure == "stop" and stopped:
            pending = []
        if self.skip_dominated:  # small ones first, so that what they show saves the large ones
            pending.sort(key=lambda job: memory_rank(plain[job["number"]]))
        self._execute(pending, blocked, progress)

    def _execute(self, pending: list[dict[str, Any]], blocked: Callable[[dict[str, Any]], bool], show: Any) -> None:
        """Run jobs, in their order; `blocked` says of each, when its turn comes, whether it is to be left out."""
        from hydra_plugins.experiments_launcher._jobs import Pool

        pool = Pool(self.dir, self.n_jobs, show, lambda: self._save("running"))
        pool.run(pending, blocked, stop=self.on_failure == "stop")

    def _freeze(self, job: dict[str, Any], config: DictConfig) -> None:
        """Write the config that the job's process runs, whatever becomes of the YAML files until then."""
        from experiments.reports import sweep_summary
        from hydra_plugins.experiments_launcher._jobs import frozen_path

        assert self.sweep is not None
        with read_write(config.hydra), open_dict(config):
            config.hydra.sweep.dir, config.hydra.sweep.subdir = str(self.dir), job["dir"]
            config.hydra.job.id = config.hydra.job.num = job["number"]
            if config.get("run_name") is None and job["point"]:
                config.run_name = sweep_summary.job_name(job["point"])
            if "group" in (config.get("tracking") or {}) and config.tracking.group is None:
                config.tracking.group = self.sweep["name"]
        module, function = self._task()
        frozen = {"module": module, "function": function, "config": config, "memory_limit": self.budget}
        path = frozen_path(self.dir, job)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps(frozen))

    def _task(self) -> tuple[str, str]:
        """Return module and name of the function that a job calls, as another process imports them."""
        task = self.task_function.__wrapped__  # type: ignore[attr-defined]
        module = task.__module__
        if module == "__main__":
            spec = sys.modules["__main__"].__spec__
            if spec is None:
                raise ConfigError("a sweep is started with python -m MODULE, so that its jobs can import the module")
            module = spec.name
        return module, task.__qualname__

    def _save(self, status: str) -> None:
        from experiments.reports.sweep_summary import write_summary
        from experiments.runs.process import now

        assert self.sweep is not None
        self.sweep |= {"status": status, "end": None if status == "running" else now()}
        write_summary(self.dir, self.sweep)

    def _job_return(self, job: dict[str, Any], overrides: Sequence[str]) -> JobReturn:
        """Return what sweepers want: the metric; the plain one would end the sweep at a job that failed."""
        assert self.sweep is not None
        result = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
        same = next((each for each in self.sweep["jobs"] if each["number"] == job.get("same_as")), job)
        result.return_value = same.get("value")
        is_basic = str(self.config.hydra.sweeper._target_).endswith(".BasicSweeper")
        if same["status"] != "finished" and not is_basic:
            result.status, result.return_value = JobStatus.FAILED, RuntimeError(f"job {job['number']} {job['status']}")
        return result
