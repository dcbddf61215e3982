"""Losses: only what Sentence Transformers lacks, and the choice of Matryoshka dimensions."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, Unpack

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.gradcache import RandContext, _create_minibatch
from sentence_transformers.base.model import BaseModel
from sentence_transformers.sentence_transformer import losses
from sentence_transformers.util import batch_to_device
from torch import Tensor, nn

from experiments.config.bounds import AboveZero, Positive
from experiments.config.errors import ConfigError

logger = logging.getLogger(__name__)

SIZE_WITHOUT_TOKENS = 32


class RankingOptions(TypedDict, total=False):
    """The library's options of the loss, with its defaults."""

    scale: AboveZero  # factor of the similarities, 1 / temperature
    gather_across_devices: bool  # take the other devices' documents as negatives too
    directions: Sequence[str]  # what is compared: query_to_doc, query_to_query, doc_to_query, doc_to_doc
    partition_mode: str  # one softmax over all directions (joint) or one each (per_direction)
    hardness_mode: str | None  # weigh harder negatives more: in_batch_negatives, hard_negatives or all_negatives
    hardness_strength: float  # by how much


class CachedMultipleNegativesRankingLoss(losses.CachedMultipleNegativesRankingLoss):
    """The library's loss with a default token budget, chunks of their own for the scores, and pixels moved late.

    The library scores as many queries at once as it encodes inputs, so that small mini-batches slow the scores down,
    and expects the pixels of the whole batch on the device. Here each mini-batch moves there when its turn comes.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        mini_batch_size: Positive | Literal["auto"] | None = None,
        mini_batch_num_tokens: Positive | None = None,
        default_num_tokens: Positive = 2048,
        score_chunk_size: Positive = 1024,
        memory_limit: int | str | None = None,
        **options: Unpack[RankingOptions],
    ) -> None:
        """Set the loss up.

        Args:
            model: The model to train.
            mini_batch_size: Inputs encoded at once; clears the token budget. `auto`: the trainer finds it.
            mini_batch_num_tokens: Tokens encoded at once, padding not counted; at least one input is.
            default_num_tokens: The token budget where neither of the two is set.
            score_chunk_size: Queries whose scores are computed at once.
            memory_limit: What `auto` may use, such as "4GiB": see `mini_batch.choose`.
            options: Those of the loss itself.

        Both mini-batch settings at once are a ConfigError.
        """
        if mini_batch_size is not None and mini_batch_num_tokens is not None:
            raise ConfigError(
                "loss.mini_batch_size and loss.mini_batch_num_tokens exclude each other; set one to null"
            )
        if mini_batch_size is None and mini_batch_num_tokens is None:
            mini_batch_num_tokens = default_num_tokens
        size = 1 if mini_batch_size == "auto" else mini_batch_size or score_chunk_size
        super().__init__(model, mini_batch_size=size, mini_batch_num_tokens=mini_batch_num_tokens, **options)  # type: ignore[arg-type]
        self.mini_batch_is_open = mini_batch_size == "auto"
        self.memory_limit = memory_limit
        self.score_chunk_size = score_chunk_size
        self.budget_is_default = mini_batch_num_tokens == default_num_tokens

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """Compute the loss of a batch: for each column the features of its inputs."""
        sentence_features = list(sentence_features)
        if self.budget_is_default:
            self.check_token_counts(sentence_features)
        return super().forward(sentence_features, labels)

    def check_token_counts(self, sentence_features: Sequence[dict[str, Tensor]]) -> None:
        """Let the default token budget give way to a size where inputs have no token counts, as CLIP's pages."""
        if not all({"attention_mask", "cu_seq_lens_q"} & features.keys() for features in sentence_features):
            self.mini_batch_size, self.mini_batch_num_tokens = SIZE_WITHOUT_TOKENS, None
            logger.info("Inputs without token counts: mini-batches of %d instead", SIZE_WITHOUT_TOKENS)
        self.budget_is_default = False

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """Compute the loss from the embeddings, `score_chunk_size` queries at once."""
        encoder_size, self.mini_batch_size = self.mini_batch_size, self.score_chunk_size
        try:
            return super().calculate_loss(reps, labels, with_backward=with_backward)
        finally:
            self.mini_batch_size = encoder_size

    def embed_minibatch(
        self, sentence_feature: dict[str, Tensor], begin: int, end: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, RandContext | None]:
        """Embed a mini-batch, whose pixels the trainer left in main memory."""
        features = batch_to_device(_create_minibatch(sentence_feature, begin, end), self.model.device)
        return super().embed_minibatch(features, 0, end - begin, *args, **kwargs)


@dataclass(frozen=True)
class Matryoshka:
    """The dimensions that are trained together, largest first, and the one that the model is saved with."""

    dims: tuple[int, ...] | None  # None: no Matryoshka training
    truncate_dim: int | str | None  # a dimension, "auto" or None (all)

    def wrap(self, model: BaseModel, loss: nn.Module) -> nn.Module:
        """Return the loss over all dimensions. It changes the given loss for good: never wrap one loss twice."""
        if self.dims is None:
            return loss
        assert isinstance(model, SentenceTransformer)
        return losses.MatryoshkaLoss(model, loss, matryoshka_dims=list(self.dims))


def matryoshka(
    embedding_dim: int,
    *,
    default_dims: Sequence[int],
    matryoshka_dims: Sequence[int] | None = None,
    truncate_dim: int | str | None = None,
) -> Matryoshka:
    """Choose the Matryoshka dimensions of a model (https://arxiv.org/abs/2205.13147).

    Args:
        embedding_dim: The model's own dimension.
        default_dims: Those above the model's own are dropped, and its own is added.
        matryoshka_dims: A list by hand, used as it stands instead; one above the model's own is a ConfigError.
        truncate_dim: The dimension that the model is saved with, `auto` or None (all).
    """
    is_above = isinstance(truncate_dim, int) and truncate_dim > embedding_dim
    if matryoshka_dims is not None:
        if too_large := [dim for dim in matryoshka_dims if dim > embedding_dim]:
            raise ConfigError(
                f"matryoshka.matryoshka_dims={list(matryoshka_dims)}: the model has {embedding_dim} dimensions; "
                f"leave out {', '.join(map(str, too_large))}"
            )
        if is_above:
            raise ConfigError(
                f"matryoshka.truncate_dim={truncate_dim}: the model has {embedding_dim} dimensions; type null for all"
            )
        return Matryoshka(tuple(sorted({*matryoshka_dims}, reverse=True)), truncate_dim)
    dims = sorted({embedding_dim, *(dim for dim in default_dims if dim < embedding_dim)}, reverse=True)
    if is_above:
        logger.info("truncate_dim %d is above the model's %d: saved with all", truncate_dim, embedding_dim)
    return Matryoshka(tuple(dims), None if is_above else truncate_dim)


def no_matryoshka(embedding_dim: int | None, *, truncate_dim: int | str | None = None) -> Matryoshka:
    """Train the model's own dimension alone; one to save that is above it is a ConfigError."""
    if isinstance(truncate_dim, int) and truncate_dim > (embedding_dim or 0):
        raise ConfigError(f"matryoshka.truncate_dim={truncate_dim}: the model has {embedding_dim or 0} dimensions")
    return Matryoshka(None, truncate_dim)
