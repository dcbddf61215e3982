"""What may have been meant by a mistyped name, and values as they are typed on the command line."""

from __future__ import annotations

import difflib
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn

from experiments.config.errors import ConfigError

_OFTEN_CALLED = {  # keys and groups, and what they are called elsewhere, where no letters lead from one to the other
    "model": "model_name model_name_or_path model_path model_id base_model checkpoint",
    "data": "dataset datasets dataset_name dataset_path data_path data_dir",
    "experiment": "recipe",
    "data.train": "train_file train_path train_data train_dataset",
    "data.eval": "eval_file eval_path eval_data eval_dataset validation_file test_file",
    "data.num_train_rows": "max_samples num_samples max_train_samples",
    "hydra.run.dir": "output_dir output out_dir out save_dir save_path",
    "loss.mini_batch_size": "micro_batch_size",
    "matryoshka.matryoshka_dims": "dims dimensions truncate_dims",
    "model.dtype": "precision torch_dtype",
    "seed": "random_seed",
    "trainer.per_device_train_batch_size": "batch_size train_batch_size bs",
    "trainer.num_train_epochs": "epochs epoch num_epochs n_epochs",
    "trainer.max_steps": "steps num_steps max_train_steps",
    "trainer.learning_rate": "lr",
    "trainer.lr_scheduler_type": "scheduler lr_scheduler",
    "trainer.warmup_steps": "warmup warmup_ratio",
    "trainer.weight_decay": "wd",
    "trainer.optim": "optimizer",
    "trainer.resume": "resume_from_checkpoint",
    "trainer.gradient_accumulation_steps": "grad_accum gradient_accumulation accumulation_steps",
    "trainer.dataloader_num_workers": "workers num_workers",
}
ELSEWHERE = {word: key for key, words in _OFTEN_CALLED.items() for word in words.split()}


def nearest(name: str, candidates: Iterable[str]) -> list[str]:
    """Return up to three candidates that someone who typed `name` may have meant, the likeliest first.

    What counts is a key's last part, by letters or initials: `mini_batch_size` means `loss.mini_batch_size`, and
    `trainer.lr` `trainer.learning_rate`. Then its group.
    """
    parent, _, typed = name.rpartition(".")
    meant, candidates = ELSEWHERE.get(typed, ""), [*candidates]
    if parent in ("", meant.rpartition(".")[0]) and (known := {meant, f"+{meant}"} & {*candidates}):
        return [*known]
    found = []
    for key in dict.fromkeys(candidates):
        group, _, last = key.removeprefix("+").rpartition(".")
        initials = "".join(word[:1] for word in last.split("_"))
        alike = 0.9 if typed == initials else difflib.SequenceMatcher(None, typed, last).ratio()
        if alike >= 0.7 and key != name:
            rank = (alike, group == parent, key[0] != "+")
            found.append((rank, difflib.SequenceMatcher(None, name, key).ratio(), key))
    found.sort(key=lambda each: each[2])
    found.sort(key=lambda each: each[:2], reverse=True)  # of equals the first by name: qwen3vl_2b before _8b
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

    if key == "allow_targets":
        return f"allow_targets isn't in the config yet: to add it, type +{typed}"
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


def quoted(text: str) -> str:
    """Return a text as the command line takes it: in quotes where Hydra would read something else, or nothing."""
    marks = r"[\w./\\+$%*@?|:-]"
    if re.fullmatch(rf"(?![\d.]+$){marks}+( +{marks}+)*", text, re.ASCII):
        return text
    return '"' + text.replace('"', '\\"') + '"'


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
