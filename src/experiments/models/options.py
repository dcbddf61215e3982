"""The options of `model` that every loader shares, described once. One that isn't given is None, unless said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from experiments.config.bounds import Positive

if TYPE_CHECKING:
    from peft import PeftConfig

PoolingMode = Literal["mean", "lasttoken", "cls", "max", "mean_sqrt_len_tokens", "weightedmean"]
ModalityConfig = dict[str, dict[str, Any]]


class WeightsOptions(TypedDict, total=False):
    """How the weights are held; both are `auto` where they aren't given."""

    # auto: flash attention where it is installed, the GPU has it and the weights are half
    attn_implementation: Literal["auto", "flash_attention_2", "sdpa", "eager"]
    dtype: Literal["auto", "float32", "bfloat16", "float16"]  # auto: bfloat16 where the GPU has it, else float32


class CheckpointOptions(WeightsOptions, total=False):
    """Which checkpoint of a name is loaded."""

    revision: str | None  # branch, tag or commit on the Hub
    trust_remote_code: bool  # run code that comes with the model; False where it isn't given


class CardOptions(TypedDict, total=False):
    """What is the same for a model of one transformer or of several."""

    # Text put before the inputs, by prompt name (`query`, `document`); of a reranker the instruction, by direction.
    prompts: Mapping[str, str] | None  # None: as the model was saved
    freeze: Sequence[str]  # parts that aren't trained, see `adapters.freeze_parts`
    card: Mapping[str, Any] | None  # fields of the library's model card


class TwinOptions(WeightsOptions, CardOptions, total=False):
    """What a model of one transformer takes."""

    min_pixels: Positive | None  # pages with fewer are enlarged to it; None: as the model was saved
    max_pixels: Positive | None  # pages with more are reduced to it; None: as the model was saved
    peft: PeftConfig | None  # an adapter to train instead of the transformer's own weights: `peft.LoraConfig`, ...
    merge_adapter: bool  # merge the adapter into the weights: a new one after training, a saved one at once


class LoadingOptions(TwinOptions, CheckpointOptions, total=False):
    """What a model of one transformer takes that is loaded by its name."""


def refuse_unknown(options: Mapping[str, object]) -> None:
    """Raise what Python raises at a misspelt argument: `**options` would take it."""
    if unknown := sorted(options.keys() - LoadingOptions.__annotations__.keys()):
        raise TypeError(f"a model has no option {', '.join(unknown)}")
