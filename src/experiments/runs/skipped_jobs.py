"""Which jobs of a sweep are skipped, since a smaller one ran out of memory."""

from __future__ import annotations

from typing import Any

from experiments.config.keys import Role, digest, effective, keys_of, values_of


def is_dominated(config: dict[str, Any], by: dict[str, Any]) -> bool:
    """Return whether a job needs another's memory or more: each memory key at least as large, all else equal."""
    ours, theirs = values_of(config, Role.MEMORY), values_of(by, Role.MEMORY)
    for key in keys_of(Role.MEMORY):
        mine, other = ours.get(key), theirs.get(key)
        are_numbers = isinstance(mine, int | float) and isinstance(other, int | float)
        if not (mine >= other if are_numbers else mine == other):  # type: ignore[operator]
            return False
    return digest(effective(config, Role.MEMORY)) == digest(effective(by, Role.MEMORY))


def memory_rank(config: dict[str, Any]) -> float:
    """Return a number that is smaller for a job that `is_dominated` by none of those after it, to run it first."""
    return sum(value for value in values_of(config, Role.MEMORY).values() if isinstance(value, int | float))
