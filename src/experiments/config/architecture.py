"""The sizes of a model by its `config.json`, from which its weights, activations and FLOPs are counted: Qwen3-VL's."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.utils import httpx

from experiments.config import hub
from experiments.config.model_files import adapter_base, local_folder

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Architecture:
    """The sizes of a Qwen3-VL that decide what it takes, as its `config.json` names them."""

    text: dict[str, Any]
    vision: dict[str, Any]

    def text_linears(self) -> Iterator[tuple[str, int, int]]:
        """Yield the projections of the language model: name, inputs, outputs."""
        t = self.text
        hidden, inner, head = t["hidden_size"], t["intermediate_size"], t["head_dim"]
        query, key = t["num_attention_heads"] * head, t["num_key_value_heads"] * head
        for layer in range(t["num_hidden_layers"]):
            name = f"language_model.layers.{layer}"
            yield from ((f"{name}.self_attn.{each}_proj", hidden, size) for each, size in
                        (("q", query), ("k", key), ("v", key)))  # fmt: skip
            yield f"{name}.self_attn.o_proj", query, hidden
            yield from ((f"{name}.mlp.{each}_proj", hidden, inner) for each in ("gate", "up"))
            yield f"{name}.mlp.down_proj", inner, hidden

    def vision_linears(self) -> Iterator[tuple[str, int, int]]:
        """Yield the projections of the vision tower."""
        v = self.vision
        hidden, inner = v["hidden_size"], v["intermediate_size"]
        merged = hidden * v["spatial_merge_size"] ** 2
        yield "visual.patch_embed.proj", self.patch_values, hidden
        for block in range(v["depth"]):
            yield from ((f"visual.blocks.{block}.{name}", *sizes) for name, sizes in (
                ("attn.qkv", (hidden, 3 * hidden)), ("attn.proj", (hidden, hidden)),
                ("mlp.linear_fc1", (hidden, inner)), ("mlp.linear_fc2", (inner, hidden)),
            ))  # fmt: skip
        for merger in range(self.num_mergers):
            yield f"visual.merger.{merger}.linear_fc1", merged, merged
            yield f"visual.merger.{merger}.linear_fc2", merged, v["out_hidden_size"]

    @property
    def num_mergers(self) -> int:
        """Of the last layer's patches, and of those that DeepStack takes from layers before."""
        return 1 + len(self.vision["deepstack_visual_indexes"])

    @property
    def patch_values(self) -> int:
        """Numbers in a patch: channels, frames, height, width."""
        return 3 * self.vision["temporal_patch_size"] * self.vision["patch_size"] ** 2

    @property
    def pixels_per_token(self) -> int:
        """How many pixels of a page become one token."""
        return (self.vision["patch_size"] * self.vision["spatial_merge_size"]) ** 2

    def num_parameters(self) -> int:
        """Return the number of weights, norms and biases aside (0.02%)."""
        embedded = self.text["vocab_size"] * self.text["hidden_size"]
        positions = self.vision["num_position_embeddings"] * self.vision["hidden_size"]
        return embedded + positions + sum(a * b for _, a, b in (*self.text_linears(), *self.vision_linears()))

    def kept_per_token(self, dtype: str, *, page: bool = True, adapter: bool = False) -> float:
        """Return the bytes that a token leaves for the backward pass under bfloat16 autocast.

        Args:
            dtype: Of the weights; float32 ones make the residual stream float32.
            page: A page's token, its patches in the vision tower included; False: a text's.
            adapter: LoRA on the language model's projections alone is trained, so the vision tower keeps nothing.
        """
        t, v = self.text, self.vision
        exact = DTYPE_BYTES[dtype] == 4
        hidden, key = t["hidden_size"], t["num_key_value_heads"] * t["head_dim"]
        query = t["num_attention_heads"] * t["head_dim"]
        if adapter:
            layer = (18 if exact else 12) * hidden + (10 if exact else 8) * query + 9 * key
        else:
            layer = (26 if exact else 16) * hidden + 10 * (query + key)
        kept = t["num_hidden_layers"] * (layer + 8 * t["intermediate_size"] + 12 * t["num_attention_heads"])
        if page and not adapter:
            patch = 22 * v["hidden_size"] + 4 * v["intermediate_size"] + (8 if exact else 6) * v["num_heads"]
            rest = v["hidden_size"] * ((54 if exact else 16) + 24 * self.num_mergers) + (9 if exact else 6) * hidden
            kept += v["spatial_merge_size"] ** 2 * (v["depth"] * patch + 2 * self.patch_values) + rest
        return kept

    def flops_per_token(self, tokens: int) -> float:
        """Return the FLOPs of a forward pass for each of the tokens of a page, attention included."""
        merged = self.vision["spatial_merge_size"] ** 2
        linear = sum(2 * a * b for _, a, b in self.text_linears())
        linear += merged * sum(2 * a * b for name, a, b in self.vision_linears() if "merger" not in name)
        linear += sum(2 * a * b for name, a, b in self.vision_linears() if "merger" in name)
        query = self.text["num_attention_heads"] * self.text["head_dim"]
        attention = 2 * self.text["num_hidden_layers"] * query * tokens  # causal: half of the pairs
        attention += merged * 4 * self.vision["depth"] * self.vision["hidden_size"] * tokens * merged
        return linear + attention


def read_architecture(model: dict[str, Any]) -> Architecture | None:
    """Return the sizes of an embedder by its `config.json`; None where it is of another kind or can't be read.

    Args:
        model: The config's node. A folder's file is read, or that of a name on the Hub: from the cache, as it was when
            this was written (`architectures.json`), or a few kilobytes from the Hub.
    """
    name = model.get("name")
    if not isinstance(name, str) or ".rerankers." in str(model.get("_target_")):
        return None  # an offline twin, which fits anywhere; or pairs, which are batched otherwise
    try:
        found = _config_json(name, model.get("revision"))
        is_known = found is not None and found["model_type"] == "qwen3_vl"
        return Architecture(found["text_config"], found["vision_config"]) if found and is_known else None
    except (OSError, ValueError, LookupError, httpx.HTTPError):  # whoever loads it says what is wrong, if anything is
        return None


@functools.cache  # jobs of a sweep share it
def _config_json(name: str, revision: str | None) -> dict[str, Any] | None:
    folder = local_folder(name)
    cached = folder / "config.json" if folder else try_to_load_from_cache(name, "config.json", revision=revision)
    known = json.loads(Path(__file__).with_name("architectures.json").read_text(encoding="utf-8"))
    if folder and adapter_base(folder) is not None:
        return None  # its weights alone are trained
    if not isinstance(cached, str | Path) and name not in known:
        if hub.unreachable() or constants.HF_HUB_OFFLINE:
            return None
        cached = hf_hub_download(name, "config.json", revision=revision)
    return json.loads(Path(cached).read_text(encoding="utf-8")) if isinstance(cached, str | Path) else known[name]
