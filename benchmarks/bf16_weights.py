"""What bfloat16 weights lose under AdamW at the article's learning rate, against float32 master weights.

    python -m benchmarks.bf16_weights

A bfloat16 has 8 bits of precision: adding less than 1/512 of a weight leaves it as it was. AdamW moves each weight by
about the learning rate a step. The same model, batches and steps: with weights of each kind, and with bfloat16 weights
that are rounded at random (`trainer.optim=auto`).
"""

import torch
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from experiments.data.drawn import report_pages
from experiments.models.embedders import qwen3vl_tiny
from experiments.training.stochastic_adamw import StochasticAdamW

NUM_STEPS = 5
BATCH_SIZE = 8
LEARNING_RATE = 2e-5


def updates(
    dtype: torch.dtype, optimizer_class: type[torch.optim.Optimizer] = torch.optim.AdamW
) -> dict[str, torch.Tensor]:
    """Return how far each weight has moved after the steps, in float32."""
    data = report_pages.load(NUM_STEPS * BATCH_SIZE, 20)
    model = qwen3vl_tiny().to(dtype)
    before = {name: weight.detach().float().clone() for name, weight in model.named_parameters()}
    optimizer = optimizer_class(model.parameters(), lr=LEARNING_RATE)
    loss = MultipleNegativesRankingLoss(model)
    for step in range(NUM_STEPS):
        rows = data.train[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
        features = [model.preprocess(rows[column]) for column in data.train.column_names]
        for column in features:
            if "pixel_values" in column:
                column["pixel_values"] = column["pixel_values"].to(dtype)
        optimizer.zero_grad()
        loss(features, None).backward()
        optimizer.step()
    return {name: weight.detach().float() - before[name] for name, weight in model.named_parameters()}


def main() -> None:
    """Print the share of weights that moved at all, and how far they went."""
    exact = _flat(updates(torch.float32))
    rounded = {"bfloat16": torch.optim.AdamW, "bfloat16, rounded at random": StochasticAdamW}
    print(f"{'weights':28} moved  by in all  cosine similarity to float32 ({NUM_STEPS} steps at {LEARNING_RATE:g})")
    for name, moved in [
        ("float32", exact),
        *((name, _flat(updates(torch.bfloat16, each))) for name, each in rounded.items()),
    ]:
        cosine = torch.nn.functional.cosine_similarity(exact, moved, dim=0)
        print(f"{name:28} {float((moved != 0).float().mean()):5.1%} {float(moved.norm()):10.3f}  {float(cosine):.3f}")


def _flat(moved: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([each.flatten() for each in moved.values()])


if __name__ == "__main__":
    main()
