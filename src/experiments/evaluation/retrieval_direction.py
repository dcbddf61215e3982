"""One direction of a retrieval evaluation: its queries and documents, how they are embedded, ranked and scored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.util.distributed import get_world_size
from tqdm.auto import tqdm

from experiments.config.errors import ConfigError
from experiments.data.resized_pages import batches
from experiments.data.types import Direction
from experiments.evaluation import metrics
from experiments.evaluation.embedding_cache import Embeddings
from experiments.evaluation.pages import PagesOfModel
from experiments.evaluation.results import Ranking

_SCORES_AT_ONCE = 2**22  # similarities; ranking them takes about 100 MB


@dataclass
class Embedder:
    """How queries and documents are embedded: in which batches, by how many threads, with or without a bar."""

    batch_size: int
    num_workers: int
    hide_bar: bool | None
    pages: PagesOfModel = field(default_factory=PagesOfModel)

    def embed(
        self, model: SentenceTransformer, encode: Callable, dataset: Dataset, of: str, column: str
    ) -> np.ndarray:
        """Return the embeddings of a column, computed batch by batch, shape (num_rows, dim), float32.

        Args:
            model: Whose pages are kept.
            encode: Its method.
            dataset: What is embedded.
            of: The direction.
            column: Of the dataset.

        Raises:
            FloatingPointError: If an embedding is not finite.
        """
        resized = self.pages.resized(model, of, dataset, column)
        embeddings = np.empty((len(dataset), 0), dtype=np.float32)
        first_row = 0
        with tqdm(total=len(dataset), desc=f"Embedding {column}", leave=False, disable=self.hide_bar) as progress:
            size = self.batch_size * get_world_size()
            for batch in batches(dataset, column, size, self.num_workers, resized):
                found = encode(batch, batch_size=self.batch_size, show_progress_bar=False, convert_to_numpy=True)
                if not np.isfinite(found).all():
                    raise FloatingPointError(f"an embedding in the evaluation's column {column} is not finite")
                if not first_row:
                    embeddings = np.empty((len(dataset), found.shape[1]), dtype=np.float32)
                embeddings[first_row : first_row + len(batch)] = found
                first_row += len(batch)
                progress.update(len(batch))
                del batch  # its pages, before the next ones arrive
        return embeddings


class RetrievalDirection:
    """Queries that have an answer, and documents in descending order of id: the lower wins a tie, as in trec_eval.

    Args:
        name: Of the direction; the model's prompt of this name, if it has one, comes before the queries.
        direction: Queries without relevant documents are left out.

    Raises:
        ConfigError: If none is left.
    """

    def __init__(self, name: str, direction: Direction) -> None:
        query_ids = direction.queries["query_id"]
        answered = [row for row, query_id in enumerate(query_ids) if direction.relevant_docs.get(query_id)]
        if not answered:
            raise ConfigError("the evaluation has no query with a relevant document; give data.eval some rows")
        everyone = len(answered) == len(direction.queries)
        self.name = name
        self.queries = direction.queries if everyone else direction.queries.select(answered)
        self.query_ids: list[str] = list(self.queries["query_id"])
        self.corpus = direction.corpus
        ids = list(self.corpus["corpus_id"])
        self._rows = sorted(range(len(ids)), key=ids.__getitem__, reverse=True)
        self._document_ids = np.array([ids[row] for row in self._rows])
        self._column = {id_: column for column, id_ in enumerate(self._document_ids.tolist())}
        assert len(self._column) == len(ids), "a corpus_id occurs twice"
        self.relevant_docs = {query_id: direction.relevant_docs[query_id] for query_id in self.query_ids}
        self._relevant = [[self._column[id_] for id_ in self.relevant_docs[query_id]] for query_id in self.query_ids]
        self._attribute_negatives = direction.attribute_negatives or {}

    def prompt_name(self, model: SentenceTransformer) -> str | None:
        """Return the model's prompt for the queries; None: its own for queries."""
        return self.name if self.name in model.prompts else None

    def embed(
        self,
        model: SentenceTransformer,
        embedder: Embedder,
        check: Callable[[int], object],
        seconds: defaultdict[str, float],
    ) -> Embeddings:
        """Embed queries and documents, these in the order of the columns.

        Args:
            model: What embeds.
            embedder: How.
            check: Called with the dimension before the documents, which take longer.
            seconds: It is added how long it took.
        """
        started = perf_counter()
        encode_query = partial(model.encode_query, prompt_name=self.prompt_name(model))
        queries = embedder.embed(model, encode_query, self.queries, self.name, "query")
        check(queries.shape[1])
        queries_done = perf_counter()
        documents = embedder.embed(model, model.encode_document, self.corpus, self.name, "document")
        seconds["encode_queries"] += queries_done - started
        seconds["encode_documents"] += perf_counter() - queries_done
        return queries, documents[self._rows]

    def rank(
        self, queries: np.ndarray, documents: np.ndarray, precision: str = "float32"
    ) -> tuple[Ranking, dict[str, np.ndarray]]:
        """Return the first documents of each query, and every metric of every query.

        Args:
            queries: Of unit length, shape (num_queries, dim).
            documents: Of unit length, in the order of the columns, shape (num_documents, dim).
            precision: float32, int8 or binary.
        """
        ranges = np.stack([documents.min(axis=0), documents.max(axis=0)])
        code = partial(metrics.code, precision=precision, ranges=ranges)
        size = max(1, _SCORES_AT_ONCE // len(queries))
        chunks = (code(documents[start : start + size]) for start in range(0, len(documents), size))
        columns, scores = metrics.search(code(queries), chunks)
        hits = np.stack([np.isin(row, right) for row, right in zip(columns, self._relevant, strict=True)])
        values = metrics.per_query_metrics(hits, np.array([len(right) for right in self._relevant]))
        ranking = Ranking(self.query_ids, self._document_ids[columns], scores)
        return ranking, {f"cosine_{name}": value for name, value in values.items()}

    def attribute_wins(self, queries: np.ndarray, documents: np.ndarray) -> dict[str, list[bool]]:
        """Return by attribute whether each query's right page beats the one that differs from it in that alone."""
        wins: dict[str, list[bool]] = {}
        if not self._attribute_negatives:
            return wins
        queries, documents = metrics.normalize(queries), metrics.normalize(documents)
        for query_id, query, right in zip(self.query_ids, queries, self._relevant, strict=True):
            # Products summed row by row: equal pages get equal scores, however many are scored at once.
            right_score = (documents[right] * query).sum(axis=1).max()
            for attribute, negative in self._attribute_negatives.get(query_id, {}).items():
                negative_score = (documents[self._column[negative]] * query).sum()
                wins.setdefault(attribute, []).append(bool(right_score > negative_score))
        return wins
