"""One file per kind of source; every source yields a `RetrievalData` or, of captioned images, a `PairsData`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset


@dataclass(frozen=True)
class RetrievalData:
    """Training rows and a retrieval evaluation that share no item.

    Pages stay encoded on disk (Arrow) and are decoded when a row is read.
    """

    name: str  # of the evaluation, in metrics and reports
    train: Dataset  # columns in the loss's order: anchor, positive, negatives
    eval: Dataset  # the same columns, for the evaluation loss
    queries: Dataset  # columns query_id (str), query
    corpus: Dataset  # columns corpus_id (str), document; the ids carry no relevance
    relevant_docs: dict[str, set[str]]  # query_id -> the corpus_ids that answer it
    fingerprint: str  # a hash of all of the above
    evaluation_fingerprint: str  # of queries, corpus and relevance alone: what runs must share to be compared
    # query_id -> {attribute: the corpus_id that differs from the right document in it alone}
    attribute_negatives: dict[str, dict[str, str]] | None = None
    commits: dict[str, str] = field(default_factory=dict)  # of the data sets that came from the Hub, by name

    def evaluator_inputs(self) -> dict[str, Any]:
        """Return what its evaluator is built with."""
        return {"directions": self.directions, "name": self.name}

    @property
    def directions(self) -> dict[str, Direction]:
        """What is evaluated."""
        only = Direction(self.queries, self.corpus, self.relevant_docs, self.attribute_negatives)
        return {"query_to_document": only}

    def describe(self) -> dict[str, Any]:
        """Return what an evaluation on it is known by in metrics.json."""
        return {
            "name": self.name,
            "num_queries": len(self.queries),
            "num_documents": len(self.corpus),
            "fingerprint": self.evaluation_fingerprint,
        }


@dataclass(frozen=True)
class Direction:
    """Queries of one modality and the documents of another that answer them."""

    queries: Dataset  # columns query_id (str), query
    corpus: Dataset  # columns corpus_id (str), document; the ids carry no relevance
    relevant_docs: dict[str, set[str]]  # query_id -> the corpus_ids that answer it
    # query_id -> {attribute: the corpus_id that differs from the right document in it alone}
    attribute_negatives: dict[str, dict[str, str]] | None = None


@dataclass(frozen=True)
class PairsData:
    """Captioned images to train on and an evaluation that shares no item with them, by direction.

    A direction (image_to_text) is a data set of its own, whose prompt is the model's prompt of that name.
    """

    name: str  # of the evaluation, in metrics and reports
    # By direction: columns query, document, label (1: they match, 0: they don't), for rerankers; or query, positive,
    # negative_1, …, for losses that take negatives from the batch.
    train: dict[str, Dataset]
    eval: dict[str, Dataset]  # the same, for the evaluation loss
    directions: dict[str, Direction]  # what is evaluated
    fingerprint: str  # a hash of all of the above
    evaluation_fingerprint: str  # of the evaluated directions alone: what runs must share to be compared
    commits: dict[str, str] = field(default_factory=dict)  # of the data sets that came from the Hub, by name

    def evaluator_inputs(self) -> dict[str, Any]:
        """Return what its evaluator is built with."""
        return {"directions": self.directions, "name": self.name}

    def describe(self) -> dict[str, Any]:
        """Return what an evaluation on it is known by in metrics.json."""
        return {
            "name": self.name,
            "num_queries": sum(len(direction.queries) for direction in self.directions.values()),
            "num_documents": sum(len(direction.corpus) for direction in self.directions.values()),
            "fingerprint": self.evaluation_fingerprint,
        }


Data = RetrievalData | PairsData
