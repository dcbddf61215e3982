"""The options of `model` that every loader shares, described once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from experiments.config.bounds import Positive

if TYPE_CHECKING:
    from peft import PeftConfig

PoolingMode = Literal["mean", "lasttoken", "cls", "max", "mean_sqrt_len_tokens", "weightedmean"]


class WeightsOptions(TypedDict, total=False):
    """How the weights are held.

    Attributes:
        attn_implementation: `auto` is flash attention where it is installed, the GPU has it and the weights are half.
        dtype: Of the weights; `auto` is bfloat16 where the GPU has it, else float32.
    """

    attn_implementation: Literal["auto", "flash_attention_2", "sdpa", "eager"]
    dtype: Literal["auto", "float32", "bfloat16", "float16"]


class CheckpointOptions(WeightsOptions, total=False):
    """Which checkpoint of a name is loaded.

    Attributes:
        revision: Branch, tag or commit on the Hub.
        trust_remote_code: Run code that comes with the model.
    """

    revision: str | None
    trust_remote_code: bool


class CardOptions(TypedDict, total=False):
    """What is the same for a model of one transformer or of several.

    Attributes:
        prompts: Text put before the inputs, by prompt name (`query`, `document`); of a reranker the instruction, by
            direction. None: as the model was saved.
        freeze: Parts that aren't trained, see `adapters.freeze_parts`.
        card: Fields of the library's model card.
    """

    prompts: Mapping[str, str] | None
    freeze: Sequence[str]
    card: Mapping[str, Any] | None


class TwinOptions(WeightsOptions, CardOptions, total=False):
    """What a model of one transformer takes.

    Attributes:
        min_pixels: Pages with fewer pixels are enlarged to it; None: as the model was saved.
        max_pixels: Pages with more pixels are reduced to it; None: as the model was saved.
        peft: An adapter to train instead of the transformer's own weights, for instance `peft.LoraConfig`.
        merge_adapter: Merge the adapter into the weights: a new one after training, a saved one at once.
    """

    min_pixels: Positive | None
    max_pixels: Positive | None
    peft: PeftConfig | None
    merge_adapter: bool


class LoadingOptions(TwinOptions, CheckpointOptions, total=False):
    """What a model of one transformer takes that is loaded by its name."""


@dataclass(frozen=True)
class Options:
    """The keys above, with what each is where it isn't given."""

    attn_implementation: str = "auto"
    dtype: str = "auto"
    revision: str | None = None
    trust_remote_code: bool = False
    prompts: Mapping[str, str] | None = None
    freeze: Sequence[str] = ()
    card: Mapping[str, Any] | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    peft: PeftConfig | None = None
    merge_adapter: bool = False
