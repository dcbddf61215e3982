"""What the log, the trainer and the model card are told of an evaluation."""

from __future__ import annotations

import logging
from copy import copy
from typing import TYPE_CHECKING, Any

from experiments.runs.metrics_file import metric_label

if TYPE_CHECKING:
    from sentence_transformers.base.model import BaseModel

    from experiments.evaluation.results import Evaluation

logger = logging.getLogger(__name__)


def say(
    model: BaseModel, evaluator: Any, evaluation: Evaluation, epoch: int = -1, steps: int = -1
) -> dict[str, float]:
    """Put an evaluation into the log and on the model card, a column for each part; return all metrics by name.

    What runs are ranked by is named as the evaluator, `pages_cosine_ndcg@10`, the other parts after it:
    `pages-48d_cosine_ndcg@10`, `pages-image_to_text_cosine_ndcg@10`.

    Args:
        model: What was evaluated.
        evaluator: Whose evaluation it is; its `columns` are what the card knows the parts by, from call to call.
        evaluation: What it found.
        epoch: Of the training.
        steps: Of the training.
    """
    named: dict[str, float] = {}
    parts = {f"{dim}d": part for dim, part in evaluation.dimensions.items()} | evaluation.directions
    for index, (name, part) in enumerate(parts.items()):
        column = evaluator
        if index:  # an evaluator of its own, as far as the card is concerned
            column = evaluator.columns.setdefault(name, copy(evaluator))
            column.name = f"{evaluator.name}-{name}" if evaluator.name else name
            column.primary_metric = f"{column.name}_{evaluator.metric}"
        of_part = column.prefix_name_to_metrics(part.metrics, column.name)
        column.store_metrics_in_model_card_data(model, of_part, epoch, steps)
        named |= of_part
    scores = {name: f"{part.metrics[evaluator.metric]:.3f}" for name, part in parts.items()}
    dims = ", ".join(f"{scores.pop(f'{dim}d')} at {dim}" for dim in evaluation.dimensions)
    directions = ", ".join(f"{score} {name}" for name, score in scores.items())
    said = "; ".join(filter(None, [dims and f"{dims} dimensions", directions]))
    logger.info("%s: %s %s", evaluator.name or evaluator.description, metric_label(evaluator.metric), said)
    return named
