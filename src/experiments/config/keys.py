"""What a config key means beyond its constructor: its part in a result and in its cost.

Types are in the constructors' annotations, bounds and choices where `bounds.py` says. `*` in a key is any one part.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from enum import Flag, auto
from typing import Any

from experiments.config.json_values import plain


class Role(Flag):
    """What part a key plays in a run."""

    SEED = auto()  # tells repetitions of one setting apart
    NO_EFFECT = auto()  # can't change weights or metrics
    MEMORY = auto()  # a larger value never needs less memory
    NO_COST = auto()  # decides what is learnt, not how long it takes
    SCALES_COST = auto()  # an estimate scales by it
    SAME_COST = auto()  # runs that differ in it tell nothing of each other's cost
    METRICS = auto()  # decides what the metrics are of
    FILES = auto()  # may name files, whose content decides the result


_ROLES = {
    "run_name": Role.NO_EFFECT,
    "tracking": Role.NO_EFFECT,
    "experiment": Role.NO_EFFECT,
    "cache_dir": Role.NO_EFFECT,
    "seed": Role.SEED,  # data.seed is none: that is another data set
    "model._target_": Role.SAME_COST,
    "model.name": Role.SAME_COST | Role.FILES,
    "model.transformer_task": Role.SAME_COST,
    "model.embedding_dim": Role.SAME_COST,
    "model.min_pixels": Role.SCALES_COST,
    "model.max_pixels": Role.SCALES_COST | Role.MEMORY,
    "model.seed": Role.SEED,
    "model.cache_dir": Role.NO_EFFECT,
    "model.name.seed": Role.SEED,
    "model.name.cache_dir": Role.NO_EFFECT,
    "model.encoders.*.name.seed": Role.SEED,
    "model.encoders.*.name.cache_dir": Role.NO_EFFECT,
    "data._target_": Role.SAME_COST,
    "data.path": Role.SAME_COST | Role.FILES,
    "data.path.cache_dir": Role.NO_EFFECT,
    "data.name": Role.SAME_COST,
    "data.train": Role.SAME_COST | Role.FILES,
    "data.eval": Role.FILES,
    "data.num_train_rows": Role.SCALES_COST,
    "data.num_eval_rows": Role.SCALES_COST,
    "data.num_negatives": Role.SCALES_COST,
    "data.page_size": Role.SCALES_COST,
    "data.cache_dir": Role.NO_EFFECT,
    "loss.mini_batch_size": Role.MEMORY,
    "loss.mini_batch_num_tokens": Role.MEMORY,
    "loss.default_num_tokens": Role.MEMORY,
    "loss.scale": Role.NO_COST,
    "matryoshka.truncate_dim": Role.NO_COST,
    "evaluator._target_": Role.METRICS,
    "evaluator.num_candidates": Role.METRICS,
    "evaluator.retriever": Role.METRICS,
    "evaluator.retriever.seed": Role.SEED,
    "evaluator.retriever.cache_dir": Role.NO_EFFECT,
    "evaluator.seed": Role.SEED,
    "evaluator.batch_size": Role.MEMORY,
    "evaluator.num_workers": Role.NO_EFFECT,
    "evaluator.show_progress_bar": Role.NO_EFFECT,
    "evaluator.cache_dir": Role.NO_EFFECT,
    "trainer.seed": Role.SEED,
    "trainer.data_seed": Role.SEED,
    "trainer.per_device_train_batch_size": Role.MEMORY,
    "trainer.per_device_eval_batch_size": Role.MEMORY,
    "trainer.num_train_epochs": Role.SCALES_COST,
    "trainer.max_steps": Role.SCALES_COST,
    "trainer.eval_strategy": Role.SCALES_COST,
    "trainer.eval_steps": Role.SCALES_COST,
    **dict.fromkeys(
        (
            *(f"trainer.{key}" for key in ("learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay")),
            *(f"trainer.{key}" for key in ("adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm")),
        ),
        Role.NO_COST,
    ),
    **dict.fromkeys(
        (
            *(f"trainer.dataloader_{key}" for key in ("num_workers", "prefetch_factor", "pin_memory")),
            *(f"trainer.logging_{key}" for key in ("steps", "strategy", "first_step")),
            *(f"trainer.{key}" for key in ("dataloader_persistent_workers", "disable_tqdm", "report_to", "run_name")),
            *(f"trainer.{key}" for key in ("output_dir", "resume", "push_to_hub")),
            *(f"trainer.hub_{key}" for key in ("model_id", "private_repo", "revision", "token")),
        ),
        Role.NO_EFFECT,
    ),
}


def keys_of(role: Role) -> list[str]:
    """Return the keys that play one of the parts."""
    return [key for key, roles in _ROLES.items() if roles & role]


def plays(key: str, role: Role) -> bool:
    """Return whether a key of a config plays one of the parts."""
    parts = key.split(".")
    found = (each.split(".") for each in keys_of(role))
    return any(
        len(each) == len(parts) and all(a in ("*", b) for a, b in zip(each, parts, strict=True)) for each in found
    )


def values_of(config: dict[str, Any], role: Role) -> dict[str, Any]:
    """Return the values of the keys in a resolved config that play one of the parts."""
    return {key: node[last] for key, node, last in _places(config, role)}


def effective(config: dict[str, Any], without: Role = Role.NO_EFFECT) -> dict[str, Any]:
    """Return a copy of a resolved config without the keys that cannot change weights or metrics.

    Args:
        config: The resolved config.
        without: More to leave out, such as `Role.SEED`.
    """
    kept = copy.deepcopy(config)
    for _, node, last in [*_places(kept, Role.NO_EFFECT | without)]:
        node.pop(last, None)
    return kept


def _places(config: dict[str, Any], role: Role) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield the keys in a config that play one of the parts, each with the node that holds it and its last part."""
    for key in keys_of(role):
        *parents, last = key.split(".")
        nodes = {"": config}
        for parent in parents:
            inside = [
                (f"{path}{name}.", child)
                for path, node in nodes.items()
                for name, child in node.items()
                if parent in ("*", name) and isinstance(child, dict)
            ]
            nodes = dict(inside)
        yield from ((f"{path}{last}", node, last) for path, node in nodes.items() if last in node)


def digest(value: Any) -> str:
    """Return the SHA-256 of a value that JSON can hold, whatever the order of its keys."""
    canonical = json.dumps(plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def config_hash(config: dict[str, Any]) -> str:
    """Return the SHA-256 of a resolved config without the keys that cannot change weights or metrics."""
    return digest(effective(config))
