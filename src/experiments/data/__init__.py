"""One file per kind of source; every source yields a `RetrievalData`."""

from __future__ import annotations

from dataclasses import dataclass

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
