"""Embedding models: what one library call can't say (attention and dtype by what is there, pixel bounds, checks)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.model import BaseModel
from sentence_transformers.sentence_transformer.model_card import SentenceTransformerModelCardData
from sentence_transformers.sentence_transformer.modules import Normalize
from torch import nn

from experiments.config.errors import ConfigError
from experiments.config.model_location import untrusted
from experiments.data.resized_pages import image_processor
from experiments.models import adapters, routers
from experiments.models.loading import (
    ask_no_hub,
    choose_attention,
    choose_dtype,
    locate,
    one_line_errors,
    remember_commit,
)
from experiments.models.tiny.cache import built

if TYPE_CHECKING:
    from peft import PeftConfig

logger = logging.getLogger(__name__)

PAGE_SIZE = (850, 1100)  # width, height in pixels: a US letter page at 100 dpi, to tell what a page costs


def load_embedder(
    name: str,
    *,
    embedding_dim: int | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    pooling: str | None = None,
    modality_config: dict[str, dict[str, Any]] | None = None,
    module_output_name: str | None = None,
    processing_kwargs: dict[str, dict[str, Any]] | None = None,
    attn_implementation: str = "auto",
    dtype: str = "auto",
    prompts: dict[str, str] | None = None,
    revision: str | None = None,
    needs_remote_code: bool = False,
    trust_remote_code: bool = False,
    freeze: Sequence[str] = (),
    peft: PeftConfig | None = None,
    merge_adapter: bool = False,
    card: dict[str, Any] | None = None,
) -> SentenceTransformer:
    """Load an embedding model, apply what was asked for, and make sure that it took effect.

    Args:
        name: A folder, `package:PACKAGE/FOLDER` (inside an installed Python package), or a name on the Hub.
        embedding_dim: The dimension that the model must have; None: whatever it has.
        min_pixels: Pages with fewer pixels are enlarged to it; None: as the model was saved.
        max_pixels: Pages with more pixels are reduced to it; None: as the model was saved.
        pooling: Put this pooling and unit length on the bare transformer; None: as the model was saved, and the
            library's choice for a checkpoint that was never saved as an embedder.
        modality_config: As in `routers.load_encoder`, instead of what the model was saved with.
        module_output_name: As in `routers.load_encoder`.
        processing_kwargs: Arguments of each call of the processor, by modality, added to those saved with the model.
        attn_implementation: `auto`, or a name that transformers knows.
        dtype: `auto`, `float32`, `bfloat16` or `float16`: of the weights.
        prompts: Text put before the inputs, by prompt name (`query`, `document`).
        revision: Branch, tag or commit on the Hub.
        needs_remote_code: The model can't be loaded without code that comes with it.
        trust_remote_code: Run code that comes with the model.
        freeze: Parts that aren't trained, see `adapters.freeze_parts`.
        peft: An adapter to train instead of the model's own weights, for instance `peft.LoraConfig`.
        merge_adapter: Merge the adapter into the weights: a new one after training, a saved one at once.
        card: Fields of `SentenceTransformerModelCardData`.

    Raises:
        ConfigError: If the Hub can't be reached, flash attention isn't there, or the dimension or the pixel bounds
            differ from what was asked for.
    """
    if needs_remote_code and not trust_remote_code:
        raise ConfigError(untrusted(name))
    path, shared = locate(name, revision, trust_remote_code)
    options: dict[str, Any] = {"prompts": prompts, "model_card_data": SentenceTransformerModelCardData(**(card or {}))}
    if pooling is None and modality_config is None:
        weights_dtype = choose_dtype(dtype)
        attention = choose_attention(attn_implementation, weights_dtype)
        kwargs = {"attn_implementation": attention, "dtype": weights_dtype}
        with one_line_errors(name):
            model = SentenceTransformer(path, **shared, **options, model_kwargs=kwargs)
        remember_commit(model[0], name, shared)
    else:
        modules: list[Any] = routers.load_encoder(
            name,
            pooling=pooling,
            modality_config=modality_config,
            module_output_name=module_output_name,
            attn_implementation=attn_implementation,
            dtype=dtype,
            revision=revision,
            trust_remote_code=trust_remote_code,
        )
        model = SentenceTransformer(modules=[*modules, Normalize()], **options)
    if processing_kwargs:
        first: Any = model[0]
        first.processing_kwargs |= {
            key: first.processing_kwargs.get(key, {}) | new for key, new in processing_kwargs.items()
        }
    if model.truncate_dim is not None:
        logger.info("The model was saved with truncate_dim %d: loaded with all its dimensions", model.truncate_dim)
        model.truncate_dim = None
    actual_dim = model.get_embedding_dimension()
    if embedding_dim is not None and actual_dim != embedding_dim:
        raise ConfigError(f"model.embedding_dim={embedding_dim}: {name} has {actual_dim} dimensions; type that")
    ask_no_hub(model)
    set_pixel_bounds(model, min_pixels, max_pixels)
    speed_up_patches(model)
    if merge_adapter and peft is None:
        adapters.merge_adapter(model)
    adapters.add_peft(model, peft)
    adapters.freeze_parts(model, freeze)
    logger.info("Model %s: %s", name, ", ".join(f"{key}={value}" for key, value in describe(model).items()))
    return model


class PatchProjection(nn.Conv3d):
    """A convolution whose input is a single patch: the same weights and result as one matrix product.

    Qwen-VL cuts the pages into patches itself and then convolves each with a kernel of its size. As a product that
    takes a sixth of the time on a CPU, forward and backward.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Project patches of shape (num_patches, channels, *kernel_size) to (num_patches, hidden_size, 1, 1, 1)."""
        if input.shape[2:] != self.kernel_size:
            return super().forward(input)
        return nn.functional.linear(input.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None, None]


def speed_up_patches(model: nn.Module) -> None:
    """Project patches by one matrix product wherever a convolution's input is a single patch."""
    for module in model.modules():
        if isinstance(module, nn.Conv3d) and module.stride == module.kernel_size:
            module.__class__ = PatchProjection


