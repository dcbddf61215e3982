"""Whether `loss.mini_batch_size=auto` can know how much memory there is."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path
from typing import Any

from experiments.config.errors import ConfigError

DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


def check(loss: dict[str, Any], has_gpu: bool | None = None) -> None:
    """Refuse it where nothing bounds the memory, and in several processes.

    Args:
        loss: The config's node.
        has_gpu: Whether torch has one; None: what can be told without torch.

    Raises:
        ConfigError: If the mini-batch depends on the memory, and that isn't known.
    """
    if loss.get("mini_batch_size") != "auto":
        return
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ConfigError("loss.mini_batch_size=auto works in one process alone; type a number, e.g. 16")
    unlimited = loss.get("memory_limit") is None and data_limit() is None
    if unlimited and not (_may_have_gpu() if has_gpu is None else has_gpu):
        raise ConfigError(
            "loss.mini_batch_size=auto: there is no GPU whose memory would bound it; "
            "type loss.memory_limit=4GiB (the whole process), or a number"
        )


def data_limit() -> int | None:
    """Return how many bytes the system lets this process have (a sweep's limit, or ulimit -d); None: any number."""
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return None if limit == resource.RLIM_INFINITY else limit


def _may_have_gpu() -> bool:
    """Return False where there surely is none, neither here nor for a job that is submitted from here."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    return any(map(shutil.which, ("nvidia-smi", "sbatch"))) or any(Path(driver).exists() for driver in DRIVERS)
