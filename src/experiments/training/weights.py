"""Whether a training has changed the weights at all, and if not, why."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import torch
from sentence_transformers.base.model import BaseModel
from torch import Tensor

from experiments.training.trainer import RunTrainer

_AT_ONCE = 2**24  # weights, whose sum takes 128 MiB at most
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def checksums(model: BaseModel) -> dict[str, int]:
    """Return a sum over the bits of each weight that is trained.

    It reads them once: two billion take ten seconds of a core, on a GPU a moment. Bits are added up as whole numbers,
    exactly and in any order, so that no change is rounded away.
    """
    trained = ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)
    return {name: checksum(weight) for name, weight in trained}


def checksum(weight: Tensor) -> int:
    """Return the sum of a tensor's bits, read as whole numbers of its type's size."""
    bits = weight.detach().contiguous().view(_BITS[weight.element_size()]).flatten()
    return sum(int(part.sum(dtype=torch.int64)) for part in bits.split(_AT_ONCE))


def unchanged(trainer: RunTrainer, before: dict[str, int]) -> str | None:
    """Return why no weight has changed since its checksum, "" if that isn't known; None if one has.

    It stops at the first that has: after most trainings that is the first weight.
    """
    weights = dict(trainer.model.named_parameters())
    if any(name not in weights or checksum(weights[name]) != known for name, known in before.items()):
        return None
    return next(_reasons(trainer, before), "")


def _reasons(trainer: RunTrainer, trained: Collection[str]) -> Iterator[str]:
    state = trainer.state
    args: Any = trainer.args  # `RunArguments`
    if not trained:
        yield "all of them are frozen"
    if not state.global_step:
        yield "not a step was taken"
    if not args.learning_rate:
        yield "the learning rate is 0"
    if state.max_steps <= args.get_warmup_steps(state.max_steps):
        yield "all steps are warm-up, the first of which has the learning rate 0"
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    if losses and not any(losses):
        yield "the loss is 0"
    if not args.optim_is_open and any(each.dtype == torch.bfloat16 for each in trainer.model.parameters()):
        yield "bfloat16 may round small updates away, see trainer.optim"
