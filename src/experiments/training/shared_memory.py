"""Whether the batches that a data loader's workers hand over fit /dev/shm, of which a container has 64 MB.

A worker that finds no room there is killed by a bus error, or never hands its batch over: the training waits for good.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

SHARED = Path("/dev/shm")
MARGIN = 1.2  # the rows that tell the size of a batch are a sample
_SAMPLE = 16
Collate = Callable[[list[dict[str, Any]]], Any]

logger = logging.getLogger(__name__)


def fit_workers(args: Any, collate: Collate, train: Any, eval: Any) -> None:
    """Lower the workers in the training arguments to as many as fit, and warn with what to type for all of them.

    The features of a few rows, as `collate` makes them, tell the bytes of a batch; `eval` are the rows of the
    evaluation loss. Either may be several data sets by name.
    """
    asked = args.dataloader_num_workers
    if not asked or not SHARED.is_dir():
        return
    batch = _batch_bytes(collate, train, args.per_device_train_batch_size)
    if eval and args.eval_strategy != "no":  # while the training's next batches wait
        batch += _batch_bytes(collate, eval, args.per_device_eval_batch_size)
    batch *= int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # the processes of a machine share it
    loading = args.dataloader_prefetch_factor or 2, args.gradient_accumulation_steps
    space, wanted = shutil.disk_usage(SHARED), needed(batch, asked, *loading)
    fitting = next(number for number in range(asked, -1, -1) if needed(batch, number, *loading) <= space.free)
    if fitting == asked:
        return
    logger.warning(
        "%s has %s MiB free, and %d workers need %s for the batches that they hand over: %d will do it. "
        "For all type docker run --shm-size=%dg …, without this warning trainer.dataloader_num_workers=%d",
        *(SHARED, f"{space.free / 2**20:,.0f}", asked, f"{wanted / 2**20:,.0f}", fitting),
        *(math.ceil((space.used + wanted) / 2**30), fitting),
    )
    args.dataloader_num_workers = fitting
    if not fitting:
        args.dataloader_persistent_workers, args.dataloader_prefetch_factor = False, None


def needed(batch_bytes: int, num_workers: int, prefetch_factor: int, num_accumulated: int) -> int:
    """Return the bytes in shared memory: what the workers make ahead, and the batches of a step and the next one."""
    in_flight = num_workers * prefetch_factor + num_accumulated + 1
    return math.ceil(MARGIN * batch_bytes * in_flight) if num_workers else 0


def _batch_bytes(collate: Collate, rows: Any, batch_size: int) -> int:
    """Return the bytes of a batch of rows that are as large as the largest of a sample."""
    if isinstance(rows, dict):
        named = [(partial(_named, collate, name), each) for name, each in rows.items()]
        return max(_batch_bytes(collate_named, each, batch_size) for collate_named, each in named)
    sample = np.unique(np.linspace(0, len(rows) - 1, _SAMPLE).astype(int)).tolist()
    return min(batch_size, len(rows)) * max(_num_bytes(collate([rows[row]])) for row in sample)


def _named(collate: Collate, name: str, rows: list[dict[str, Any]]) -> Any:
    return collate([row | {"dataset_name": name} for row in rows])


def _num_bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.nbytes
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return sum(map(_num_bytes, parts))
