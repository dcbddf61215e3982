"""What the model card is told of an evaluation: a column for the whole and one for each part."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sentence_transformers.base.model import BaseModel


def put_on_card(
    model: BaseModel,
    evaluator: Any,
    columns: dict[str, Any],
    parts: Mapping[str, dict[str, float]],
    epoch: int,
    steps: int,
) -> dict[str, float]:
    """Put an evaluation on the model card, a column for each of its parts, and return all metrics by name.

    Args:
        model: What was evaluated.
        evaluator: Whose evaluation it is.
        columns: What the card knows the parts by, kept by the evaluator from one call to the next.
        parts: The metrics by what follows the evaluator's name: "" for the whole, "48d", "image_to_text".
        epoch: Of the training.
        steps: Of the training.
    """
    named: dict[str, float] = {}
    for part, values in parts.items():
        column = evaluator
        if part:  # an evaluator of its own, as far as the card is concerned
            column = columns.setdefault(part, copy(evaluator))
            column.name = f"{evaluator.name}-{part}" if evaluator.name else part
            column.primary_metric = f"{column.name}_{evaluator.metric}"
        of_part = column.prefix_name_to_metrics(values, column.name)
        column.store_metrics_in_model_card_data(model, of_part, epoch, steps)
        named |= of_part
    return named
