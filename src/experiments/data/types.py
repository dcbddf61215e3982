"""What every source yields: training rows and an evaluation, in one or several named directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from datasets import Dataset

from experiments.data.document_names import DocumentName

ONE_DIRECTION = "query_to_document"  # the name of it where a data set has no other


@dataclass(frozen=True)
class Direction:
    """Queries and the documents that answer them, such as captions and images in `text_to_image`."""

    queries: Dataset  # columns query_id (str), query
    corpus: Dataset  # columns corpus_id (str), document; the ids carry no relevance
    relevant_docs: dict[str, set[str]]  # query_id -> the corpus_ids that answer it
    # query_id -> {attribute: the corpus_id that differs from the right document in it alone}
    attribute_negatives: dict[str, dict[str, str]] | None = None
    names: Mapping[str, DocumentName] = field(default_factory=dict)  # by corpus_id: where each document is from
    query_names: Mapping[str, DocumentName] = field(default_factory=dict)  # by query_id

    def label(self, id_: str) -> str:
        """Return a document's or a query's name in short, "pages/a.png" or "train.csv row 12"; or else its id."""
        name = self.names.get(id_) or self.query_names.get(id_)
        return name.label if name else id_


class FromCorpus(NamedTuple):
    """What `data.corpus` brings to the documents that are searched; none of it is relevant."""

    num_documents: int  # that no evaluation row holds
    num_in_training: int | None  # of these, in training rows too; None: for an evaluation alone


@dataclass(frozen=True)
class Data:
    """Training rows and a retrieval evaluation that share no item.

    Pages stay encoded on disk (Arrow) and are decoded when a row is read. Of several directions each is a data set of
    its own to train on, whose prompt is the model's prompt of the direction's name.
    """

    name: str  # of the evaluation, in metrics and reports
    # Columns in the loss's order: anchor, positive, negatives; or, labelled, query, document and label (1: they match,
    # 0: they don't). By direction, but for one that is alone.
    train: Dataset | dict[str, Dataset] | None  # None: read for an evaluation alone
    eval: Dataset | dict[str, Dataset] | None  # the same, for the evaluation loss
    directions: dict[str, Direction]  # what is evaluated
    fingerprint: str  # a hash of all of the above
    train_fingerprint: str | None  # of the training rows alone
    evaluation_fingerprint: str  # of queries, corpus and relevance alone: what runs must share to be compared

    from_corpus: FromCorpus | None = None

    @property
    def fingerprints(self) -> dict[str, str]:
        """Return what a run records of its data, beside the fingerprint of all."""
        of_train = {} if self.train_fingerprint is None else {"training rows": self.train_fingerprint}
        return of_train | {"evaluation": self.evaluation_fingerprint}

    @property
    def direction(self) -> Direction:
        """The direction of a data set that has no other."""
        (only,) = self.directions.values()
        return only

    def evaluator_inputs(self) -> dict[str, Any]:
        """Return what its evaluator is built with."""
        return {"directions": self.directions, "name": self.name}

    def describe(self) -> dict[str, Any]:
        """Return what an evaluation on it is known by in metrics.json."""
        from_corpus = self.from_corpus._asdict() if self.from_corpus else None
        return {
            "name": self.name,
            "num_queries": sum(len(direction.queries) for direction in self.directions.values()),
            "num_documents": sum(len(direction.corpus) for direction in self.directions.values()),
            "fingerprint": self.evaluation_fingerprint,
        } | ({"from_corpus": from_corpus} if from_corpus else {})
