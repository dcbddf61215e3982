"""Encoders out of library modules: what turns inputs of one kind into embeddings, and several of them routed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Module
from sentence_transformers.sentence_transformer.model_card import SentenceTransformerModelCardData
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Router, Transformer

from experiments.config.errors import ConfigError
from experiments.models.adapters import freeze_parts
from experiments.models.loading import (
    ask_no_hub,
    choose_attention,
    choose_dtype,
    locate,
    one_line_errors,
    remember_commit,
)


def load_encoder(
    name: str,
    *,
    pooling: str | None = None,
    project_to: int | None = None,
    modality_config: dict[str, dict[str, Any]] | None = None,
    module_output_name: str | None = None,
    processing_kwargs: dict[str, dict[str, Any]] | None = None,
    attn_implementation: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> list[Module]:
    """Load a transformers checkpoint as a Transformer, with Pooling where it gives tokens, and a Dense if asked for.

    Args:
        name: A folder, `package:PACKAGE/FOLDER`, or a name on the Hub.
        pooling: `mean`, `lasttoken`, `cls`, ...; None: mean where the model gives tokens.
        project_to: Dimensions of a linear projection (a Dense without activation) at the end; None: no projection.
        modality_config: By modality (`text`, `image`, `image+text`, ...) the model's `method` and
            `method_output_name`; None: recognised by the library.
        module_output_name: What the method gives, `token_embeddings` or `sentence_embedding`; with modality_config.
        processing_kwargs: Arguments of each call of the processor, by modality, as in the library's `Transformer`.
        attn_implementation: `auto`, or a name that transformers knows.
        dtype: `auto`, `float32`, `bfloat16` or `float16`: of the weights.
        revision: Branch, tag or commit on the Hub.
        trust_remote_code: Run code that comes with the model.

    Raises:
        ConfigError: If it can't be loaded, or pooling is asked of a model that gives no tokens.
    """
    path, shared = locate(name, revision, trust_remote_code)
    weights_dtype = choose_dtype(dtype)
    attention = choose_attention(attn_implementation, weights_dtype)
    with one_line_errors(name):
        transformer = Transformer(
            path,
            model_kwargs=shared | {"attn_implementation": attention, "dtype": weights_dtype},
            processor_kwargs=shared,
            config_kwargs=shared,
            processing_kwargs=processing_kwargs,
            modality_config=None if modality_config is None else modalities(modality_config),
            module_output_name=module_output_name,
        )
    remember_commit(transformer, name, shared)
    encoder: list[Module] = [transformer]
    dim = transformer.get_embedding_dimension()
    if transformer.module_output_name == "token_embeddings":
        encoder.append(Pooling(dim, pooling or "mean"))
    elif pooling is not None:
        raise ConfigError(f"model.pooling={pooling}: {name} gives one embedding an input, no tokens; type null")
    if project_to is not None:
        encoder.append(Dense(dim, project_to, activation_function=None))
    return encoder


def load_router(
    encoders: dict[str, list[Module]],
    *,
    embedding_dim: int | None = None,
    route_mappings: Sequence[dict[str, str | None]] | None = None,
    freeze: Sequence[str] = (),
    prompts: dict[str, str] | None = None,
    card: dict[str, Any] | None = None,
) -> SentenceTransformer:
    """Combine encoders into one model that routes each input by its modality, its task, or both.

    Args:
        encoders: By route. Without route_mappings a route is named as the modality (`text`, `image`) or task
            (`query`, `document`) that takes it.
        embedding_dim: The dimension that all of them must have; None: whatever they have in common.
        route_mappings: Each with `task` (`query`, `document` or None: any), `modality` (or None: any) and `route`.
        freeze: Parts that aren't trained, see `freeze_parts`: a route, or a module of it (`text.0`: its first).
        prompts: Text put before the inputs, by prompt name (`query`, `document`).
        card: Fields of `SentenceTransformerModelCardData`.

    Raises:
        ConfigError: If the dimensions differ, a mapping leads nowhere, or a part to freeze isn't there.
    """
    dims = {route: _dimension(modules) for route, modules in encoders.items()}
    wanted = embedding_dim or next(iter(dims.values()))
    for route, dim in dims.items():
        if dim != wanted:
            raise ConfigError(
                f"model.encoders.{route} has {dim} dimensions, not {wanted}: set its project_to={wanted}"
            )
    mappings: Any = {(each.get("task"), each.get("modality")): str(each["route"]) for each in route_mappings or []}
    router = Router(encoders, allow_empty_key=False, route_mappings=mappings)
    model = SentenceTransformer(
        modules=[router, Normalize()],
        prompts=prompts,
        model_card_data=SentenceTransformerModelCardData(**(card or {})),
    )
    ask_no_hub(model)
    freeze_parts(model, freeze)
    return model


def _dimension(modules: Sequence[Module]) -> int:
    found = (getattr(module, "get_embedding_dimension", None) for module in reversed(modules))
    return next(dimension() for dimension in found if dimension is not None)


def modalities(config: dict[str, dict[str, Any]]) -> dict[str | tuple[str, ...], dict[str, Any]]:
    """Return a modality_config with `image+text` as the tuple that the library wants."""
    return {tuple(key.split("+")) if "+" in key else key: value for key, value in config.items()}
