"""Which jobs of a sweep are skipped, since a smaller one ran out of memory."""

from __future__ import annotations

from typing import Any

from experiments.config.hints import select
from experiments.config.keys import digest, effective

# A larger value of any of these never needs less memory.
MEMORY_KEYS = (
    *(f"loss.{key}" for key in ("mini_batch_size", "mini_batch_num_tokens", "default_num_tokens")),
    *("model.max_pixels", "evaluator.batch_size"),
    *("trainer.per_device_train_batch_size", "trainer.per_device_eval_batch_size"),
)


def is_dominated(config: dict[str, Any], by: dict[str, Any]) -> bool:
    """Return whether a job needs another's memory or more: each memory key at least as large, all else equal."""
    ours, theirs = effective(config), effective(by)
    for key in MEMORY_KEYS:
        group, _, name = key.partition(".")
        mine, other = (each.get(group, {}).pop(name, None) for each in (ours, theirs))
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (mine, other))
        if not (mine >= other if numbers else mine == other):
            return False
    return digest(ours) == digest(theirs)


def memory_rank(config: dict[str, Any]) -> float:
    """Return a number that is smaller for a job that `is_dominated` by none of those after it, to run it first."""
    values = [select(config, key) for key in MEMORY_KEYS]
    return sum(value for value in values if isinstance(value, int | float))
