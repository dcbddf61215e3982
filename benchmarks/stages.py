"""Time the stages of a training script from outside: the same instrument for every contender."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SECONDS: dict[str, float] = defaultdict(float)
_open: list[str] = []  # stages that are running, the innermost last: its time is not the outer one's


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Add the time of the block to a stage, less that of stages inside it."""
    start = time.perf_counter()
    _open.append(name)
    try:
        yield
    finally:
        elapsed = time.perf_counter() - start
        _open.pop()
        SECONDS[name] += elapsed
        if _open:
            SECONDS[_open[-1]] -= elapsed


def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with its time added to a stage."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with stage(name):
            return function(*args, **kwargs)

    return wrapped


def instrument(trainer_class: type) -> None:
    """Time a trainer class: its batch sampler, its steps (waiting for data included), its evaluations, its saving."""
    trainer_class.train = timed("steps", trainer_class.train)  # type: ignore[attr-defined]
    trainer_class.evaluate = timed("in-training evaluation", trainer_class.evaluate)  # type: ignore[attr-defined]
    trainer_class._save_checkpoint = timed("checkpoints", trainer_class._save_checkpoint)  # type: ignore[attr-defined]
    make_sampler = trainer_class.get_batch_sampler  # type: ignore[attr-defined]

    def get_batch_sampler(self: Any, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        sampler = make_sampler(self, dataset, *args, **kwargs)
        if dataset is self.train_dataset:
            iterate = type(sampler).__iter__

            class Timed(type(sampler)):  # type: ignore[misc]
                def __iter__(self) -> Iterator[list[int]]:
                    batches = iterate(self)
                    while True:
                        with stage("sampler"):
                            batch = next(batches, None)
                        if batch is None:
                            return
                        yield batch

            sampler.__class__ = Timed
        return sampler

    trainer_class.get_batch_sampler = get_batch_sampler  # type: ignore[attr-defined]


def write(path: Path) -> None:
    """Write the seconds of all stages."""
    path.write_text(json.dumps(SECONDS))
