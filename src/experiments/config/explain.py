"""One line for an option or a key that isn't there: what may have been meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.config.hints import dotted_keys, hint, nearest


def unknown_option(group: str, option: str, options: Sequence[str]) -> str:
    """Say what may have been meant by an option that its group hasn't got."""
    near = nearest(option, options)
    did_you_mean = f"; did you mean {group}={near[0]}? " if near else ": "  # before the list, which may be cut
    return f"{group}={option} is unknown{did_you_mean}{group} is one of {', '.join(options)}"


def unknown_key(key: str, typed: str, config: dict[Any, Any], groups: list[str]) -> str:
    """Say what may have been meant by a key that isn't in the config, the arguments of its target included."""
    from experiments.config.signatures import signature

    group, _, name = key.partition(".")
    known = [k for k in dotted_keys(config) if k.startswith("hydra.") == key.startswith("hydra.")]
    node = config.get(group)
    if not isinstance(node, dict) or "_target_" not in node or not name:
        return f"{key} is unknown; {hint(key, [*known, *groups], [k for k in config if k != 'hydra'])}"
    more = [parameter for parameter in signature(node["_target_"]) if parameter not in node]
    if name in more:
        return f"{key} isn't in the config yet: to add it, type +{typed}"
    inside = [k for k in known if k.startswith(f"{group}.")]
    near_by = [*inside, *(f"+{group}.{parameter}" for parameter in more)]
    return f"{key} is unknown; {hint(key, near_by if nearest(key, near_by) else known, inside)}"
