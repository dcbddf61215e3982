"""What may have been meant by a mistyped name, and values as they are typed on the command line."""

from __future__ import annotations

import difflib
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn

from experiments.config.errors import ConfigError


def nearest(name: str, candidates: Iterable[str]) -> list[str]:
    """Return up to three candidates that someone who typed `name` may have meant, the likeliest first.

    What counts is a key's last part, by letters or initials: `mini_batch_size` means `loss.mini_batch_size`, and
    `trainer.lr` `trainer.learning_rate`. Then its group.
    """
    parent, _, typed = name.rpartition(".")
    found = []
    for key in dict.fromkeys(candidates):
        group, _, last = key.removeprefix("+").rpartition(".")
        initials = "".join(word[:1] for word in last.split("_"))
        alike = 0.9 if typed == initials else difflib.SequenceMatcher(None, typed, last).ratio()
        if alike >= 0.7 and key != name:
            rank = (alike, group == parent, key[0] != "+")
            found.append((rank, difflib.SequenceMatcher(None, name, key).ratio(), key))
    found.sort(reverse=True)
    return [key for rank, _, key in found if rank == found[0][0]][:3]


def hint(name: str, candidates: Iterable[str], listed: Iterable[str] = ()) -> str:
    """Return `did you mean ...?`, or the list of what there is where nothing is near."""
    near = nearest(name, candidates)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(listed) or 'none'}"


def unknown_option(group: str, option: str, options: Sequence[str]) -> str:
    """Say what may have been meant by an option that its group hasn't got."""
    near = nearest(option, options)
    did_you_mean = f"; did you mean {group}={near[0]}? " if near else ": "  # before the list, which may be cut
    return f"{group}={option} is unknown{did_you_mean}{group} is one of {', '.join(options)}"


def unknown_key(key: str, typed: str, config: dict[Any, Any], groups: list[str]) -> str:
    """Say what may have been meant by a key that isn't in the config, the arguments of its target included."""
    from experiments.config.signatures import signature  # not needed for --help

    group, _, name = key.partition(".")
    known = [k for k in dotted_keys(config) if k.startswith("hydra.") == key.startswith("hydra.")]
    node = config.get(group)
    if not isinstance(node, dict) or "_target_" not in node or not name:
        return f"{key} is unknown; {hint(key, [*known, *groups], [k for k in config if k != 'hydra'])}"
    more = [parameter for parameter in signature(node["_target_"]).parameters if parameter not in node]
    if name in more:
        return f"{key} isn't in the config yet: to add it, type +{typed}"
    inside = [k for k in known if k.startswith(f"{group}.")]
    near_by = [*inside, *(f"+{group}.{parameter}" for parameter in more)]
    return f"{key} is unknown; {hint(key, near_by if nearest(key, near_by) else known, inside)}"


def show(value: object) -> str:
    """Write a value as it is typed on the command line."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(show, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{show(item)}' for key, item in value.items())}}}"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def dotted_keys(node: dict[Any, Any], prefix: str = "") -> Iterator[str]:
    """Yield every key of a config as it is typed on the command line."""
    for name, value in node.items():
        if not str(name).startswith("_"):
            yield f"{prefix}{name}"
            if isinstance(value, dict):
                yield from dotted_keys(value, f"{prefix}{name}.")


def select(config: dict[str, Any], key: str) -> Any:
    """Return the value at a dotted key, or None where there is none."""
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def parse_flags(
    parser: ArgumentParser,
    arguments: Sequence[str] | None = None,
    also: Sequence[str] = (),
    otherwise: str = "--help says more",
) -> Namespace:
    """Return what was typed, by default on the command line; a mistake in it is a ConfigError, not a page of usage.

    Args:
        parser: Of the command.
        arguments: As typed.
        also: Flags that there are beside the parser's.
        otherwise: What to do where the mistake isn't a flag's name.
    """
    flags = [max(action.option_strings, key=len) for action in parser._actions if action.option_strings]
    flags = [*also, *flags]

    def refuse(message: str) -> NoReturn:
        typed = message.rpartition(": ")[2].split()[0].partition("=")[0]
        raise ConfigError(f"{message}; {hint(typed, flags, flags) if typed[0] == '-' else otherwise}")

    parser.error = refuse  # type: ignore[method-assign]  # it would print its usage and leave
    return parser.parse_args(arguments)
