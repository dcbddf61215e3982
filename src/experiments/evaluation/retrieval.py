"""Evaluators: embed every query and page once, score every dimension and precision from those embeddings."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from datasets import Dataset, Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.util.distributed import get_world_size
from tqdm.auto import tqdm

from experiments.config.errors import ConfigError
from experiments.data.resized_pages import ResizedPages, batches, bounds, image_processor
from experiments.evaluation import embedding_cache, metrics
from experiments.evaluation.card_columns import put_on_card
from experiments.evaluation.primary_metric import PRIMARY_METRIC
from experiments.evaluation.results import Evaluation, Ranking

PRECISIONS = ("float32", "int8", "binary")

_SCORES_AT_ONCE = 2**22  # similarities; ranking them takes about 100 MB

logger = logging.getLogger(__name__)


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
        saved_dim: The dimension that the model is saved with, scored too; None: no other.
        batch_size: Inputs embedded at once (on each device).
        precisions: Of the embeddings, for `evaluate`: float32 always, int8, binary.
        num_workers: Threads that decode images while the model embeds the batch before; 0: none. (Decoding frees the
            interpreter's lock; threads pickle no page, and nothing is forked from a process that runs torch.)
        num_bootstrap: Resamples of the queries behind the 95% interval.
        seed: Of the resampling.
        show_progress_bar: None: if standard error is a terminal.
        attribute_negatives: query_id -> {attribute: the corpus_id that differs from the right page in it alone}.
        cache_dir: Where embeddings are kept for other runs, if `evaluate` is told to; None: nowhere.
        query_prompt_name: The model's prompt of this name, if it has one, comes before the queries; None: its own for
            queries.

    Raises:
        ConfigError: If a dimension or a precision makes no sense, or nothing can be evaluated.
    """

    metric = PRIMARY_METRIC

    def __init__(
        self,
        queries: Dataset,
        corpus: Dataset,
        relevant_docs: dict[str, set[str]],
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
        attribute_negatives: dict[str, dict[str, str]] | None = None,
        cache_dir: str | None = None,
        query_prompt_name: str | None = None,
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
        self._column = {id_: column for column, id_ in enumerate(self._document_ids.tolist())}
        assert len(self._column) == len(ids), "a corpus_id occurs twice"
        self.relevant_docs = {query_id: relevant_docs[query_id] for query_id in self.query_ids}
        self._relevant_columns = [[self._column[id_] for id_ in self.relevant_docs[q]] for q in self.query_ids]
        self.name = name
        self.truncate_dims = truncate_dims
        self.saved_dim = saved_dim
        self.batch_size = batch_size
        self.precisions = tuple(precisions)
        self.num_workers = num_workers
        self.num_bootstrap = num_bootstrap
        self.seed = seed
        self.show_progress_bar = show_progress_bar
        self.attribute_negatives = attribute_negatives
        self.cache_dir = None if cache_dir is None else Path(cache_dir).expanduser()
        self.primary_metric = f"{name}_{PRIMARY_METRIC}" if name else PRIMARY_METRIC
        self.query_prompt_name = query_prompt_name
        self._resized: dict[str, ResizedPages] = {}  # by column, for the bounds of the model evaluated last
        self._columns: dict[str, BaseEvaluator] = {}  # of the model card, one for each smaller dimension

    @property
    def description(self) -> str:
        """The task's name on the model card, as the library's own evaluator gives it."""
        return "Information Retrieval"

    def __call__(  # type: ignore[override]  # encode_query and encode_document are SentenceTransformer's
        self, model: SentenceTransformer, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """Return the float32 metrics of every dimension, as the trainer wants them.

        `{name}_cosine_ndcg@10` is the full dimension's, `{name}-48d_cosine_ndcg@10` a smaller one's.
        """
        return self._report(model, self.measure(model, everything=False), epoch, steps)

    def evaluate(self, model: SentenceTransformer, *, cached: bool = False) -> Evaluation:
        """Return everything that one pass over queries and documents tells.

        Args:
            model: What is evaluated.
            cached: Take the embeddings from `cache_dir`, or keep them there: for weights that other runs have too.

        Raises:
            ConfigError: If a dimension is above the model's.
            FloatingPointError: If an embedding is not finite.
        """
        evaluation = self.measure(model, everything=True, cached=cached)
        self._report(model, evaluation, -1, -1)
        return evaluation

    def measure(self, model: SentenceTransformer, *, everything: bool, cached: bool = False) -> Evaluation:
        """Do what `evaluate` does, without a word to the log and the model card.

        Args:
            model: What is evaluated.
            everything: Intervals, precisions and attributes too.
            cached: See `evaluate`.
        """
        evaluation = Evaluation(self.query_ids, self.relevant_docs)
        if cached and self.cache_dir is not None:
            parts = embedding_cache.key_parts(
                model, self.queries, self.corpus, self.batch_size, self._prompt_name(model)
            )
            (queries, documents), evaluation.cache_file = embedding_cache.load_or_compute(
                self.cache_dir, parts, lambda: self._embed_both(model, evaluation.seconds)
            )
        else:
            queries, documents = self._embed_both(model, evaluation.seconds)
        started = time.perf_counter()
        for dim in self._dims(queries.shape[1]):
            self._score(
                evaluation, metrics.normalize(queries[:, :dim]), metrics.normalize(documents[:, :dim]), everything
            )
        if everything and self.attribute_negatives:
            evaluation.attributes = self._attribute_shares(metrics.normalize(queries), metrics.normalize(documents))
        evaluation.seconds["score"] = time.perf_counter() - started
        return evaluation

    def _embed_both(self, model: SentenceTransformer, seconds: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
        """Embed queries and documents, these in the order of the score matrix; `seconds` is told how long it took."""
        started = time.perf_counter()
        encode_query = partial(model.encode_query, prompt_name=self._prompt_name(model))
        resized = self._resized_pages(model, self.queries, "query")
        queries = self._embed(encode_query, self.queries, "query", np.arange(len(self.queries)), resized)
        self._dims(queries.shape[1])  # before the documents, which take longer
        queries_done = time.perf_counter()
        resized = self._resized_pages(model, self.corpus, "document")
        documents = self._embed(model.encode_document, self.corpus, "document", self._column_of_row, resized)
        seconds["encode_queries"] = queries_done - started
        seconds["encode_documents"] = time.perf_counter() - queries_done
        return queries, documents

    def _dims(self, full_dim: int) -> list[int]:
        """Return the dimensions to score, each once, the full one first: the one place where they come together."""
        dims = {dim for dim in (full_dim // 2, full_dim // 4, full_dim // 8) if dim}
        if self.truncate_dims is not None:
            dims = {*self.truncate_dims}
        if self.saved_dim is not None:
            dims.add(self.saved_dim)
        if above := sorted(dim for dim in dims if dim > full_dim):
            raise ConfigError(
                f"evaluator.truncate_dims: {above} above the model's {full_dim} dimensions; leave them out"
            )
        return sorted({full_dim, *dims}, reverse=True)

    def _prompt_name(self, model: SentenceTransformer) -> str | None:
        return self.query_prompt_name if self.query_prompt_name in model.prompts else None

    def _resized_pages(self, model: SentenceTransformer, dataset: Dataset, column: str) -> ResizedPages | None:
        """Return images at the size the model sees, kept from one evaluation to the next; None for texts."""
        processor = image_processor(model)
        if not isinstance(dataset.features[column], Image) or bounds(processor) is None:
            return None
        if column not in self._resized or self._resized[column].bounds != bounds(processor):
            self._resized[column] = ResizedPages(dataset, column, processor)
        return self._resized[column]

    def _embed(
        self,
        encode: Callable,
        dataset: Dataset,
        column: str,
        positions: np.ndarray,
        resized: ResizedPages | None = None,
    ) -> np.ndarray:
        """Embed a column batch by batch, row i to `positions[i]`; shape (num_rows, dim), float32."""
        embeddings = np.empty((len(dataset), 0), dtype=np.float32)
        first_row = 0
        hide_bar = None if self.show_progress_bar is None else not self.show_progress_bar
        with tqdm(total=len(dataset), desc=f"Embedding {column}", leave=False, disable=hide_bar) as progress:
            size = self.batch_size * get_world_size()
            for batch in batches(dataset, column, size, self.num_workers, resized):
                found = encode(batch, batch_size=self.batch_size, show_progress_bar=False, convert_to_numpy=True)
                if not np.isfinite(found).all():
                    raise FloatingPointError(f"an embedding in the evaluation's column {column} is not finite")
                if not first_row:
                    embeddings = np.empty((len(dataset), found.shape[1]), dtype=np.float32)
                embeddings[positions[first_row : first_row + len(batch)]] = found
                first_row += len(batch)
                progress.update(len(batch))
                del batch  # its pages, before the next ones arrive
        return embeddings

    def _score(self, evaluation: Evaluation, queries: np.ndarray, documents: np.ndarray, everything: bool) -> None:
        """Add what embeddings of unit length, truncated to one dimension, score."""
        dim = queries.shape[1]
        evaluation.rankings[dim], values = self._rank(queries, documents, "float32")
        evaluation.metrics[dim] = _means(values)
        evaluation.per_query[dim] = values[PRIMARY_METRIC]
        if not everything:
            return
        evaluation.intervals[dim] = metrics.bootstrap_interval(values[PRIMARY_METRIC], self.num_bootstrap, self.seed)
        evaluation.precision[dim] = {
            precision: _means(self._rank(queries, documents, precision)[1])
            for precision in self.precisions
            if precision == "int8" or (precision == "binary" and dim % 8 == 0)
        }

    def _rank(
        self, queries: np.ndarray, documents: np.ndarray, precision: str
    ) -> tuple[Ranking, dict[str, np.ndarray]]:
        ranges = np.stack([documents.min(axis=0), documents.max(axis=0)])
        code = partial(metrics.code, precision=precision, ranges=ranges)
        size = max(1, _SCORES_AT_ONCE // len(queries))
        chunks = (code(documents[start : start + size]) for start in range(0, len(documents), size))
        columns, scores = metrics.search(code(queries), chunks)
        hits = np.stack([np.isin(row, right) for row, right in zip(columns, self._relevant_columns, strict=True)])
        num_relevant = np.array([len(right) for right in self._relevant_columns])
        values = metrics.per_query_metrics(hits, num_relevant)
        named = {f"cosine_{name}": value for name, value in values.items()}
        return Ranking(self._document_ids[columns], scores), named

    def _attribute_shares(self, queries: np.ndarray, documents: np.ndarray) -> dict[str, float]:
        assert self.attribute_negatives is not None
        wins: dict[str, list[bool]] = {}
        for query_id, query, right in zip(self.query_ids, queries, self._relevant_columns, strict=True):
            # Products summed row by row: equal pages get equal scores, however many are scored at once.
            right_score = (documents[right] * query).sum(axis=1).max()
            for attribute, negative in self.attribute_negatives.get(query_id, {}).items():
                negative_score = (documents[self._column[negative]] * query).sum()
                wins.setdefault(attribute, []).append(bool(right_score > negative_score))
        return {attribute: float(np.mean(won)) for attribute, won in sorted(wins.items())}

    def _report(self, model: SentenceTransformer, evaluation: Evaluation, epoch: int, steps: int) -> dict[str, float]:
        """Put each dimension's metrics into the log and on the model card; return all of them by name."""
        parts = {"" if dim == evaluation.full_dim else f"{dim}d": values for dim, values in evaluation.metrics.items()}
        named = put_on_card(model, self, self._columns, parts, epoch, steps)
        scores = ", ".join(f"{values[PRIMARY_METRIC]:.3f} at {dim}" for dim, values in evaluation.metrics.items())
        logger.info("%s: nDCG@10 %s dimensions", self.name or "retrieval", scores)
        return named


def _means(values: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(value.mean()) for name, value in values.items()}


def _check_options(truncate_dims: Sequence[int] | None, precisions: Sequence[str]) -> None:
    dims = list(truncate_dims or [])
    if any(dim < 1 for dim in dims):
        raise ConfigError(f"evaluator.truncate_dims={dims}: give numbers above 0")
    if unknown := [precision for precision in precisions if precision not in PRECISIONS]:
        raise ConfigError(f"evaluator.precisions: {unknown} unknown; choose from {list(PRECISIONS)}")
