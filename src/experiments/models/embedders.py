"""Embedding models of one transformer: saved ones, pooled checkpoints, and the embedded offline twin."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Unpack

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize

from experiments.config.bounds import Positive
from experiments.config.errors import ConfigError
from experiments.config.model_files import untrusted
from experiments.models.loading import described, load_saved
from experiments.models.options import LoadingOptions, ModalityConfig, PoolingMode, TwinOptions
from experiments.models.ready import ready
from experiments.models.routers import load_encoder
from experiments.models.tiny.cache import built

logger = logging.getLogger(__name__)


def load_embedder(
    name: str,
    *,
    embedding_dim: Positive | None = None,
    pooling: PoolingMode | None = None,
    modality_config: ModalityConfig | None = None,
    module_output_name: str | None = None,
    processing_kwargs: dict[str, dict[str, Any]] | None = None,
    needs_remote_code: bool = False,
    **options: Unpack[LoadingOptions],
) -> SentenceTransformer:
    """Load an embedding model, apply what was asked for, and make sure that it took effect.

    Args:
        name: A folder, `package:PACKAGE/FOLDER` (inside an installed Python package), or a name on the Hub.
        embedding_dim: The dimension that the model must have; None: whatever it has.
        pooling: Put this pooling and unit length on the bare transformer; None: as the model was saved, and the
            library's choice for a checkpoint that was never saved as an embedder.
        modality_config: See `routers.load_encoder`; instead of what the model was saved with.
        module_output_name: See there.
        processing_kwargs: Arguments of each call of the processor, by modality, added to those saved with the model.
        needs_remote_code: The model can't be loaded without code that comes with it.
        **options: See `LoadingOptions`.

    Raises:
        ConfigError: If it can't be loaded, or the dimension or the pixel bounds differ from what was asked for.
    """
    if needs_remote_code and not options.get("trust_remote_code"):
        raise ConfigError(untrusted(name))
    if pooling is None and modality_config is None:
        model = load_saved(SentenceTransformer, name, options)
    else:
        fresh: dict[str, Any] = {"pooling": pooling, "modality_config": modality_config, **options}
        modules: list[Any] = load_encoder(name, module_output_name=module_output_name, **fresh)
        model = SentenceTransformer(modules=[*modules, Normalize()], **described(SentenceTransformer, options))
    if processing_kwargs:
        saved: Any = model[0].processing_kwargs
        saved |= {modality: saved.get(modality, {}) | new for modality, new in processing_kwargs.items()}
    if model.truncate_dim is not None:
        logger.info("The model was saved with truncate_dim %d: loaded with all its dimensions", model.truncate_dim)
        model.truncate_dim = None
    actual_dim = model.get_embedding_dimension()
    if embedding_dim is not None and actual_dim != embedding_dim:
        raise ConfigError(f"model.embedding_dim={embedding_dim}: {name} has {actual_dim} dimensions; type that")
    return ready(model, name, **options)


def qwen3vl_tiny(
    *, seed: int = 42, embedding_dim: Positive = 96, cache_dir: str | None = None, **options: Unpack[TwinOptions]
) -> SentenceTransformer:
    """Build the embedded Qwen3-VL with weights drawn from the seed, then load it as any saved model.

    Args:
        seed: Of the weights.
        embedding_dim: Hidden size, a multiple of 32.
        cache_dir: Where the built model is kept; None: a temporary folder, removed once it is loaded, but with peft
            outputs/.cache: an adapter is saved without its base, which is looked for there.
        **options: See `TwinOptions`; without, pages have 784 to 16384 pixels.
    """
    from experiments.models.tiny import qwen3vl

    if options.get("peft") is not None:
        cache_dir = cache_dir or "outputs/.cache"
    build = partial(qwen3vl.build_qwen3vl, embedding_dim=embedding_dim, seed=seed)
    card = {"language": "en", "license": "apache-2.0", "model_name": "Tiny Qwen3-VL"}
    usual: TwinOptions = {"min_pixels": 784, "max_pixels": 16384, "card": card}
    with built(build, f"qwen3vl-tiny-{embedding_dim}d", seed, cache_dir) as folder:
        return load_embedder(str(folder), embedding_dim=embedding_dim, **(usual | options))
