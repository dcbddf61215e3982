"""`loss.mini_batch_size=auto`: the largest mini-batch that fits, found by doubling on the costliest inputs.

Each candidate is a real training step without the optimizer, on as many rows as the mini-batch holds; the one chosen
then does a step on a whole batch. What it leaves behind is undone, so that training goes on as if the size had been
typed.
"""

from __future__ import annotations

import gc
import logging
import random
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from datasets import Dataset
from datasets import Image as ImageFeature
from psutil import Process
from sentence_transformers.base.model import BaseModel
from torch import nn

from experiments.config.fits_memory import data_limit
from experiments.config.values import parse_bytes
from experiments.data.encoded_pages import encoded_values
from experiments.data.resized_pages import bounds, image_processor
from experiments.runs.memory import is_out_of_memory, peak_of

MARGIN = 1.1  # what a step takes is measured; training may take a tenth more
OPTIMIZER_COPIES = 2  # AdamW's two moments, which exist only after the first step

logger = logging.getLogger(__name__)


def choose(
    model: nn.Module, step: Callable[[int, int], object], batch_size: int, memory_limit: str | int | None
) -> dict[str, Any]:
    """Return the largest mini-batch that fits, among 1, 2, 4, … and the batch itself.

    Args:
        model: Its gradients, buffers and random states are left as they were found (no gradient is expected).
        step: Does a forward and backward pass: called with the mini-batch size and the number of rows.
        batch_size: Rows in a batch.
        memory_limit: Of the process (on a GPU of the device's memory), such as "4GiB"; None: the device's memory, or
            what the system lets the process allocate.

    Returns:
        `mini_batch_size`, why not the next one (`reason`), and in bytes what its step took and what there was
        (`step_bytes`, `free_bytes`). If not even one input fits, a MemoryError is raised.
    """
    with _undone(model):
        trained = (each.numel() * each.element_size() for each in model.parameters() if each.requires_grad)
        start, free = in_use(), _free(parse_bytes(memory_limit)) - OPTIMIZER_COPIES * sum(trained)
        taken: dict[int, float] = {}
        reason = "the whole batch fits"
        for size in [*(2**power for power in range((batch_size - 1).bit_length())), batch_size]:
            expected = _extrapolate(taken, size)
            if expected <= free:
                expected = _measure(step, size, size, start)
            if expected * MARGIN > free:
                reason = f"{size} would need {_text(expected)} of {_text(free)}"
                break
            taken[size] = expected
        while taken:  # a whole batch holds more than the rows of one mini-batch
            size = max(taken)
            found = _measure(step, size, batch_size, start)
            if found * MARGIN <= free:
                logger.info("Mini-batches of %d: %s (a step takes %s)", size, reason, _text(found))
                return {"mini_batch_size": size, "reason": reason, "step_bytes": int(found), "free_bytes": free}
            reason = f"{size} in a whole batch would need {_text(found)} of {_text(free)}"
            del taken[size]
    raise MemoryError(
        f"out of memory: not even loss.mini_batch_size=1 fits ({reason}); "
        "lower model.max_pixels or trainer.per_device_train_batch_size, or raise loss.memory_limit"
    )


def costliest_rows(dataset: Dataset, model: BaseModel, number: int) -> list[dict[str, Any]]:
    """Return so many rows made of the inputs of each column that cost the most, the costliest first.

    Pages are read, not decoded: the model's processor says how many patches they have, its tokenizer how many tokens
    a text.
    """
    names = dataset.column_names
    costs = np.zeros((len(names), len(dataset)), dtype=np.int64)
    cost_of = [_page_cost if isinstance(each, ImageFeature) else _text_cost for each in dataset.features.values()]
    for row, column, value in encoded_values(dataset):
        costs[column, row] = 0 if value is None else cost_of[column](bytes(value), model)
    orders = np.argsort(-costs, kind="stable")[:, :number].tolist()
    columns = [dataset.select_columns([name])[rows][name] for name, rows in zip(names, orders, strict=True)]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _text_cost(text: bytes, model: BaseModel) -> int:
    return len(model.tokenizer(text.decode(), verbose=False)["input_ids"])


def _page_cost(page: bytes, model: BaseModel) -> int:
    """Return the patches of a page, or its pixels where the model has a processor that doesn't say."""
    with PIL.Image.open(BytesIO(page)) as image:
        width, height = image.size
    processor = image_processor(model)
    return width * height if bounds(processor) is None else processor.get_number_of_image_patches(height, width)


def _extrapolate(taken: dict[int, float], size: int) -> float:
    """Return what a step of this size would take, on the line through the two sizes before; 0 before there are two."""
    if len(taken) < 2:
        return 0.0
    (smaller, low), (larger, high) = sorted(taken.items())[-2:]
    return high + (high - low) * (size - larger) / (larger - smaller)


def _measure(step: Callable[[int, int], object], size: int, num_rows: int, start: int) -> float:
    """Return by how many bytes the memory in use rose above `start` during a step; infinite if it ran out."""
    _reset_peak()
    try:
        step(size, num_rows)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the tensors
        gc.collect()
        return float("inf")
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_of("self") or 0
    return max(0, peak - start)


def in_use() -> int:
    """Return the bytes that the process has taken: of the GPU or, without one, as it stands in memory."""
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else Process().memory_info().rss


def _free(limit: int | None) -> int:
    """Return how many bytes the process may take beyond those in use."""
    if torch.cuda.is_available():
        allocated = torch.cuda.memory_allocated()
        free = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - allocated
        return free if limit is None else min(free, limit - allocated)
    taken = Process().memory_info()
    limits = ((limit, taken.rss), (data_limit(), taken.data))
    return min(most - part for most, part in limits if most is not None)


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):  # where it isn't allowed, an earlier peak counts for this step: the safe side
        Path("/proc/self/clear_refs").write_text("5")


@contextmanager
def _undone(model: nn.Module) -> Iterator[None]:
    """Put random states, buffers and gradients back afterwards."""
    states, buffers = (random.getstate(), np.random.get_state()), [buffer.clone() for buffer in model.buffers()]
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, before in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(before)
        _reset_peak()


def _text(size: float) -> str:
    return "more than there is" if size == float("inf") else f"{size / 2**20:,.0f} MiB"
