"""Rerankers: the two architectures of the article, made from a generative checkpoint, and any saved one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder.model_card import CrossEncoderModelCardData
from sentence_transformers.cross_encoder.modules import LogitScore, Transformer
from sentence_transformers.sentence_transformer.modules import Dense, Pooling
from torch import nn

from experiments.config.errors import ConfigError
from experiments.models import adapters
from experiments.models.embedders import describe, set_pixel_bounds, speed_up_patches
from experiments.models.loading import (
    ask_no_hub,
    choose_attention,
    choose_dtype,
    locate,
    one_line_errors,
    remember_commit,
)

if TYPE_CHECKING:
    from peft import PeftConfig

logger = logging.getLogger(__name__)

USER_ONLY = 'message.role == "user"'
WITH_PAIRS = 'message.role in ["user", "query", "document"]'


def make_reranker(
    name: str,
    *,
    transformer_task: Literal["any-to-any", "feature-extraction"] = "any-to-any",
    true_token: str = "1",
    false_token: str = "0",
    prompts: Mapping[str, str] | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    attn_implementation: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    peft: PeftConfig | None = None,
    merge_adapter: bool = False,
    card: Mapping[str, Any] | None = None,
) -> CrossEncoder:
    """Make a reranker of a generative model: its score is the log-odds of one answer token against another.

    Args:
        name: A generative checkpoint that takes images: a folder or a name on the Hub.
        transformer_task: `any-to-any` keeps the language modelling head, which gives the log-odds.
            `feature-extraction` leaves it out: one linear layer scores the last hidden state. It starts as the
            difference of the two answers' embeddings, which is the same where the head shares its weights with them.
        true_token: The answer for a pair that matches, a single token.
        false_token: The answer for one that doesn't, a single token.
        prompts: The instruction, by direction; each is the system message of its pairs.
        min_pixels: As in `embedders.load_embedder`.
        max_pixels: As in `embedders.load_embedder`.
        attn_implementation: As in `embedders.load_embedder`.
        dtype: As in `embedders.load_embedder`.
        revision: Branch, tag or commit on the Hub.
        trust_remote_code: Run code that comes with the model.
        peft: An adapter to train instead of the transformer's weights, for instance `peft.LoraConfig`.
        merge_adapter: Merge the adapter into the weights: a new one after training, a saved one at once.
        card: Fields of `CrossEncoderModelCardData`.

    Raises:
        ConfigError: If the model can't be loaded, an answer is no single token, or its chat template can't be taught.
    """
    transformer = _transformer(name, transformer_task, attn_implementation, dtype, revision, trust_remote_code)
    true_id, false_id = (token_id(transformer, token) for token in (true_token, false_token))
    if transformer_task == "any-to-any":
        head: list[nn.Module] = [LogitScore(true_token_id=true_id, false_token_id=false_id)]
    else:
        head = _linear_head(transformer, true_id, false_id)
    model = CrossEncoder(
        modules=[transformer, *head],
        num_labels=1,
        prompts=dict(prompts or {}),
        model_card_data=CrossEncoderModelCardData(**(card or {})),
    )
    return _ready(model, name, min_pixels, max_pixels, peft, merge_adapter)


def load_reranker(
    name: str,
    *,
    prompts: Mapping[str, str] | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    attn_implementation: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    peft: PeftConfig | None = None,
    merge_adapter: bool = False,
    card: Mapping[str, Any] | None = None,
) -> CrossEncoder:
    """Load a saved reranker.

    Args:
        name: A folder or a name on the Hub.
        prompts: The instruction by direction; None: as the model was saved.
        min_pixels: As in `make_reranker`.
        max_pixels: As in `make_reranker`.
        attn_implementation: As in `make_reranker`.
        dtype: As in `make_reranker`.
        revision: As in `make_reranker`.
        trust_remote_code: As in `make_reranker`.
        peft: As in `make_reranker`.
        merge_adapter: As in `make_reranker`.
        card: As in `make_reranker`.

    Raises:
        ConfigError: If it can't be loaded, or is no reranker.
    """
    path, shared = locate(name, revision, trust_remote_code)
    weights_dtype = choose_dtype(dtype)
    attention = choose_attention(attn_implementation, weights_dtype)
    with one_line_errors(name):
        model = CrossEncoder(
            path,
            **shared,
            prompts=dict(prompts) if prompts else None,
            model_card_data=CrossEncoderModelCardData(**(card or {})),
            model_kwargs={"attn_implementation": attention, "dtype": weights_dtype},
        )
    remember_commit(model[0], name, shared)
    return _ready(model, name, min_pixels, max_pixels, peft, merge_adapter)


def token_id(transformer: Transformer, token: str) -> int:
    """Return the id of an answer.

    Raises:
        ConfigError: If the tokenizer doesn't write it as a single token.
    """
    tokenizer: Any = transformer.tokenizer
    ids = tokenizer.encode(token, add_special_tokens=False)
    if len(ids) != 1:
        pieces = tokenizer.convert_ids_to_tokens(ids)
        raise ConfigError(
            f"model.true_token and model.false_token: {token!r} is {len(ids)} tokens to this model "
            f"({', '.join(map(repr, pieces))}); type single ones, such as 1 and 0"
        )
    return ids[0]


def teach_pair_roles(processor: Any) -> None:
    """Let the chat template carry a pair: a query and a document, beside what a user says.

    Raises:
        ConfigError: If the template knows neither these roles nor the place where Qwen's templates ask for the user's.
    """
    template = processor.chat_template
    if template and USER_ONLY in template:
        processor.chat_template = template.replace(USER_ONLY, WITH_PAIRS)
    elif not template or not all(f'"{role}"' in template or f"'{role}'" in template for role in ("query", "document")):
        raise ConfigError(
            f"model.name: the model's chat template has neither the roles query and document nor {USER_ONLY!r}, where "
            "they could be added; choose another model, or save this one with a template that has them"
        )


def _transformer(
    name: str, task: Any, attn_implementation: str, dtype: str, revision: str | None, trust_remote_code: bool
) -> Transformer:
    """Load a generative checkpoint, with or without its head, that answers a pair of query and document."""
    path, shared = locate(name, revision, trust_remote_code)
    weights_dtype = choose_dtype(dtype)
    attention = choose_attention(attn_implementation, weights_dtype)
    with one_line_errors(name):
        transformer = Transformer(
            path,
            transformer_task=task,
            model_kwargs=shared | {"attn_implementation": attention, "dtype": weights_dtype},
            processor_kwargs=shared,
            config_kwargs=shared,
            processing_kwargs={"chat_template": {"add_generation_prompt": True}},
        )
    remember_commit(transformer, name, shared)
    teach_pair_roles(transformer.processor)
    return transformer


def _linear_head(transformer: Transformer, true_id: int, false_id: int) -> list[nn.Module]:
    """Return what scores the last token's hidden state."""
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="lasttoken")
    embeddings = transformer.model.get_input_embeddings().weight.detach()  # type: ignore[operator]
    dense = Dense(
        pooling.get_embedding_dimension(),
        1,
        bias=False,
        activation_function=nn.Identity(),  # the default would be tanh
        init_weight=(embeddings[true_id] - embeddings[false_id]).unsqueeze(0).clone(),
        module_output_name="scores",
    )
    return [pooling, dense]


def _ready(
    model: CrossEncoder,
    name: str,
    min_pixels: int | None,
    max_pixels: int | None,
    peft: PeftConfig | None,
    merge_adapter: bool,
) -> CrossEncoder:
    ask_no_hub(model)
    if merge_adapter and peft is None:
        adapters.merge_adapter(model)
    set_pixel_bounds(model, min_pixels, max_pixels)
    adapters.add_peft(model, peft)
    speed_up_patches(model)
    logger.info("Model %s: %s", name, ", ".join(f"{key}={value}" for key, value in describe(model).items()))
    return model
