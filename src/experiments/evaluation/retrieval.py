"""Evaluation of embedders: every query and page is embedded once, and scored at every dimension and precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator

from experiments.config.bounds import NotNegative, Positive, Precision
from experiments.config.errors import ConfigError
from experiments.data.types import Direction
from experiments.evaluation import metrics
from experiments.evaluation.embedding import Embedder
from experiments.evaluation.embedding_cache import Embeddings, key_parts, load_or_compute
from experiments.evaluation.query_values import Part, pool
from experiments.evaluation.results import Evaluation, say
from experiments.evaluation.trec import Ranking
from experiments.runs.metrics_file import PRIMARY_METRIC

_SCORES_AT_ONCE = 2**22  # similarities; ranking them takes about 100 MB


class RetrievalEvaluator(BaseEvaluator):
    """Retrieval of documents by cosine similarity, at several truncations of the same embeddings.

    Each query ranks the documents of its own direction alone. A metric is the mean over the queries of all directions;
    where there are several, each is reported by itself at the full dimension, too. The model's prompt that is named as
    a direction, if it has one, comes before that direction's queries.

    A smaller dimension is the first components, normalised again. int8 is the cosine similarity of the integers that
    `quantize_embeddings` gives, calibrated on the documents for both sides; binary is the dot product of the signs
    (±1), which orders documents as their Hamming distance does, at dimensions that are whole bytes.

    Args:
        directions: Queries, corpus and relevance by name: documents are text, or images, which are decoded once and
            never held all at once; queries without relevant documents are left out.
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
        cache_dir: Where embeddings are kept for other runs, if `evaluate` is told to; None: nowhere.

    Raises:
        ConfigError: If a direction has nothing to evaluate.
    """

    metric = PRIMARY_METRIC
    description = "Information Retrieval"  # the task on the model card, as the library's own evaluator names it

    def __init__(
        self,
        directions: Mapping[str, Direction],
        name: str = "",
        *,
        truncate_dims: Sequence[int] | None = None,
        saved_dim: int | None = None,
        batch_size: Positive = 32,
        precisions: Sequence[Precision] = ("float32", "int8", "binary"),
        num_workers: NotNegative = 0,
        num_bootstrap: Positive = 1000,
        seed: NotNegative = 0,
        show_progress_bar: bool | None = None,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__()
        self.directions = [RetrievalDirection(direction, each) for direction, each in directions.items()]
        self.name = name
        self.truncate_dims = truncate_dims
        self.saved_dim = saved_dim
        self.precisions = tuple(precisions)
        self.num_bootstrap = num_bootstrap
        self.seed = seed
        self.embedder = Embedder(batch_size, num_workers, None if show_progress_bar is None else not show_progress_bar)
        self.cache_dir = None if cache_dir is None else Path(cache_dir).expanduser()
        self.primary_metric = f"{name}_{PRIMARY_METRIC}" if name else PRIMARY_METRIC
        self.columns: dict[str, BaseEvaluator] = {}  # of the model card: smaller dimensions, then directions

    def __call__(  # type: ignore[override]  # encode_query and encode_document are SentenceTransformer's
        self, model: SentenceTransformer, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """Return the float32 metrics of every dimension and direction by name, as the trainer wants them."""
        return say(model, self, self._measure(model, everything=False), epoch, steps)

    def evaluate(self, model: SentenceTransformer, *, cached: bool = False) -> Evaluation:
        """Return everything that one pass over queries and documents tells.

        If cached, embeddings are taken from `cache_dir`, or kept there: for weights that other runs have too.

        Raises:
            ConfigError: If a dimension is above the model's.
            FloatingPointError: If an embedding is not finite.
        """
        evaluation = self._measure(model, everything=True, cached=cached)
        evaluation.add_intervals(self.metric, self.num_bootstrap, self.seed)
        evaluation.add_chance({each.name: each.chance() for each in self.directions})
        evaluation.add_shares(self.metric, self.num_bootstrap, self.seed)
        say(model, self, evaluation)
        return evaluation

    def _measure(self, model: SentenceTransformer, *, everything: bool, cached: bool = False) -> Evaluation:
        evaluation = Evaluation({each.name: each.relevant_docs for each in self.directions})
        found: dict[int, dict[str, Part]] = {}
        wins: dict[str, list[bool]] = {}
        files: list[Path | None] = []
        for direction in self.directions:
            (queries, documents), file = self._embed(model, direction, cached)
            files.append(file)
            for dim in self._dims(queries.shape[1]):
                vectors = metrics.normalize(queries[:, :dim]), metrics.normalize(documents[:, :dim])
                ranking, values = direction.rank(*vectors)
                evaluation.rankings.setdefault(f"dim{dim:04d}", {})[direction.name] = ranking
                part = found.setdefault(dim, {})[direction.name] = Part(ranking.query_ids, values)
                for precision in self.precisions if everything else ():
                    if precision == "int8" or (precision == "binary" and dim % 8 == 0):
                        part.precisions[precision] = direction.rank(*vectors, precision)[1]
            if everything and direction.attribute_negatives:
                for attribute, won in direction.attribute_wins(queries, documents):
                    wins.setdefault(attribute, []).append(won)
        evaluation.dimensions = {dim: pool(parts) for dim, parts in found.items()}
        if len(self.directions) > 1:
            evaluation.directions = next(iter(found.values()))  # at the full dimension
        evaluation.attributes = {name: float(np.mean(won)) for name, won in sorted(wins.items())} or None
        evaluation.cache_file = files[0] if all(files) else None
        return evaluation

    def _embed(
        self, model: SentenceTransformer, direction: RetrievalDirection, cached: bool
    ) -> tuple[Embeddings, Path | None]:
        """Return the embeddings of queries and documents, and the file that they were read from, if they were."""
        prompt_name = direction.name if direction.name in model.prompts else None  # None: its own for queries

        def compute() -> Embeddings:
            encode_query = partial(model.encode_query, prompt_name=prompt_name)
            queries = self.embedder.embed(model, encode_query, direction.name, direction.queries, "query")
            self._dims(queries.shape[1])  # fails before the documents, which take longer
            documents = self.embedder.embed(model, model.encode_document, direction.name, direction.corpus, "document")
            return queries, documents[direction.rows]

        if not cached or self.cache_dir is None:
            return compute(), None
        key = key_parts(model, direction.queries, direction.corpus, self.embedder.batch_size, prompt_name)
        return load_or_compute(self.cache_dir, key, compute)

    def _dims(self, full_dim: int) -> list[int]:
        """Return the dimensions to score, each once, the full one first: the one place where they come together."""
        dims = {full_dim // part for part in (2, 4, 8)} - {0} if self.truncate_dims is None else {*self.truncate_dims}
        if self.saved_dim is not None:
            dims.add(self.saved_dim)
        if above := sorted(dim for dim in dims if dim > full_dim):
            raise ConfigError(
                f"evaluator.truncate_dims: {above} above the model's {full_dim} dimensions; leave them out"
            )
        return sorted({full_dim, *dims}, reverse=True)


class RetrievalDirection:
    """Queries that have an answer, and documents as columns in descending order of id: the lower wins a tie."""

    def __init__(self, name: str, direction: Direction) -> None:
        query_ids = direction.queries["query_id"][:]
        answered = [row for row, query_id in enumerate(query_ids) if direction.relevant_docs.get(query_id)]
        if not answered:
            raise ConfigError("the evaluation has no query with a relevant document; give data.eval some rows")
        self.name = name
        self.queries = direction.queries if len(answered) == len(query_ids) else direction.queries.select(answered)
        self.query_ids: list[str] = self.queries["query_id"][:]
        self.corpus = direction.corpus
        ids = self.corpus["corpus_id"][:]
        self.rows = sorted(range(len(ids)), key=ids.__getitem__, reverse=True)  # of the corpus, by column
        self._document_ids = np.array([ids[row] for row in self.rows])
        self._column = {id_: column for column, id_ in enumerate(self._document_ids.tolist())}
        assert len(self._column) == len(ids), "a corpus_id occurs twice"
        self.relevant_docs = {query_id: direction.relevant_docs[query_id] for query_id in self.query_ids}
        self._relevant = [[self._column[id_] for id_ in self.relevant_docs[query_id]] for query_id in self.query_ids]
        self.attribute_negatives = direction.attribute_negatives or {}

    def rank(
        self, queries: np.ndarray, documents: np.ndarray, precision: str = "float32"
    ) -> tuple[Ranking, dict[str, np.ndarray]]:
        """Return the first documents of each query, and every metric of every query.

        Embeddings are of unit length, shape (num_queries, dim) and, by column, (num_documents, dim).
        """
        ranges = np.stack([documents.min(axis=0), documents.max(axis=0)])
        code = partial(metrics.code, precision=precision, ranges=ranges)
        coded, size = code(queries), max(1, _SCORES_AT_ONCE // len(queries))
        starts = range(0, len(documents), size)
        columns, scores = metrics.rank(coded @ code(documents[start : start + size]).T for start in starts)
        hits = np.stack([np.isin(row, right) for row, right in zip(columns, self._relevant, strict=True)])
        values = metrics.per_query_metrics(hits, np.array([len(right) for right in self._relevant]))
        ranking = Ranking(self.query_ids, self._document_ids[columns], scores)
        return ranking, {f"cosine_{name}": value for name, value in values.items()}

    def chance(self) -> Part:
        """Return what a random order of the documents gives in expectation."""
        num_relevant = np.array([len(right) for right in self._relevant])
        values = metrics.chance(np.full(len(num_relevant), len(self.rows)), num_relevant, num_relevant)
        return Part(self.query_ids, {f"cosine_{name}": value for name, value in values.items()})

    def attribute_wins(self, queries: np.ndarray, documents: np.ndarray) -> Iterator[tuple[str, bool]]:
        """Yield attributes, and whether a query's right page beats the one that differs from it in that alone."""
        queries, documents = metrics.normalize(queries), metrics.normalize(documents)
        for query_id, query, right in zip(self.query_ids, queries, self._relevant, strict=True):
            # Products summed row by row: equal pages get equal scores, however many are scored at once.
            right_score = (documents[right] * query).sum(axis=1).max()
            for attribute, negative in self.attribute_negatives.get(query_id, {}).items():
                negative_score = (documents[self._column[negative]] * query).sum()
                yield attribute, bool(right_score > negative_score)
