"""One job of a sweep, in a process of its own: python -m hydra_plugins.experiments_launcher._child JOB.pickle PARENT.

The process's exit code is that of a single run. What it can tell about its end goes to JOB.json; one that is killed
or leaves through `os._exit` tells nothing.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import pickle
import signal
import sys
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.utils import JobRuntime, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import OmegaConf

from experiments import cli
from experiments.config import checks, targets
from experiments.config.errors import ConfigError, one_line
from experiments.config.options import CONF
from experiments.runs import memory, progress
from experiments.runs.files import save_json


def main() -> int:
    """Run the job that a pickle describes and return the exit code."""
    job_file = Path(sys.argv[1])
    _die_with(parent=int(sys.argv[2]))
    frozen = pickle.loads(job_file.read_bytes())
    config, module = frozen["config"], frozen["module"]
    targets.allow([*(config.get("allow_targets") or [])])  # the parent has seen that they were typed
    sys.orig_argv = ["python", "-m", module, *frozen["arguments"]]  # the record's command
    task = getattr(importlib.import_module(module), frozen["function"])
    if frozen["memory_limit"] is not None:
        for _, node in checks.targets(OmegaConf.to_container(config)):  # the heavy imports come before the limit
            importlib.import_module(node["_target_"].rpartition(".")[0])
        memory.limit_memory(frozen["memory_limit"])
    if frozen["commits"]:
        from experiments.config import hub

        hub.take(frozen["commits"])
    progress.keep_in(job_file.with_suffix(".progress"))
    failures: list[Exception] = []
    outcome: dict[str, Any] = {"status": "exited", "error": None}
    try:
        version.setbase(cli.HYDRA_VERSION_BASE)
        setup_globals()
        JobRuntime.instance().set("name", config.hydra.job.name)
        loader = ConfigLoaderImpl(create_config_search_path(str(CONF)))
        context = HydraContext(config_loader=loader, callbacks=Callbacks(config))
        job = cli.make_job(task, failures, keep_traceback=False)
        run_job(job, config, "hydra.sweep.dir", "hydra.sweep.subdir", context)
        outcome["status"] = "finished"
        for failure in failures:
            ran_out = isinstance(failure, cli.TaskError) and failure.out_of_memory
            status = "refused" if isinstance(failure, ConfigError) else "OOM" if ran_out else "failed"
            outcome = {"status": status, "error": one_line(str(failure))}
            sys.stderr.write(f"error: {outcome['error']}\n")
    except Exception as error:
        outcome = {"status": "OOM" if memory.is_out_of_memory(error) else "failed", "error": one_line(repr(error))}
        raise
    finally:  # sys.exit in the job comes by here too
        memory.lift_memory_limit()
        save_json(job_file.with_suffix(".json"), outcome | memory.peak())
    return {"finished": 0, "refused": 2}.get(outcome["status"], 1)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when the one that started it ends, however it ends."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
