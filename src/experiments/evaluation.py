"""Evaluators: embed every query and page once, score every dimension and precision from those embeddings."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset, Value
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.util.distributed import get_world_size
from sentence_transformers.util.quantization import quantize_embeddings
from tqdm.auto import tqdm

from experiments import metrics
from experiments.errors import ConfigError

PRIMARY_METRIC = "cosine_ndcg@10"
PRECISIONS = ("float32", "int8", "binary")

_TEXTS_AT_ONCE = 64  # encode batches of texts; few enough for a progress bar, enough to sort by length
_SCORES_AT_ONCE = 2**22  # similarities held at once: 16 MiB, and as much again a few times while they are ranked

logger = logging.getLogger(__name__)


class Ranking(NamedTuple):
    """The first 100 documents of each query, best first: both arrays have the shape (num_queries, depth)."""

    document_ids: np.ndarray  # str
    scores: np.ndarray  # float32


@dataclass(frozen=True)
class Evaluation:
    """What a model scored, keyed by dimension, the full one first."""

    query_ids: list[str]
    relevant_docs: dict[str, set[str]]
    metrics: dict[int, dict[str, float]]  # float32: {"cosine_ndcg@10": ...}
    per_query: dict[int, np.ndarray]  # primary metric, shape (num_queries,)
    rankings: dict[int, Ranking]
    intervals: dict[int, tuple[float, float]] = field(default_factory=dict)  # 95% bootstrap of the primary metric
    precision: dict[int, dict[str, dict[str, float]]] = field(default_factory=dict)  # metrics by other precisions
    attributes: dict[str, float] | None = None  # share of queries whose page beats the one that differs in it
    seconds: dict[str, float] = field(default_factory=dict)  # encode_queries, encode_documents, score

    @property
    def full_dim(self) -> int:
        """The dimension of the model's embeddings."""
        return max(self.metrics)

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Return a section of metrics.json: by dimension its metrics, interval and the other precisions' metrics."""
        section: dict[str, dict[str, Any]] = {}
        for dim, values in self.metrics.items():
            section[str(dim)] = dict(values)
            if dim in self.intervals:
                section[str(dim)][f"{PRIMARY_METRIC}_ci95"] = list(self.intervals[dim])
            section[str(dim)].update(self.precision.get(dim, {}))
        return section

    def write_trec(self, folder: Path, tag: str) -> None:
        """Write `{tag}_dim0096.trec`, a run file per dimension, and `qrels.trec`, each whole or not at all.

        trec_eval gives the reported metrics from them: the scores have the digits that tell one float32 from another,
        and ties are broken as it breaks them.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for dim, ranking in self.rankings.items():
            run = f"{tag}_dim{dim:04d}"
            _write_lines(
                folder / f"{run}.trec",
                (
                    f"{query_id} Q0 {document_id} {rank} {score} {run}"
                    for query_id, ids, scores in zip(self.query_ids, *ranking, strict=True)
                    for rank, (document_id, score) in enumerate(zip(ids, scores, strict=True), start=1)
                ),
            )
        _write_lines(
            folder / "qrels.trec",
            (f"{query_id} 0 {id_} 1" for query_id in self.query_ids for id_ in sorted(self.relevant_docs[query_id])),
        )


class RetrievalEvaluator(BaseEvaluator):
    """Retrieval of documents by cosine similarity, at several truncations of the same embeddings.

    A smaller dimension is the first components, normalised again. int8 is the cosine similarity of the integers that
    `quantize_embeddings` gives, calibrated on the documents for both sides; binary is the dot product of the signs
    (±1), which orders documents as their Hamming distance does, at dimensions that are whole bytes.

    Args:
        queries: Columns `query_id` and `query`; those without relevant documents are left out.
        corpus: Columns `corpus_id` and `document`: text, or images, which are decoded once and never held all at once.
        relevant_docs: query_id -> the corpus_ids that answer it.
        name: Put before the metrics' names.
        truncate_dims: Dimensions to score beside the full one; None: a half, a quarter, an eighth of it.
        batch_size: Inputs embedded at once (on each device).
        precisions: Of the embeddings, for `evaluate`: float32 always, int8, binary.
        num_workers: Threads that decode images while the model embeds the batch before; 0: none. (Threads: decoding
            leaves Python's lock free, so nothing is pickled and no process is forked from one that runs torch.)
        num_bootstrap: Resamples of the queries behind the 95% interval.
        seed: Of the resampling.
        show_progress_bar: None: if standard error is a terminal.
        attribute_negatives: query_id -> {attribute: the corpus_id that differs from the right page in it alone}.

    Raises:
        ConfigError: If a dimension or a precision makes no sense, or nothing can be evaluated.
    """

    def __init__(
        self,
        queries: Dataset,
        corpus: Dataset,
        relevant_docs: dict[str, set[str]],
        name: str = "",
        *,
        truncate_dims: Sequence[int] | None = None,
        batch_size: int = 32,
        precisions: Sequence[str] = PRECISIONS,
        num_workers: int = 0,
        num_bootstrap: int = 1000,
        seed: int = 0,
        show_progress_bar: bool | None = None,
        attribute_negatives: dict[str, dict[str, str]] | None = None,
    ) -> None:
        super().__init__()
        _check_options(truncate_dims, precisions)
        answered = [row for row, query_id in enumerate(queries["query_id"]) if relevant_docs.get(query_id)]
        if not answered:
            raise ConfigError("the evaluation has no query with a relevant document; give data.eval some rows")
        self.queries = queries if len(answered) == len(queries) else queries.select(answered)
        self.query_ids: list[str] = list(self.queries["query_id"])
        self.corpus = corpus
        # Columns of the score matrix are in descending order of id, so that the lower one wins a tie as in trec_eval.
        ids = list(corpus["corpus_id"])
        by_id = sorted(range(len(ids)), key=ids.__getitem__, reverse=True)
        self._document_ids = np.array([ids[row] for row in by_id])
        self._column_of_row = np.argsort(by_id)
        self._column_of_id = {id_: column for column, id_ in enumerate(self._document_ids.tolist())}
        assert len(self._column_of_id) == len(ids), "corpus_id must be unique"
        self.relevant_docs = {query_id: relevant_docs[query_id] for query_id in self.query_ids}
        self.name = name
        self.truncate_dims = truncate_dims
        self.batch_size = batch_size
        self.precisions = tuple(precisions)
        self.num_workers = num_workers
        self.num_bootstrap = num_bootstrap
        self.seed = seed
        self.show_progress_bar = show_progress_bar
        self.attribute_negatives = attribute_negatives
        self.primary_metric = f"{name}_{PRIMARY_METRIC}" if name else PRIMARY_METRIC
        self._at_dim: dict[int, RetrievalEvaluator] = {}

    @property
    def description(self) -> str:
        """The task's name on the model card, as the library's own evaluator gives it."""
        return "Information Retrieval"

    def __call__(
        self, model: SentenceTransformer, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """Return the float32 metrics of every dimension, as the trainer wants them.

        `{name}_cosine_ndcg@10` is the full dimension's, `{name}-48d_cosine_ndcg@10` a smaller one's.
        """
        return self._report(model, self._evaluate(model, everything=False), epoch, steps)

    def evaluate(self, model: SentenceTransformer) -> Evaluation:
        """Return everything that one pass over queries and documents tells.

        Raises:
            ConfigError: If a dimension is above the model's.
            FloatingPointError: If an embedding is not finite.
        """
        evaluation = self._evaluate(model, everything=True)
        self._report(model, evaluation, -1, -1)
        return evaluation

    def _evaluate(self, model: SentenceTransformer, *, everything: bool) -> Evaluation:
        started = time.perf_counter()
        queries = self._embed(model.encode_query, self.queries, "query")
        dims = self._dims(queries.shape[1])
        queries_done = time.perf_counter()
        documents = np.empty((len(self.corpus), queries.shape[1]), dtype=np.float32)
        documents[self._column_of_row] = self._embed(model.encode_document, self.corpus, "document")
        documents_done = time.perf_counter()

        evaluation = Evaluation(self.query_ids, self.relevant_docs, {}, {}, {})
        for dim in dims:
            self._score(evaluation, _normalize(queries[:, :dim]), _normalize(documents[:, :dim]), everything)
        if everything and self.attribute_negatives:
            shares = self._attribute_shares(_normalize(queries), _normalize(documents))
            evaluation = _with(evaluation, attributes=shares)
        evaluation.seconds.update(
            encode_queries=queries_done - started,
            encode_documents=documents_done - queries_done,
            score=time.perf_counter() - documents_done,
        )
        return evaluation
