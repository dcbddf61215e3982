"""What a config key means beyond its constructor: its part in a result and in its cost.

Types are in the constructors' annotations, bounds and choices where `bounds.py` says. `*` in a key is any one part.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from enum import Flag, auto
from fnmatch import fnmatchcase
from typing import Any

from experiments.config.json_values import plain


class Role(Flag):
    """What part a key plays in a run."""

    SEED = auto()  # tells repetitions of one setting apart
    NO_EFFECT = auto()  # can't change weights or metrics
    HOST = auto()  # of these, what decides the time and memory of the host: processes and batches ahead of the model
    MEMORY = auto()  # a larger value never needs less memory (where `skipped_jobs` makes no exception)
    NO_COST = auto()  # decides what is learnt, not how long it takes
    SCALES_COST = auto()  # an estimate scales by it
    SAME_COST = auto()  # runs that differ in it tell nothing of each other's cost
    METRICS = auto()  # decides what the metrics are of


def _in(group: str, keys: str) -> tuple[str, ...]:
    return tuple(f"{group}.{key}" for key in keys.split())


_HOST = (
    *_in("trainer", "dataloader_num_workers dataloader_prefetch_factor dataloader_pin_memory"),
    *("trainer.dataloader_persistent_workers", "evaluator.num_workers"),
)
_KEYS: dict[Role, tuple[str, ...]] = {
    Role.SEED: (  # data.seed is none: that is another data set
        *("seed", *_in("model", "seed name.seed encoders.*.name.seed")),
        *(*_in("evaluator", "retriever.seed seed"), *_in("trainer", "seed data_seed")),
    ),
    Role.NO_EFFECT: (
        *("run_name", "tracking", "experiment", "cache_dir", "allow_targets"),
        *_in("model", "cache_dir name.cache_dir encoders.*.name.cache_dir"),
        *_in("data", "path.cache_dir cache_dir"),
        *(*_HOST, *_in("evaluator", "retriever.cache_dir show_progress_bar cache_dir")),
        *_in("trainer", "ddp_timeout logging_steps logging_strategy logging_first_step"),
        *_in("trainer", "disable_tqdm report_to run_name output_dir resume push_to_hub"),
        *_in("trainer", "hub_model_id hub_private_repo hub_revision hub_token"),
    ),
    Role.HOST: _HOST,
    Role.MEMORY: (
        *("model.max_pixels", *_in("loss", "mini_batch_size mini_batch_num_tokens default_num_tokens")),
        *("evaluator.batch_size", *_in("trainer", "per_device_train_batch_size per_device_eval_batch_size")),
    ),
    Role.NO_COST: (
        *("loss.scale", "matryoshka.truncate_dim"),
        *_in("trainer", "learning_rate lr_scheduler_type warmup_steps weight_decay"),
        *_in("trainer", "adam_beta1 adam_beta2 adam_epsilon max_grad_norm"),
    ),
    Role.SCALES_COST: (
        *_in("model", "min_pixels max_pixels"),
        *_in("data", "num_train_rows num_eval_rows num_negatives page_size"),
        *_in("trainer", "num_train_epochs max_steps eval_strategy eval_steps"),
    ),
    Role.SAME_COST: (
        *_in("model", "_target_ name transformer_task embedding_dim"),
        *_in("data", "_target_ path name train corpus"),
    ),
    Role.METRICS: _in("evaluator", "_target_ num_candidates retriever"),
}


def keys_of(role: Role) -> list[str]:
    """Return the keys that play one of the parts."""
    return [*dict.fromkeys(key for each, keys in _KEYS.items() if each & role for key in keys)]


def plays(key: str, role: Role) -> bool:
    """Return whether a key of a config plays one of the parts."""
    return any(key.count(".") == each.count(".") and fnmatchcase(key, each) for each in keys_of(role))


def values_of(config: dict[str, Any], role: Role) -> dict[str, Any]:
    """Return the values of the keys in a resolved config that play one of the parts."""
    return {key: node[last] for key, node, last in _places(config, role)}


def effective(config: dict[str, Any], without: Role = Role.NO_EFFECT) -> dict[str, Any]:
    """Return a copy of a resolved config without the keys that cannot change weights or metrics, and `without`."""
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
