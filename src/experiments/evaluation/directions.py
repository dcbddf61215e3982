"""Evaluation of embedders in several directions at once, such as from image to text and from text to image."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator

from experiments.data.types import Direction
from experiments.evaluation import metrics
from experiments.evaluation.card_columns import put_on_card
from experiments.evaluation.primary_metric import PRIMARY_METRIC
from experiments.evaluation.results import Evaluation, Ranking
from experiments.evaluation.retrieval import PRECISIONS, RetrievalEvaluator

logger = logging.getLogger(__name__)


class DirectionsEvaluator(BaseEvaluator):
    """Retrieval in several directions, pooled: each query ranks the documents of its own direction alone.

    A metric is the mean over the queries of all directions. The model's prompt that is named as a direction, if it has
    one, comes before that direction's queries.

    Args:
        directions: Queries, corpus and relevance by direction.
        name: Put before the metrics' names.
        truncate_dims: See `RetrievalEvaluator`, as all that follows.
        saved_dim: See there.
        batch_size: See there.
        precisions: See there.
        num_workers: See there.
        num_bootstrap: Resamples of the queries of all directions.
        seed: Of the resampling.
        show_progress_bar: See there.
        cache_dir: See there.

    Raises:
        ConfigError: If a dimension or a precision makes no sense, or a direction has nothing to evaluate.
    """

    metric = PRIMARY_METRIC

    def __init__(
        self,
        directions: Mapping[str, Direction],
        name: str = "",
        *,
        truncate_dims: Sequence[int] | None = None,
        saved_dim: int | None = None,
        batch_size: int = 32,
        precisions: Sequence[str] = PRECISIONS,
        num_workers: int = 0,
        num_bootstrap: int = 1000,
        seed: int = 0,
        show_progress_bar: bool | None = None,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__()
        self.evaluators = {
            direction: RetrievalEvaluator(
                each.queries,
                each.corpus,
                each.relevant_docs,
                direction,
                truncate_dims=truncate_dims,
                saved_dim=saved_dim,
                batch_size=batch_size,
                precisions=precisions,
                num_workers=num_workers,
                num_bootstrap=num_bootstrap,
                seed=seed,
                show_progress_bar=show_progress_bar,
                cache_dir=cache_dir,
                query_prompt_name=direction,
            )
            for direction, each in directions.items()
        }
        self.name = name
        self.num_bootstrap = num_bootstrap
        self.seed = seed
        self.primary_metric = f"{name}_{PRIMARY_METRIC}" if name else PRIMARY_METRIC
        self._columns: dict[str, BaseEvaluator] = {}  # of the model card: smaller dimensions, then directions

    @property
    def description(self) -> str:
        """The task's name on the model card, as the library's own evaluator gives it."""
        return "Information Retrieval"

    def __call__(  # type: ignore[override]  # as RetrievalEvaluator's
        self, model: SentenceTransformer, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """Return the float32 metrics, as the trainer wants them.

        `{name}_cosine_ndcg@10` is of all directions at the full dimension, `{name}-48d_cosine_ndcg@10` at a smaller
        one, and `{name}-image_to_text_cosine_ndcg@10` of a direction at the full one.
        """
        return self._report(model, self._measure(model, everything=False), epoch, steps)

    def evaluate(self, model: SentenceTransformer, *, cached: bool = False) -> Evaluation:
        """Return everything that one pass over the queries and documents of all directions tells.

        Args:
            model: What is evaluated.
            cached: See `RetrievalEvaluator.evaluate`.

        Raises:
            ConfigError: If a dimension is above the model's.
            FloatingPointError: If an embedding is not finite.
        """
        evaluation = self._measure(model, everything=True, cached=cached)
        self._report(model, evaluation, -1, -1)
        return evaluation

    def _measure(self, model: SentenceTransformer, *, everything: bool, cached: bool = False) -> Evaluation:
        found = {
            direction: evaluator.measure(model, everything=everything, cached=cached)
            for direction, evaluator in self.evaluators.items()
        }
        pooled = pool(found)
        if everything:
            pooled.intervals = {
                dim: metrics.bootstrap_interval(values, self.num_bootstrap, self.seed)
                for dim, values in pooled.per_query.items()
            }
        return pooled

    def _report(self, model: SentenceTransformer, evaluation: Evaluation, epoch: int, steps: int) -> dict[str, float]:
        """Put the metrics of dimensions and directions into the log and on the model card; return all by name."""
        full = evaluation.full_dim
        parts = {"" if dim == full else f"{dim}d": values for dim, values in evaluation.metrics.items()}
        directions = {direction: each.metrics[full] for direction, each in evaluation.directions.items()}
        named = put_on_card(model, self, self._columns, parts | directions, epoch, steps)
        scores = ", ".join(f"{values[PRIMARY_METRIC]:.3f} at {dim}" for dim, values in evaluation.metrics.items())
        each = ", ".join(f"{direction} {values[PRIMARY_METRIC]:.3f}" for direction, values in directions.items())
        logger.info("%s: nDCG@10 %s dimensions; %s", self.name or "retrieval", scores, each)
        return named


def pool(found: dict[str, Evaluation]) -> Evaluation:
    """Return the evaluation of all directions: means over all queries; ids get their direction before them.

    Args:
        found: By direction, at the same dimensions. They stay as they are, in `directions`.
    """
    evaluations = [*found.values()]
    weights = [len(each.query_ids) for each in evaluations]
    files = [each.cache_file for each in evaluations]
    pooled = Evaluation(
        [f"{direction}/{query_id}" for direction, each in found.items() for query_id in each.query_ids],
        {
            f"{direction}/{query_id}": {f"{direction}/{id_}" for id_ in ids}
            for direction, each in found.items()
            for query_id, ids in each.relevant_docs.items()
        },
        seconds=dict(sum((Counter(each.seconds) for each in evaluations), Counter())),
        cache_file=files[0] if all(files) else None,
        directions=found,
    )
    for dim in evaluations[0].metrics:
        pooled.metrics[dim] = _mean([each.metrics[dim] for each in evaluations], weights)
        pooled.per_query[dim] = np.concatenate([each.per_query[dim] for each in evaluations])
        pooled.rankings[dim] = Ranking(
            [
                np.char.add(f"{direction}/", ids)
                for direction, each in found.items()
                for ids in each.rankings[dim].document_ids
            ],
            [scores for each in evaluations for scores in each.rankings[dim].scores],
        )
        if dim in evaluations[0].precision:
            pooled.precision[dim] = {
                precision: _mean([each.precision[dim][precision] for each in evaluations], weights)
                for precision in evaluations[0].precision[dim]
            }
    return pooled


def _mean(values: Iterable[dict[str, float]], weights: Sequence[int]) -> dict[str, float]:
    """Return each metric's mean over all queries, given its means over those of each direction."""
    columns = [*values]
    return {name: float(np.average([each[name] for each in columns], weights=weights)) for name in columns[0]}
