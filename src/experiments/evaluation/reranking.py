"""Evaluation of rerankers: several directions at once, end to end and with the right documents always present."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from datasets import Dataset, Value
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.util.distributed import get_world_size
from torch import nn
from tqdm.auto import tqdm

from experiments.config.bounds import NotNegative, Positive
from experiments.data.types import Direction
from experiments.evaluation import metrics
from experiments.evaluation.embedding import KeptPages
from experiments.evaluation.query_values import Part, pool
from experiments.evaluation.results import Evaluation, say
from experiments.evaluation.retrieval import RetrievalEvaluator
from experiments.evaluation.trec import Ranking
from experiments.runs.metrics_file import RANKED_BY


@dataclass(frozen=True)
class Candidates:
    """The documents of each query that are put in order: rows of the corpus."""

    retrieved: list[list[int]] | None  # the retriever's, best first; None: drawn at random, nothing is end to end
    scored: list[list[int]]  # those and the right ones
    ordered: bool  # whether the order of `retrieved` means anything


class RerankingEvaluator(BaseEvaluator):
    """Reranking of candidates in several directions, each with the model's prompt of its name.

    `ndcg@10`, `mrr@10`, `map` and `accuracy@1` are with the right documents always among the candidates, as the
    library's `CrossEncoderRerankingEvaluator` has them; `end_to_end_ndcg@10` and so on are over what the retriever
    found, and what it missed counts as missed; `retriever_ndcg@10` and so on are the retriever's own order. nDCG and
    MAP divide by all relevant documents, and ties go as in trec_eval.

    Args:
        directions: Queries, corpus and relevance by direction.
        name: Put before the metrics' names.
        retriever: An embedding model that finds each query's candidates. None: every document is a candidate (end to
            end, without a retriever), or as many as `num_candidates`, drawn at random (not end to end).
        num_candidates: Of each query, at most 100 with a retriever; None: all, or the retriever's first 100.
        batch_size: Pairs scored at once (on each device).
        num_bootstrap: Resamples of the queries behind the 95% interval.
        seed: Of the resampling and of candidates drawn at random.
        show_progress_bar: None: if standard error is a terminal.
    """

    metric = RANKED_BY
    description = "Cross Encoder Reranking"  # the task on the model card, as the library's own evaluator names it

    def __init__(
        self,
        directions: dict[str, Direction],
        name: str = "",
        *,
        retriever: SentenceTransformer | None = None,
        num_candidates: Positive | None = None,
        batch_size: Positive = 32,
        num_bootstrap: Positive = 1000,
        seed: NotNegative = 0,
        show_progress_bar: bool | None = None,
    ) -> None:
        super().__init__()
        self.directions = directions
        self.name = name
        self.retriever = retriever
        self.num_candidates = num_candidates
        self.batch_size = batch_size
        self.num_bootstrap = num_bootstrap
        self.seed = seed
        self._hide_bar = None if show_progress_bar is None else not show_progress_bar
        self.primary_metric = f"{name}_{RANKED_BY}" if name else RANKED_BY
        self.columns: dict[str, BaseEvaluator] = {}  # of the model card, one for each direction
        self.candidates: dict[str, Candidates] = {}
        self._pages = KeptPages()

    def __call__(  # type: ignore[override]
        self, model: CrossEncoder, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """Return the metrics as the trainer wants them: `{name}_ndcg@10`, `{name}-image_to_text_ndcg@10`."""
        return say(model, self, self._measure(model), epoch, steps)

    def evaluate(self, model: CrossEncoder, *, cached: bool = False) -> Evaluation:
        """Return everything that scoring each query's candidates once tells; nothing of it is kept, cached or not.

        Raises:
            FloatingPointError: If a score is not finite.
        """
        evaluation = self._measure(model)
        evaluation.add_intervals(self.metric, self.num_bootstrap, self.seed)
        evaluation.add_chance({name: self._chance(name) for name in self.directions})
        say(model, self, evaluation)
        return evaluation

    def _measure(self, model: CrossEncoder) -> Evaluation:
        evaluation = Evaluation({name: each.relevant_docs for name, each in self.directions.items()})
        found = {}
        for name, direction in self.directions.items():
            if name not in self.candidates:
                self.candidates[name] = self._choose(name, direction)
            found[name] = self._rank(evaluation, name, self._score(model, name, direction))
        self.retriever = None  # its candidates are known now
        evaluation.directions = {"all": pool(found)} | found
        return evaluation

    def _choose(self, name: str, direction: Direction) -> Candidates:
        """Return the documents to put in order for each query."""
        row_of = {id_: row for row, id_ in enumerate(direction.corpus["corpus_id"][:])}
        query_ids = direction.queries["query_id"][:]
        right = [sorted(row_of[id_] for id_ in direction.relevant_docs[query_id]) for query_id in query_ids]
        everything = list(range(len(row_of)))
        if self.retriever is not None:
            options: Any = {"truncate_dims": [], "precisions": ["float32"], "num_bootstrap": 1}
            options |= {"name": f"retriever, {name}", "batch_size": self.batch_size}
            retrieval = RetrievalEvaluator({name: direction}, **options)
            [rankings] = retrieval.evaluate(self.retriever).rankings.values()
            retrieved = [[row_of[id_] for id_ in ids[: self.num_candidates]] for ids in rankings[name].document_ids]
            scored = [[*dict.fromkeys([*found, *rows])] for found, rows in zip(retrieved, right, strict=True)]
            return Candidates(retrieved, scored, ordered=True)
        if self.num_candidates is None or self.num_candidates >= len(everything):
            return Candidates([everything] * len(right), [everything] * len(right), ordered=False)
        rng = np.random.default_rng(self.seed)
        drawn = []
        for rows in right:
            wrong = np.setdiff1d(everything, rows)
            number = min(max(self.num_candidates - len(rows), 0), len(wrong))
            drawn.append([*rows, *rng.choice(wrong, number, replace=False).tolist()])
        return Candidates(None, drawn, ordered=False)

    def _chance(self, name: str) -> Part:
        """Return what a random order gives: of the candidates, end to end of those retrieved, or of the corpus."""
        direction, candidates = self.directions[name], self.candidates[name]
        query_ids = direction.queries["query_id"][:]
        relevant = [direction.relevant_docs[query_id] for query_id in query_ids]
        num_relevant, ids = np.array([*map(len, relevant)]), np.array(direction.corpus["corpus_id"][:])
        counts = {"": ([len(rows) for rows in candidates.scored], num_relevant)}  # as `_rank` names the orders
        if (retrieved := candidates.retrieved) is not None:
            found = [len(right.intersection(ids[rows])) for right, rows in zip(relevant, retrieved, strict=True)]
            counts["end_to_end_"] = [len(rows) for rows in retrieved], np.array(found)
        if candidates.ordered:
            counts["retriever_"] = [len(ids)] * len(relevant), num_relevant
        values: dict[str, np.ndarray] = {}
        for prefix, (num_documents, num_present) in counts.items():
            of_order = metrics.reranking_chance(np.array(num_documents), num_present, num_relevant)
            values |= {f"{prefix}{name}": value for name, value in of_order.items()}
        return Part(query_ids, values)

    def _score(self, model: CrossEncoder, name: str, direction: Direction) -> list[np.ndarray]:
        """Return the scores of each query's candidates, in their order, float32."""
        scored = self.candidates[name].scored
        pairs = [(query, document) for query, documents in enumerate(scored) for document in documents]
        query = self._reader(model, name, direction.queries, "query")
        document = self._reader(model, name, direction.corpus, "document")
        scores = np.empty(len(pairs), dtype=np.float32)
        size = self.batch_size * get_world_size()
        for start in tqdm(range(0, len(pairs), size), desc=f"Reranking {name}", leave=False, disable=self._hide_bar):
            inputs = [(query(i), document(j)) for i, j in pairs[start : start + size]]
            scores[start : start + size] = model.predict(
                inputs,
                prompt_name=name if name in model.prompts else None,
                batch_size=self.batch_size,
                activation_fn=nn.Identity(),  # a sigmoid would make high scores equal
                show_progress_bar=False,
            )
        if not np.isfinite(scores).all():
            raise FloatingPointError(f"a score in the evaluation's direction {name} is not finite")
        return np.split(scores, np.cumsum([len(documents) for documents in scored])[:-1])

    def _reader(self, model: CrossEncoder, name: str, dataset: Dataset, column: str) -> Any:
        """Return the function that reads a row; images are decoded once, small if the model tells its size."""
        if isinstance(dataset.features[column], Value):
            return dataset[column][:].__getitem__
        if (resized := self._pages.resized(model, name, dataset, column)) is not None:
            return resized.__getitem__
        return lru_cache(2 * self.batch_size)(lambda row: dataset[row][column])  # the pairs of a query stand together

    def _rank(self, evaluation: Evaluation, name: str, scores: list[np.ndarray]) -> Part:
        """Add the rankings of a direction and return the metrics of its queries."""
        direction, candidates = self.directions[name], self.candidates[name]
        ids = np.array(direction.corpus["corpus_id"][:])
        query_ids = direction.queries["query_id"][:]
        relevant = [direction.relevant_docs[query_id] for query_id in query_ids]
        ranked = [metrics.order(ids[rows], values) for rows, values in zip(candidates.scored, scores, strict=True)]
        evaluation.rankings[name] = {name: Ranking(query_ids, *zip(*ranked, strict=True))}
        orders = {"": [documents for documents, _ in ranked]}  # by what is before the metrics' names
        if candidates.retrieved is not None:
            retrieved = [ids[rows] for rows in candidates.retrieved]
            kept = [np.isin(documents, found) for documents, found in zip(orders[""], retrieved, strict=True)]
            found = [(documents[mask], values[mask]) for (documents, values), mask in zip(ranked, kept, strict=True)]
            evaluation.rankings[f"{name}_end_to_end"] = {name: Ranking(query_ids, *zip(*found, strict=True))}
            orders["end_to_end_"] = [documents for documents, _ in found]
            if candidates.ordered:
                orders["retriever_"] = retrieved
        by_order = {prefix: metrics.reranking_metrics(documents, relevant) for prefix, documents in orders.items()}
        values = {f"{prefix}{key}": value for prefix, found in by_order.items() for key, value in found.items()}
        return Part(query_ids, values)
