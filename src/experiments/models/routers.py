"""Encoders out of library modules: what turns inputs of one kind into embeddings, and several of them routed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Module
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Router

from experiments.config.bounds import Positive
from experiments.config.errors import ConfigError
from experiments.models.loading import described, load_transformer
from experiments.models.options import CardOptions, CheckpointOptions, ModalityConfig, PoolingMode, refuse_unknown
from experiments.models.ready import ready


def load_encoder(
    name: str,
    *,
    pooling: PoolingMode | None = None,
    project_to: Positive | None = None,
    modality_config: ModalityConfig | None = None,
    module_output_name: str | None = None,
    processing_kwargs: dict[str, dict[str, Any]] | None = None,
    **options: Unpack[CheckpointOptions],
) -> list[Module]:
    """Load a transformers checkpoint as a Transformer, with Pooling where it gives tokens, and a Dense if asked for.

    Args:
        name: A folder, `package:PACKAGE/FOLDER`, or a name on the Hub.
        pooling: None: mean where the model gives tokens.
        project_to: Dimensions of a linear projection (a Dense without activation) at the end; None: no projection.
        modality_config: By modality (`text`, `image`, `image+text`, ...) the model's `method` and
            `method_output_name`; None: recognised by the library.
        module_output_name: What the method gives, `token_embeddings` or `sentence_embedding`; with modality_config.
        processing_kwargs: Arguments of each call of the processor, by modality (of the library's `Transformer`).
        **options: See `CheckpointOptions`.

    Raises:
        ConfigError: If it can't be loaded, or pooling is asked of a model that gives no tokens.
    """
    more: dict[str, Any] = {"module_output_name": module_output_name, "processing_kwargs": processing_kwargs}
    if modality_config is not None:  # the library wants `image+text` as a tuple
        more["modality_config"] = {tuple(k.split("+")) if "+" in k else k: v for k, v in modality_config.items()}
    transformer = load_transformer(name, options, **more)
    modules: list[Module] = [transformer]
    if transformer.module_output_name == "token_embeddings":
        modules.append(Pooling(transformer.get_embedding_dimension(), pooling or "mean"))
    elif pooling is not None:
        raise ConfigError(f"model.pooling={pooling}: {name} gives one embedding an input, no tokens; type null")
    if project_to is not None:
        modules.append(Dense(_dimension(modules), project_to, activation_function=None))
    return modules


def load_router(
    encoders: dict[str, list[Module]],
    *,
    embedding_dim: Positive | None = None,
    route_mappings: Sequence[dict[str, str | None]] | None = None,
    **options: Unpack[CardOptions],
) -> SentenceTransformer:
    """Combine encoders into one model that routes each input by its modality, its task, or both.

    Args:
        encoders: By route. Without route_mappings a route is named as the modality (`text`, `image`) or task
            (`query`, `document`) that takes it.
        embedding_dim: The dimension that all of them must have; None: whatever they have in common.
        route_mappings: Each with `task` (`query`, `document` or None: any), `modality` (or None: any) and `route`.
        **options: See `CardOptions`. What is frozen is a route, or a module of it (`text.0`: its first).

    Raises:
        ConfigError: If the dimensions differ, a mapping leads nowhere, or a part to freeze isn't there.
    """
    refuse_unknown(options)
    dims = {route: _dimension(modules) for route, modules in encoders.items()}
    wanted = embedding_dim or next(iter(dims.values()))
    for route, dim in dims.items():
        if dim != wanted:
            raise ConfigError(
                f"model.encoders.{route} has {dim} dimensions, not {wanted}: set its project_to={wanted}"
            )
    mappings: Any = {(each.get("task"), each.get("modality")): str(each["route"]) for each in route_mappings or []}
    router = Router(encoders, allow_empty_key=False, route_mappings=mappings)
    model = SentenceTransformer(modules=[router, Normalize()], **described(SentenceTransformer, options))
    return ready(model, "of routes", **options)


def _dimension(modules: Sequence[Module]) -> int:
    found = (getattr(module, "get_embedding_dimension", None) for module in reversed(modules))
    return next(dimension() for dimension in found if dimension is not None)