def set_pixel_bounds(model: BaseModel, min_pixels: int | None, max_pixels: int | None) -> None:
    """Bound the pixels of a page, and prove it on a page larger and one smaller than the bounds.

    Raises:
        ConfigError: If the model's image processor has no such bounds, or they didn't take effect.
    """
    if min_pixels is None and max_pixels is None:
        return
    processor = image_processor(model)
    size = getattr(processor, "size", None)
    if not size or not {"shortest_edge", "longest_edge"} <= {key for key, value in dict(size).items() if value}:
        raise ConfigError(
            "model.max_pixels: this model's image processor has no pixel bounds; type model.max_pixels=null"
        )
    # The names notwithstanding, these are areas: the least and the most pixels of an image.
    bounds = (min_pixels or size["shortest_edge"], max_pixels or size["longest_edge"])
    processor.size = type(size)(shortest_edge=bounds[0], longest_edge=bounds[1])
    side = int(bounds[1] ** 0.5) * 2
    _, seen = page_cost(model, (side, side))
    if seen is None or seen > bounds[1]:
        raise ConfigError(f"model.max_pixels={bounds[1]}: a larger page reached the model with {seen} pixels")
    _, seen = page_cost(model, (8, 8))
    if seen is None or seen < bounds[0]:
        raise ConfigError(f"model.min_pixels={bounds[0]}: a smaller page reached the model with {seen} pixels")


def page_cost(model: BaseModel, page_size: tuple[int, int] = PAGE_SIZE) -> tuple[int, int | None]:
    """Return the tokens that an empty page of `page_size` (width, height) costs, and the pixels the model sees."""
    features = model.preprocess([Image.new("RGB", page_size, "white")])
    tokens = int(features["attention_mask"].sum()) if "attention_mask" in features else 1
    if "image_grid_thw" not in features:
        return tokens, None
    patches = int(features["image_grid_thw"].prod(dim=1).sum())
    return tokens, patches * image_processor(model).patch_size ** 2


def embedding_dim(model: BaseModel) -> int | None:
    """Return the dimension of a model's embeddings; None for a reranker, which makes none."""
    return None if isinstance(model, CrossEncoder) else model.get_embedding_dimension()  # type: ignore[operator]


def describe(model: BaseModel) -> dict[str, Any]:
    """Return what is worth knowing of a loaded model, for the log, the record and the report."""
    parameters = list(model.parameters())
    facts: dict[str, Any] = {
        "modalities": [str(modality) for modality in model.modalities],
        "embedding_dim": embedding_dim(model),
        "parameters": sum(parameter.numel() for parameter in parameters),
        "dtype": str(parameters[0].dtype).removeprefix("torch."),
        "attn_implementation": getattr(model.config, "_attn_implementation", None),
        "device": str(model.device),
    }
    if not all(parameter.requires_grad for parameter in parameters):
        facts["trained_parameters"] = sum(each.numel() for each in parameters if each.requires_grad)
    if "image" in model.modalities:
        tokens, pixels = page_cost(model)
        size = getattr(image_processor(model), "size", None)
        if size and pixels is not None:
            facts["min_pixels"], facts["max_pixels"] = size["shortest_edge"], size["longest_edge"]
        facts["tokens_per_page"] = tokens
    return facts


def qwen3vl_tiny(
    *,
    seed: int = 42,
    embedding_dim: int = 96,
    min_pixels: int | None = 784,
    max_pixels: int | None = 16384,
    attn_implementation: str = "auto",
    dtype: str = "auto",
    prompts: dict[str, str] | None = None,
    freeze: Sequence[str] = (),
    peft: PeftConfig | None = None,
    merge_adapter: bool = False,
    cache_dir: str | None = None,
) -> SentenceTransformer:
    """Build the embedded Qwen3-VL with weights drawn from the seed, then load it as any saved model.

    Args:
        seed: Of the weights.
        embedding_dim: Hidden size, a multiple of 32.
        min_pixels: As in `load_embedder`.
        max_pixels: As in `load_embedder`.
        attn_implementation: As in `load_embedder`.
        dtype: As in `load_embedder`.
        prompts: As in `load_embedder`.
        freeze: As in `load_embedder`.
        peft: As in `load_embedder`.
        merge_adapter: As in `load_embedder`.
        cache_dir: Where the built model is kept; None: a temporary folder, removed once it is loaded, but with peft
            outputs/.cache: an adapter is saved without its base, which is looked for there.
    """
    from experiments.models.tiny import qwen3vl

    if peft is not None:
        cache_dir = cache_dir or "outputs/.cache"
    build = partial(qwen3vl.build_qwen3vl, embedding_dim=embedding_dim, seed=seed)
    with built(build, f"qwen3vl-tiny-{embedding_dim}d", seed, cache_dir) as folder:
        return load_embedder(
            str(folder),
            embedding_dim=embedding_dim,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            attn_implementation=attn_implementation,
            dtype=dtype,
            prompts=prompts,
            freeze=freeze,
            peft=peft,
            merge_adapter=merge_adapter,
            card={
                "language": "en",
                "license": "apache-2.0",
                "model_name": "Tiny Qwen3-VL",
            },
        )
