"""AdamW for bfloat16 weights that keeps the updates which rounding to the nearest would lose.

A bfloat16 has 8 bits of precision: adding less than 1/512 of a weight leaves it as it was, and at 2e-5 nine of ten
updates are that small (`benchmarks.bf16_weights`). Rounded up or down at random, in proportion to the distance, they
count on average (https://arxiv.org/abs/2010.06192). torchao's AdamW does so too, but its import takes seconds of each
run, whether that trains bfloat16 weights or not, and its steps are compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

CHUNK = 2**24  # weights at once, in whole rows: what is computed in float32 takes 64 MiB a tensor


class StochasticAdamW(torch.optim.Optimizer):
    """AdamW (https://arxiv.org/abs/1711.05101) whose weights and moments are rounded at random where they're bfloat16.

    The random numbers depend on the step alone, so that a resumed run and each of several processes draw the same.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> Any:
        """Do one step; with the gradients that are there."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        generators: dict[torch.device, torch.Generator] = {}
        for group in self.param_groups:
            for weight in (each for each in group["params"] if each.grad is not None):
                state = self.state[weight]
                if not state:
                    state.update(step=0, exp_avg=torch.zeros_like(weight), exp_avg_sq=torch.zeros_like(weight))
                state["step"] += 1
                if weight.device not in generators:
                    generators[weight.device] = torch.Generator(weight.device).manual_seed(state["step"])
                tensors = [*map(torch.atleast_1d, (weight.data, weight.grad, state["exp_avg"], state["exp_avg_sq"]))]
                num_rows = max(1, CHUNK * len(tensors[0]) // max(1, weight.numel()))
                for parts in zip(*(each.split(num_rows) for each in tensors), strict=True):
                    _update(parts, group, state["step"], generators[weight.device])
        return loss


def _update(parts: tuple[Tensor, ...], group: dict[str, Any], step: int, generator: torch.Generator) -> None:
    """Change weights and moments in place; computed in float32.

    Args:
        parts: Weights, gradients, first and second moments, of one shape.
        group: The optimizer's settings.
        step: From 1.
        generator: On the weights' device.
    """
    weight, grad, exp_avg, exp_avg_sq = parts
    beta1, beta2 = group["betas"]
    exact, gradient = weight.float(), grad.float()
    first = exp_avg.float().lerp(gradient, 1 - beta1)
    second = exp_avg_sq.float().mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    scale = second.div(1 - beta2**step).sqrt_().add_(group["eps"])
    exact = exact.mul(1 - group["lr"] * group["weight_decay"]).addcdiv_(
        first, scale, value=-group["lr"] / (1 - beta1**step)
    )
    for target, value in ((weight, exact), (exp_avg, first), (exp_avg_sq, second)):
        target.copy_(round_at_random(value, generator) if target.dtype == torch.bfloat16 else value)


def round_at_random(values: Tensor, generator: torch.Generator) -> Tensor:
    """Return finite float32 values rounded to one of the two bfloat16 values beside each, in float32.

    The chance of either is the share of the way to it: the expectation is the value itself.
    """
    noise = torch.randint(0, 1 << 16, values.shape, dtype=torch.int32, device=values.device, generator=generator)
    return (values.view(torch.int32) + noise).bitwise_and_(-(1 << 16)).view(torch.float32)
