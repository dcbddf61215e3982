"""Encoders out of library modules: what turns inputs of one kind into embeddings, and several of them routed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Module
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Router, Transformer

from experiments.config.bounds import Positive
from experiments.config.errors import ConfigError
from experiments.models.loading import described, load_transformer
from experiments.models.options import CardOptions, CheckpointOptions, Options, PoolingMode
from experiments.models.ready import ready


def load_encoder(
    name: str,
    *,
    pooling: PoolingMode | None = None,
    project_to: Positive | None = None,
    modality_config: dict[str, dict[str, Any]] | None = None,
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
    more = {"module_output_name": module_output_name, "processing_kwargs": processing_kwargs}
    modules = encoder(name, Options(**options), pooling, modality_config, **more)
    if project_to is not None:
        modules.append(Dense(_dimension(modules), project_to, activation_function=None))
    return modules


def encoder(
    name: str, options: Options, pooling: str | None, modality_config: dict[str, dict[str, Any]] | None, **more: Any
) -> list[Module]:
    """Load a Transformer with Pooling where it gives tokens; see `load_encoder`."""
    modality_config = None if modality_config is None else modalities(modality_config)  # type: ignore[assignment]
    transformer = load_transformer(Transformer, name, options, modality_config=modality_config, **more)
    if transformer.module_output_name == "token_embeddings":
        return [transformer, Pooling(transformer.get_embedding_dimension(), pooling or "mean")]
    if pooling is not None:
        raise ConfigError(f"model.pooling={pooling}: {name} gives one embedding an input, no tokens; type null")
    return [transformer]


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
    given = Options(**options)
    dims = {route: _dimension(modules) for route, modules in encoders.items()}
    wanted = embedding_dim or next(iter(dims.values()))
    for route, dim in dims.items():
        if dim != wanted:
            raise ConfigError(
                f"model.encoders.{route} has {dim} dimensions, not {wanted}: set its project_to={wanted}"
            )
    mappings: Any = {(each.get("task"), each.get("modality")): str(each["route"]) for each in route_mappings or []}
    router = Router(encoders, allow_empty_key=False, route_mappings=mappings)
    model = SentenceTransformer(modules=[router, Normalize()], **described(SentenceTransformer, given))
    return ready(model, "of routes", given)


def _dimension(modules: Sequence[Module]) -> int:
    found = (getattr(module, "get_embedding_dimension", None) for module in reversed(modules))
    return next(dimension() for dimension in found if dimension is not None)


def modalities(config: dict[str, dict[str, Any]]) -> dict[str | tuple[str, ...], dict[str, Any]]:
    """Return a modality_config with `image+text` as the tuple that the library wants."""
    return {tuple(key.split("+")) if "+" in key else key: value for key, value in config.items()}
