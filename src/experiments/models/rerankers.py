"""Rerankers: the two architectures of the article, made from a generative checkpoint, and any saved one."""

from __future__ import annotations

from typing import Any, Literal, Unpack

import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder.modules import LogitScore, Transformer
from sentence_transformers.sentence_transformer.modules import Dense, Pooling
from torch import nn

from experiments.config.errors import ConfigError
from experiments.models.loading import described, load_saved, load_transformer
from experiments.models.options import LoadingOptions
from experiments.models.ready import ready

USER_ONLY = 'message.role == "user"'
WITH_PAIRS = 'message.role in ["user", "query", "document"]'


def make_reranker(
    name: str,
    *,
    transformer_task: Literal["any-to-any", "feature-extraction"] = "any-to-any",
    true_token: str = "1",
    false_token: str = "0",
    **options: Unpack[LoadingOptions],
) -> CrossEncoder:
    """Make a reranker of a generative model: its score is the log-odds of one answer token against another.

    Args:
        name: A generative checkpoint that takes images: a folder or a name on the Hub.
        transformer_task: `any-to-any` keeps the language modelling head, which gives the log-odds.
            `feature-extraction` leaves it out: one linear layer scores the last hidden state. It starts as the
            difference of the two answers' embeddings, which is the same where the head shares its weights with them.
        true_token: The answer for a pair that matches, a single token.
        false_token: The answer for one that doesn't, a single token.
        **options: See `LoadingOptions`; a prompt is the system message of its pairs.

    Raises:
        ConfigError: If the model can't be loaded, an answer is no single token, or its chat template can't be taught.
    """
    processing = {"chat_template": {"add_generation_prompt": True}}
    transformer = load_transformer(name, options, transformer_task=transformer_task, processing_kwargs=processing)
    teach_pair_roles(transformer.processor)
    true_id, false_id = (_token_id(transformer.tokenizer, token) for token in (true_token, false_token))
    if transformer_task == "any-to-any":
        head: list[nn.Module] = [LogitScore(true_token_id=true_id, false_token_id=false_id)]
    else:
        head = _linear_head(transformer, true_id, false_id)
    model = CrossEncoder(modules=[transformer, *head], num_labels=1, **described(CrossEncoder, options))
    return score_in_float32(ready(model, name, **options))


def load_reranker(name: str, **options: Unpack[LoadingOptions]) -> CrossEncoder:
    """Load a saved reranker: a folder, `package:PACKAGE/FOLDER`, or a name on the Hub; options as in `LoadingOptions`.

    Raises:
        ConfigError: If it can't be loaded.
    """
    return score_in_float32(ready(load_saved(CrossEncoder, name, options), name, **options))


class Float32Linear(nn.Linear):
    """The layer that scores, in float32 whatever the weights and their steps are: bfloat16 scores of near pairs tie.

    Of a language modelling head it computes the answers' logits; the others, which no score takes, are 0.
    """

    rows: Any = slice(None)  # of the weight: the answers' token ids

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return outputs of shape (..., out_features), in float32."""
        if input.dtype == self.weight.dtype == torch.float32 and not torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        outputs = input.new_zeros(*input.shape[:-1], self.out_features, dtype=torch.float32)
        with torch.autocast(input.device.type, enabled=False):
            bias = None if self.bias is None else self.bias[self.rows].float()
            outputs[..., self.rows] = nn.functional.linear(input.float(), self.weight[self.rows].float(), bias)
        return outputs


def score_in_float32(model: CrossEncoder) -> CrossEncoder:
    """Let the layer that scores do so in float32; a Dense, trained from its start, holds its weights so too."""
    for module in model:
        if isinstance(module, Dense) and module.module_output_name == "scores":
            module.linear.__class__ = Float32Linear
            module.float()
        elif isinstance(module, LogitScore):
            backbone: Any = model.transformers_model
            answers = (module.true_token_id, module.false_token_id)
            if isinstance(backbone.get_output_embeddings(), nn.Linear):  # an adapter of it is none
                head: Any = backbone.get_output_embeddings()
                head.__class__ = Float32Linear
                head.rows = [each for each in answers if each is not None]
        elif isinstance(module, Transformer) and module.transformer_task == "sequence-classification":
            *_, last = (each for each in module.modules() if isinstance(each, nn.Linear))
            if type(last) is nn.Linear and last.out_features == model.num_labels:
                last.__class__ = Float32Linear
    return model


def _token_id(tokenizer: Any, token: str) -> int:
    """Return the id of an answer, which has to be a single token."""
    ids = tokenizer.encode(token, add_special_tokens=False)
    if len(ids) != 1:
        pieces = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(ids)))
        raise ConfigError(
            f"model.true_token and model.false_token: {token!r} is {len(ids)} tokens to this model ({pieces}); "
            "type single ones, such as 1 and 0"
        )
    return ids[0]


def teach_pair_roles(processor: Any) -> None:
    """Let the chat template carry a pair: a query and a document, beside what a user says.

    Raises:
        ConfigError: If the template knows neither these roles nor the place where Qwen's templates ask for the user's.
    """
    template = processor.chat_template or ""
    if USER_ONLY in template:
        processor.chat_template = template.replace(USER_ONLY, WITH_PAIRS)
    elif not all(f'"{role}"' in template or f"'{role}'" in template for role in ("query", "document")):
        raise ConfigError(
            f"model.name: the model's chat template has neither the roles query and document nor {USER_ONLY!r}, where "
            "they could be added; choose another model, or save this one with a template that has them"
        )


def _linear_head(transformer: Transformer, true_id: int, false_id: int) -> list[nn.Module]:
    """Return what scores the last token's hidden state."""
    dim = transformer.get_embedding_dimension()
    answers = transformer.model.get_input_embeddings().weight.detach()  # type: ignore[operator]
    start = (answers[true_id] - answers[false_id]).unsqueeze(0).clone()
    linear = nn.Identity()  # the default would be tanh
    dense = Dense(dim, 1, bias=False, activation_function=linear, init_weight=start, module_output_name="scores")
    return [Pooling(dim, pooling_mode="lasttoken"), dense]
