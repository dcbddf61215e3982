"""Hydra's side of the launcher: which sweep this is, its jobs frozen, and what becomes of them.

Hydra imports this file whenever it starts: it may import nothing that takes long.
"""

from __future__ import annotations

import atexit
import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from experiments import cli
from experiments.config import checks, fits_memory
from experiments.config.errors import ConfigError
from experiments.config.model_files import named
from experiments.reports import sweep_dashboard, sweep_summary
from experiments.runs import names, new_folders, sweeps, terminal
from experiments.runs.identity import job_identity
from experiments.runs.process import command_line, now, this_process
from experiments.runs.skipped_jobs import is_dominated, memory_rank
from hydra_plugins.experiments_launcher._jobs import Job, Pool, frozen_path
from hydra_plugins.experiments_launcher._progress import Progress

if TYPE_CHECKING:
    from filelock import FileLock


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
        self.memory_limit = memory_limit  # as typed; `wanted` has it in bytes, and `repeat`
        self.sweep: dict[str, Any] = {}  # what `summary.json` holds, once it is known which sweep this is
        self.plain: dict[int, dict[str, Any]] = {}  # each job's config, by its number
        self.batch = 0

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Check the options, and give the sweeper a folder for its file until it is known which sweep this is."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        self.module, self.function = _importable(task_function.__wrapped__)  # type: ignore[attr-defined]
        sources = config.hydra.runtime.config_sources
        self.own = [f"--config-dir={source.path}" for source in sources if source.provider == "command-line"]
        self.wanted = cli.wanted_sweep(config)
        parent = self.wanted.folder.parent
        parent.mkdir(parents=True, exist_ok=True)
        self.staging = Path(tempfile.mkdtemp(prefix=".starting-", dir=parent))
        atexit.register(new_folders.remove_empty)  # after the next line's
        atexit.register(shutil.rmtree, self.staging, ignore_errors=True)
        with read_write(config.hydra):
            config.hydra.sweep.dir = str(self.staging)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs, all of the sweep's or as many as the sweeper wants to know at once."""
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        jobs = [self._compose(overrides, number) for number, overrides in enumerate(job_overrides, initial_job_idx)]
        if self.sweep:
            self._enter(jobs)
        else:
            self._refuse(jobs)
            with sweeps.claim(self.wanted, [job.identity for job in jobs]) as claimed:
                self._begin(*claimed)
                self._enter(jobs)
                self._save()  # before anybody else chooses
        try:
            self._run(jobs)
        except BaseException:
            self._save("interrupted")
            raise
        self._save("ended")
        self.batch += 1
        return [self._job_return(job) for job in jobs]

    def _refuse(self, jobs: Sequence[Job]) -> None:
        """Refuse the whole sweep where a job has a mistake: what was typed is mended before hours are spent on it."""
        refused = [job for job in jobs if job.refusal]
        mistaken = [job for job in refused if job.is_mistaken] if self._is_basic() else []
        if mistaken or len(refused) == len(jobs):
            said = "; ".join(dict.fromkeys(job.refusal for job in mistaken or refused))
            which = ", ".join(str(job.config.hydra.job.num) for job in mistaken)
            some = f" (job {which}; of {len(jobs)} jobs none was run)" if len(refused) < len(jobs) else ""
            raise ConfigError(said + some)

    def _is_basic(self) -> bool:
        """Return whether all jobs are known from the start: another sweeper chooses them while it runs."""
        return str(self.config.hydra.sweeper._target_).endswith(".BasicSweeper")

    def _compose(self, overrides: Sequence[str], number: int) -> Job:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
            if OmegaConf.select(config, "trainer.resume") == "auto":
                config.trainer.resume = None  # a sweep takes up its own
        HydraConfig.instance().set_config(config)
        with read_write(config.hydra):
            config.hydra.sweep.subdir = str(config.hydra.sweep.subdir)  # resolved for this job, not a later one
        plain: dict[str, Any] = {"overrides": [*overrides]}  # if a value is missing
        refusal, commits, is_mistaken = "", {}, True
        try:
            plain = cli.resolve(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))
            checks.check(plain, config.hydra.job.name)
            if self.wanted.memory_limit is None and config.hydra.job.name != "evaluate":
                fits_memory.check(plain["loss"])
            is_mistaken = False  # what the Hub refuses costs that job alone
            if [*named(plain)]:
                from experiments.config import hub  # it takes a while

                commits = hub.commits(plain)  # asked here, once for all jobs
        except ConfigError as error:
            refusal = str(error)
        keys = cli.swept_keys(self.config)
        identity = job_identity(plain, config.hydra.job.name, commits=commits, swept=keys)
        return Job(overrides, config, plain, refusal, is_mistaken, identity, commits)

    def _begin(self, folder: Path, lock: FileLock, earlier: dict[str, Any] | None) -> None:
        """Make a directory this sweep's."""
        self.dir, self._lock = folder, lock
        if (self.staging / "multirun.yaml").exists():
            shutil.move(self.staging / "multirun.yaml", folder / "multirun.yaml")
        shutil.rmtree(self.staging, ignore_errors=True)
        with read_write(self.config.hydra):
            self.config.hydra.sweep.dir = str(folder)
        self.task_function.sweep_dir = folder  # type: ignore[attr-defined]  # where the entry point finds it
        keys = cli.swept_keys(self.config)
        name = folder.name if self.wanted.typed else names.sweep_name(keys, folder)
        fresh = {"start": now(), "keys": keys, "jobs": [], "memory_limit": self.wanted.memory_limit, "name": name}
        here = this_process() | {"task": self.config.hydra.job.name, "command": command_line()}
        self.sweep = (earlier or fresh) | here
        terminal.draw("")
        terminal.say(f"{'Going on with' if earlier else 'Sweep:'} {folder}\n")

    def _enter(self, batch: Sequence[Job]) -> None:
        """Give each job its entry in the sweep, that of the sweep that is taken up where it is the same."""
        jobs = self.sweep["jobs"]
        earlier = [job for job in jobs if job["batch"] == self.batch]
        jobs[:] = [job for job in jobs if job["batch"] != self.batch]
        numbers = {job["identity"]: job["number"] for job in jobs if job["batch"] < self.batch}
        taken = {job["number"] for job in [*jobs, *earlier]}
        for each in batch:
            if same := [job for job in earlier if job["identity"] == each.identity]:
                job = same[0]
                earlier.remove(job)
            else:
                number = each.config.hydra.job.num if each.config.hydra.job.num not in taken else max(taken) + 1
                taken.add(number)
                job = {"number": number, "dir": each.config.hydra.sweep.subdir, "status": "pending", "reused": False}
            job |= {"identity": each.identity, "batch": self.batch, "overrides": [*each.overrides]}
            job["point"] = cli.swept_point(self.sweep["keys"], each.overrides)
            job["log"] = f"{job['dir']}/console.log"
            job["rerun"] = sweep_summary.rerun_line(self.module, [*self.own, *each.overrides], self.memory_limit)
            if each.identity in numbers:
                job |= {"status": "duplicate", "same_as": numbers[each.identity]}
            elif job["status"] == "pending" and each.refusal:
                job |= {"status": "refused", "error": each.refusal}
            numbers.setdefault(each.identity, job["number"])
            each.entry = job
        jobs[:] = sorted([*jobs, *(each.entry for each in batch)], key=lambda job: job["number"])
        folders = [job["dir"] for job in jobs]
        if shared := [folder for folder in folders if folders.count(folder) > 1]:
            raise ConfigError(f"hydra.sweep.subdir gives two jobs one folder, such as {shared[0]}; leave it out")

    def _run(self, batch: Sequence[Job]) -> None:
        """Freeze the configs of the jobs that are to run, and run them."""
        pending = [job for job in batch if job.entry["status"] == "pending"]
        for job in pending:
            self._freeze(job)
        self._save()
        progress = Progress(self.dir, self.sweep["jobs"], self.n_jobs)
        for job in batch:
            self.plain[job.entry["number"]] = job.plain
            if job.entry["status"] != "pending":
                progress.ended(job.entry)
        if self.on_failure == "stop" and any(
            job["batch"] < self.batch and job["status"] in ("failed", "killed", "exited") for job in self.sweep["jobs"]
        ):
            return
        if self.skip_dominated:  # small ones first, so that what they show saves the large ones
            pending.sort(key=lambda job: memory_rank(job.plain))
        self._execute([job.entry for job in pending], progress)

    def _execute(self, pending: list[dict[str, Any]], progress: Progress) -> None:
        """Run jobs, in their order."""
        pool = Pool(self.dir, self.n_jobs, progress, self._save)
        pool.run(pending, self._is_blocked, stop=self.on_failure == "stop")

    def _is_blocked(self, job: dict[str, Any]) -> bool:
        """Note and return whether a job, whose turn has come, is skipped: one that needs no more memory ran out."""
        for other in self.sweep["jobs"] if self.skip_dominated else []:
            if other["status"] == "OOM" and is_dominated(self.plain[job["number"]], self.plain[other["number"]]):
                job |= {"status": "skipped", "dominated_by": other["number"]}
                return True
        return False

    def _freeze(self, job: Job) -> None:
        """Write the config that the job's process runs, whatever becomes of the YAML files until then."""
        config, entry = job.config, job.entry
        with read_write(config.hydra), open_dict(config):
            config.hydra.sweep.dir, config.hydra.sweep.subdir = str(self.dir), entry["dir"]
            config.hydra.job.id = config.hydra.job.num = entry["number"]
            if config.get("run_name") is None and entry["point"]:
                config.run_name = names.job_name(entry["point"])
            if "group" in (config.get("tracking") or {}) and config.tracking.group is None:
                config.tracking.group = self.sweep["name"]
        frozen: dict[str, Any] = {"module": self.module, "function": self.function}
        frozen["arguments"] = [*self.own, *job.overrides]
        path = frozen_path(self.dir, entry)
        path.parent.mkdir(exist_ok=True)
        frozen |= {"config": config, "commits": job.commits, "memory_limit": self.wanted.memory_limit}
        path.write_bytes(pickle.dumps(frozen))

    def _save(self, status: str = "running") -> None:
        self.sweep |= {"status": status, "end": None if status == "running" else now()}
        sweep_summary.write_summary(self.dir, self.sweep)
        sweep_dashboard.update(self.dir, self.sweep)

    def _job_return(self, job: Job) -> JobReturn:
        """Return what sweepers want: the metric; the plain one would end the sweep at a job that failed."""
        result = JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED)
        same = next((each for each in self.sweep["jobs"] if each["number"] == job.entry.get("same_as")), job.entry)
        result.return_value = same.get("value")
        if same["status"] != "finished" and not self._is_basic():
            why = RuntimeError(f"job {job.entry['number']} {job.entry['status']}")
            result.status, result.return_value = JobStatus.FAILED, why
        return result


def _importable(task: Callable[..., object]) -> tuple[str, str]:
    """Return module and name of the function that a job calls, as another process imports them."""
    module = task.__module__
    if module == "__main__":
        spec = sys.modules["__main__"].__spec__
        if spec is None:
            raise ConfigError("a sweep is started with python -m MODULE, so that its jobs can import the module")
        module = spec.name
    return module, task.__qualname__
