"""Training of rerankers: pairs are preprocessed by the data loader's workers, and each direction has its prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import losses
from sentence_transformers.cross_encoder.data_collator import CrossEncoderDataCollator
from sentence_transformers.cross_encoder.trainer import CrossEncoderTrainer
from sentence_transformers.cross_encoder.training_args import CrossEncoderTrainingArguments
from sentence_transformers.util import batch_to_device
from torch import Tensor

from experiments.config.bounds import AboveZero
from experiments.training.trainer import BatchSampler, RunArguments, RunTrainer, prompts_of


class BinaryCrossEntropyLoss(losses.BinaryCrossEntropyLoss):
    """The library's loss on pairs that are preprocessed already.

    The library's own preprocesses them itself, between two steps of the model.

    Args:
        model: The reranker to train.
        pos_weight: Weight of the pairs that match, such as the number of negatives for each; None: 1.
    """

    def __init__(self, model: CrossEncoder, *, pos_weight: AboveZero | None = None) -> None:
        super().__init__(model, pos_weight=None if pos_weight is None else torch.tensor(pos_weight))

    def forward(  # type: ignore[override]
        self, inputs: list[dict[str, Tensor]], labels: Tensor, prompt: str | None = None, task: str | None = None
    ) -> Tensor:
        """Return the loss of a batch: one input, the features of all pairs, whose prompt is in them.

        A label is 1 for a pair that matches, 0 for one that doesn't, shape (num_pairs,).
        """
        (features,) = inputs
        logits = self.model(batch_to_device(features, self.model.device))["scores"].view(-1)
        return self.bce_with_logits_loss(self.activation_fn(logits), labels.float())


@dataclass
class PairCollator(CrossEncoderDataCollator):
    """The library's collator, which also preprocesses the pairs: a data loader's worker does it ahead of the step."""

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return `label`, `dataset_name` and `features`: query and document with the data set's prompt."""
        batch = super().__call__(features)
        prompt, task = batch.pop("prompt", None), batch.pop("task", None)
        kept = {key: batch.pop(key) for key in ("label", "dataset_name") if key in batch}
        pairs = list(zip(*batch.values(), strict=True))
        return kept | {"features": self.preprocess_fn(pairs, prompt=prompt, task=task)}


@dataclass
class RerankerTrainingArguments(RunArguments, CrossEncoderTrainingArguments):
    """The library's arguments to train a reranker, and our own.

    Args:
        batch_sampler: Each query comes with several documents, so a batch without duplicates could never be filled.
    """

    batch_sampler: BatchSampler = "batch_sampler"


class RerankerTrainer(RunTrainer, CrossEncoderTrainer):
    """The trainer of a reranker, whose prompts by data set are the model's own.

    `BinaryCrossEntropyLoss` takes pairs that the workers preprocess. Any other loss of the library makes its pairs
    itself, of negatives in the batch or of lists: the workers then only decode and resize the images.
    """

    def __init__(self, **kwargs: Any) -> None:
        model, args, loss = kwargs["model"], kwargs["args"], kwargs["loss"]
        if args.prompts is None:
            args.prompts = prompts_of(model, kwargs["train_dataset"])
        collator = PairCollator if isinstance(loss, BinaryCrossEntropyLoss) else CrossEncoderDataCollator
        super().__init__(data_collator=collator(preprocess_fn=model.preprocess, prompts=args.prompts), **kwargs)


RerankerTrainingArguments.trainer_class = RerankerTrainer
