"""What an evaluation of an embedder or a reranker found, and what the log, the trainer and the model card are told."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sentence_transformers.base.model import BaseModel

from experiments.data.types import Data, Direction
from experiments.evaluation.metrics import bootstrap_interval, share_interval
from experiments.evaluation.query_values import Part, pool, save_query_values
from experiments.evaluation.samples import Sample, misses_first, samples, worst_first
from experiments.evaluation.trec import Ranking, write_names, write_qrels, write_run
from experiments.runs.metrics_file import lies_above, metric_label, share

logger = logging.getLogger(__name__)


class Evaluator(Protocol):
    """What measures a model before, during and after training, and is called by the trainer too."""

    metric: str  # the primary one, as it stands in metrics.json

    def evaluate(self, model: Any, *, cached: bool = False) -> Evaluation:
        """Return everything that one pass over the evaluation tells; cached: from what an earlier run kept of it."""


@dataclass
class Evaluation:
    """What a model scored: an embedder's dimensions, the full one first, and directions, where there are several.

    An embedder's are at the full dimension; of a reranker's the first is all together.
    """

    relevant_docs: dict[str, dict[str, set[str]]]  # by direction: query_id -> corpus_ids
    dimensions: dict[int, Part] = field(default_factory=dict)
    directions: dict[str, Part] = field(default_factory=dict)
    # By the end of the file's name ("dim0096", "image_to_text_end_to_end"), then by direction; the best first.
    rankings: dict[str, dict[str, Ranking]] = field(default_factory=dict)
    attributes: dict[str, float] | None = None  # share of queries whose page beats the one that differs in it
    # What a random order gives in expectation: by direction, all together first, then by metric.
    chance: dict[str, dict[str, float]] = field(default_factory=dict)
    cache_file: Path | None = None  # where the embeddings were read, if they were

    @property
    def sections(self) -> dict[str, Mapping[Any, Part]]:
        """The parts by name, in the sections of metrics.json; runs are ranked by the first part of the first."""
        found: dict[str, Mapping[Any, Part]] = {"dimensions": self.dimensions, "directions": self.directions}
        return {name: parts for name, parts in found.items() if parts}

    def add_intervals(self, metric: str, num_bootstrap: int, seed: int) -> None:
        """Add to every part the intervals of the primary metric, and of those that are named after it."""
        for part in (part for parts in self.sections.values() for part in parts.values()):
            for name, values in part.values.items():
                if name.endswith(metric):
                    part.intervals[name] = bootstrap_interval(values, num_bootstrap, seed)

    def add_chance(self, found: dict[str, Part]) -> None:
        """Add what a random order gives, of every direction's queries."""
        named = {"all": pool(found)} | (found if len(found) > 1 else {})
        self.chance = {name: part.metrics for name, part in named.items()}

    def add_shares(self, metric: str, num_bootstrap: int, seed: int) -> None:
        """Add to every dimension the interval of its share of the full one's quality, if that is above chance."""
        full, *_ = self.dimensions.values()
        interval, by_chance = full.intervals[metric], self.chance["all"][metric]
        is_above = interval is not None and lies_above(interval, by_chance, len(full.query_ids))
        for part in self.dimensions.values():
            values = part.values[metric], full.values[metric]
            part.intervals[share(metric)] = share_interval(*values, num_bootstrap, seed) if is_above else None

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Return what stands under `base`, `final` or `result` in metrics.json."""
        sections = self.sections.items()
        return {name: {str(key): part.to_json() for key, part in parts.items()} for name, parts in sections}

    def samples(self, data: Data, num: int = 8) -> list[Sample]:
        """Return a few queries of each direction: first misses, then hits, in query order."""
        found: list[Sample] = []
        for name, direction in data.directions.items():
            ranking = self._main_ranking(name)
            rows = misses_first(ranking, direction.relevant_docs)[: num // len(data.directions)]
            found += samples(ranking, direction, rows)
        return found

    def worst(self, name: str, direction: Direction, metric: str, num: int) -> Worst:
        """Return the queries of a direction that the primary metric is lowest for; end to end, where that is known."""
        part = self.directions.get(name) or next(iter(self.dimensions.values()))
        ranking, how = self._main_ranking(name), ""
        if name in (end_to_end := self.rankings.get(f"{name}_end_to_end", {})):
            ranking, how, metric = end_to_end[name], " end to end", f"end_to_end_{metric}"
        rows = worst_first(ranking, direction.relevant_docs, part.values[metric])
        values = part.values[metric][rows[:num]].tolist()
        return Worst([*samples(ranking, direction, rows[:num])], values, len(rows), len(ranking.query_ids), how)

    def _main_ranking(self, direction: str) -> Ranking:
        """Return the first ranking that has the direction: at the full dimension."""
        return next(each[direction] for each in self.rankings.values() if direction in each)

    def write(self, folder: Path, tag: str) -> None:
        """Write the rankings and the metrics of each query, each file whole or not at all.

        `{tag}_dim0096.trec` is a TREC run file of a dimension, `{tag}_image_to_text.trec` of a reranker's direction,
        `qrels.trec` or `qrels_image_to_text.trec` what is relevant there. trec_eval gives the reported metrics from
        them: the scores have the digits that tell one float32 from another, and ties are broken as it breaks them.
        `{tag}.npz` holds those metrics by query.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name, by_direction in self.rankings.items():
            write_run(folder, f"{tag}_{name}", by_direction)
        if self.dimensions:
            write_qrels(folder, "qrels", self.relevant_docs)
        else:
            for name, relevant_docs in self.relevant_docs.items():
                write_qrels(folder, f"qrels_{name}", {name: relevant_docs})
        save_query_values(folder / f"{tag}.npz", self.sections)

    def write_names(self, folder: Path, data: Data) -> None:
        """Write where documents and queries are from, `documents.tsv` and `queries.tsv`, by the ids of the TREC files.

        Of a reranker's several directions each has its own, as `documents_image_to_text.tsv`.
        """
        directions, together = data.directions, self.dimensions or len(data.directions) == 1
        parts = {"": directions} if together else {f"_{name}": {name: each} for name, each in directions.items()}
        for end, part in parts.items():
            write_names(folder, f"documents{end}", {name: each.names for name, each in part.items()})
            write_names(folder, f"queries{end}", {name: each.query_names for name, each in part.items()})


class Worst(NamedTuple):
    """The queries of a direction that aren't answered perfectly, or the first of them."""

    samples: list[Sample]  # the worst first
    values: list[float]  # of the metric, of each of them
    num_missed: int  # all that aren't perfect
    num_queries: int
    how: str  # the metric is taken, to be said after its name


def say(
    model: BaseModel, evaluator: Any, evaluation: Evaluation, epoch: int = -1, steps: int = -1
) -> dict[str, float]:
    """Put an evaluation into the log and on the model card, a column for each part; return all metrics by name.

    What runs are ranked by is named as the evaluator, `pages_cosine_ndcg@10`, the other parts after it:
    `pages-48d_cosine_ndcg@10`, `pages-image_to_text_cosine_ndcg@10`. The card knows the parts by the evaluator's
    `columns`, from call to call.
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
