"""Which jobs of a sweep are skipped, since a smaller one ran out of memory."""

from __future__ import annotations

from typing import Any

from experiments.config.keys import Role, digest, effective, keys_of, values_of


def is_dominated(config: dict[str, Any], by: dict[str, Any]) -> bool:
    """Return whether a job surely needs another's memory or more: each memory key at least as large, all else equal.

    A mini-batch that is counted in tokens has fewer pages where these are larger, so `max_pixels` must be equal then;
    one that is chosen by the memory there is (`auto`) tells nothing. What the workers take is the host's memory, and
    which memory ran out isn't known, so all that decides it must be equal, too.
    """
    if config.get("loss", {}).get("mini_batch_size") == "auto":
        return False
    ours, theirs = values_of(config, Role.MEMORY), values_of(by, Role.MEMORY)
    for key in keys_of(Role.MEMORY):
        mine, other = ours.get(key), theirs.get(key)
        are_numbers = isinstance(mine, int | float) and isinstance(other, int | float)
        can_grow = are_numbers and not (key == "model.max_pixels" and _counts_tokens(config.get("loss", {})))
        if not (mine >= other if can_grow else mine == other):  # type: ignore[operator]
            return False
    if values_of(config, Role.HOST) != values_of(by, Role.HOST):
        return False
    return digest(effective(config, Role.MEMORY)) == digest(effective(by, Role.MEMORY))


def memory_rank(config: dict[str, Any]) -> float:
    """Return a number that is smaller for a job that `is_dominated` by none of those after it, to run it first."""
    return sum(value for value in values_of(config, Role.MEMORY).values() if isinstance(value, int | float))


def _counts_tokens(loss: dict[str, Any]) -> bool:
    budgets = (loss.get("mini_batch_num_tokens"), loss.get("default_num_tokens"))
    return loss.get("mini_batch_size") is None and any(budgets)
