"""Keys of a config that tell runs apart, and those that don't: seeds, and what cannot change a result."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable
from typing import Any

from experiments.config.json_values import plain

_TWIN_ROUTES = ("text", "image", "query", "document")  # encoders of a Router that an offline twin may stand in for

# Keys of the resolved config that cannot change weights or metrics.
_WITHOUT_EFFECT = (
    *("run_name", "tracking", "experiment"),
    *("cache_dir", "data.cache_dir", "data.path.cache_dir", "model.cache_dir", "evaluator.cache_dir"),
    *("model.name.cache_dir", "evaluator.retriever.cache_dir"),
    *(f"model.encoders.{route}.name.cache_dir" for route in _TWIN_ROUTES),
    *("evaluator.num_workers", "evaluator.show_progress_bar", "trainer.resume"),
    *(f"trainer.dataloader_{key}" for key in ("num_workers", "prefetch_factor", "pin_memory", "persistent_workers")),
    *("trainer.logging_steps", "trainer.logging_strategy", "trainer.logging_first_step", "trainer.disable_tqdm"),
    *("trainer.report_to", "trainer.run_name", "trainer.output_dir", "trainer.push_to_hub"),
    *("trainer.hub_model_id", "trainer.hub_private_repo", "trainer.hub_revision", "trainer.hub_token"),
)
SEEDS = (  # not data.seed: that is another data set
    *("seed", "trainer.seed", "trainer.data_seed", "model.seed", "evaluator.seed"),
    *("model.name.seed", "evaluator.retriever.seed"),
    *(f"model.encoders.{route}.name.seed" for route in _TWIN_ROUTES),
)


def effective(config: dict[str, Any], without: Iterable[str] = ()) -> dict[str, Any]:
    """Return a copy of a resolved config without the keys that cannot change weights or metrics.

    Args:
        config: The resolved config.
        without: More dotted keys to leave out, such as `SEEDS`.
    """
    kept = copy.deepcopy(config)
    for path in (*_WITHOUT_EFFECT, *without):
        *parents, last = path.split(".")
        node: Any = kept
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node.pop(last, None)
    return kept


def digest(value: Any) -> str:
    """Return the SHA-256 of a value that JSON can hold, whatever the order of its keys."""
    canonical = json.dumps(plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def config_hash(config: dict[str, Any]) -> str:
    """Return the SHA-256 of a resolved config without the keys that cannot change weights or metrics."""
    return digest(effective(config))
