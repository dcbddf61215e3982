"""What every loader does with a model that it has loaded: pixel bounds, patches, adapter, freezing, the log line."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any, TypeVar, Unpack

import torch
from PIL import Image
from sentence_transformers import CrossEncoder
from sentence_transformers.base.model import BaseModel
from sentence_transformers.base.modules import Router, Transformer
from torch import nn
from transformers import PreTrainedModel

from experiments.config.errors import ConfigError
from experiments.data.resized_pages import image_processor
from experiments.models import adapters
from experiments.models.options import LoadingOptions

logger = logging.getLogger(__name__)

PAGE_SIZE = (850, 1100)  # width, height in pixels: a US letter page at 100 dpi, to tell what a page costs
Model = TypeVar("Model", bound=BaseModel)


def ready(model: Model, name: str, **options: Unpack[LoadingOptions]) -> Model:
    """Apply the options to a model as it was loaded, make sure that they took effect, and log what it is.

    Raises:
        ConfigError: If the pixel bounds, the adapter or a part to freeze doesn't fit the model.
    """
    loaded_from = [module.config._name_or_path for module in model.modules() if isinstance(module, PreTrainedModel)]
    card: Any = model.model_card_data
    card.local_files_only = all(Path(each).exists() for each in loaded_from)  # else the card would ask the Hub
    for module in model.modules():
        if isinstance(module, Transformer):  # whose processor may say null, as many a SigLIP's: grey pages then fail
            processor: Any = getattr(module.processor, "image_processor", module.processor)
            if hasattr(processor, "do_convert_rgb"):
                processor.do_convert_rgb = True
    set_pixel_bounds(model, options.get("min_pixels"), options.get("max_pixels"))
    for module in model.modules():
        if isinstance(module, nn.Conv3d) and module.stride == module.kernel_size:
            module.__class__ = PatchProjection
        elif isinstance(module, Router):
            routes: Any = module.sub_modules
            for route in routes.values():  # of the modules of a route the library leaves each its dtype
                route[1:].to(next(route.parameters()).dtype)
    if options.get("merge_adapter") and options.get("peft") is None:
        adapters.merge_adapter(model)
    adapters.add_peft(model, options.get("peft"))
    adapters.freeze_parts(model, options.get("freeze", ()))
    logger.info("%s", _summary(name, describe(model)))
    return model


def _summary(name: str, facts: dict[str, Any]) -> str:
    """Return in a line for the terminal what was loaded."""
    told = [f"{facts['parameters'] / 1e6:,.2f} M parameters"]
    if facts.get("trained_parameters") is not None:
        told.append(f"{facts['trained_parameters'] / 1e6:,.2f} M of them trained")
    if facts["embedding_dim"]:
        told.append(f"{facts['embedding_dim']} dimensions")
    told += [facts["dtype"], str(facts["attn_implementation"]), f"on {facts['device']}"]
    if "tokens_per_page" in facts:
        told.append(f"{facts['tokens_per_page']} tokens a page")
    built_here = name.startswith(tempfile.gettempdir())
    return f"{Path(name).name if built_here else name}: {', '.join(told)}"


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
        given = "min_pixels" if max_pixels is None else "max_pixels"
        raise ConfigError(f"model.{given}: this model's image processor has no pixel bounds; type model.{given}=null")
    # The names notwithstanding, these are areas: the least and the most pixels of an image.
    least, most = min_pixels or size["shortest_edge"], max_pixels or size["longest_edge"]
    processor.size = type(size)(shortest_edge=least, longest_edge=most)
    side = int(most**0.5) * 2
    _, seen = page_cost(model, (side, side))
    if seen is None or seen > most:
        raise ConfigError(f"model.max_pixels={most}: a larger page reached the model with {seen} pixels")
    _, seen = page_cost(model, (8, 8))
    if seen is None or seen < least:
        raise ConfigError(f"model.min_pixels={least}: a smaller page reached the model with {seen} pixels")


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
