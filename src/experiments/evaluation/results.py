"""What an evaluation of an embedder or a reranker found: metrics by part, rankings, TREC files, samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from datasets import Dataset

from experiments.data.types import Data
from experiments.evaluation.query_values import Part, save_query_values
from experiments.evaluation.trec import write_qrels, write_run


class Evaluator(Protocol):
    """What measures a model before, during and after training, and is called by the trainer too."""

    metric: str  # the primary one, as it stands in metrics.json

    def evaluate(self, model: Any, *, cached: bool = False) -> Evaluation:
        """Return everything that one pass over the evaluation tells; cached: from what an earlier run kept of it."""


class Ranking(NamedTuple):
    """The first documents of each query of a direction, best first: a row for each query."""

    query_ids: list[str]
    document_ids: np.ndarray | Sequence[np.ndarray]  # str; rows may differ in their depth
    scores: np.ndarray | Sequence[np.ndarray]  # float32

    def rows(self) -> Iterator[tuple[str, Iterator[tuple[str, np.float32]]]]:
        """Yield each query's id with its documents' ids and scores."""
        for query_id, ids, scores in zip(*self, strict=True):
            yield query_id, zip(ids, scores, strict=True)


@dataclass
class Evaluation:
    """What a model scored: an embedder's dimensions, the full one first, and directions, by themselves.

    Directions are there where there are several: an embedder's at the full dimension, a reranker's with all together
    first.
    """

    relevant_docs: dict[str, dict[str, set[str]]]  # by direction: query_id -> corpus_ids
    dimensions: dict[int, Part] = field(default_factory=dict)
    directions: dict[str, Part] = field(default_factory=dict)
    # By the end of the file's name ("dim0096", "image_to_text_end_to_end"), then by direction; the best first.
    rankings: dict[str, dict[str, Ranking]] = field(default_factory=dict)
    attributes: dict[str, float] | None = None  # share of queries whose page beats the one that differs in it
    # Of encode_queries, encode_documents and score.
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    cache_file: Path | None = None  # where the embeddings were read, if they were

    @property
    def sections(self) -> dict[str, Mapping[Any, Part]]:
        """The parts by name, in the sections of metrics.json; runs are ranked by the first part of the first."""
        found: dict[str, Mapping[Any, Part]] = {"dimensions": self.dimensions, "directions": self.directions}
        return {name: parts for name, parts in found.items() if parts}

    def add_intervals(self, metric: str, num_bootstrap: int, seed: int) -> None:
        """Add the intervals of the primary metric to every part."""
        for parts in self.sections.values():
            for part in parts.values():
                part.add_intervals(metric, num_bootstrap, seed)

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Return what stands under `base` or `final` in metrics.json."""
        return {
            section: {str(key): part.to_json() for key, part in parts.items()}
            for section, parts in self.sections.items()
        }

    def samples(self, data: Data, num: int = 8) -> list[dict[str, Any]]:
        """Return a few queries of each direction; see `sample_retrievals`."""
        ranked: dict[str, Ranking] = {}
        for by_direction in self.rankings.values():
            ranked = by_direction | ranked  # of a direction the first: at the full dimension
        found = []
        for name, each in data.directions.items():
            rows = {query_id: [id_ for id_, _ in documents] for query_id, documents in ranked[name].rows()}
            found += sample_retrievals(rows, each.queries, each.corpus, each.relevant_docs, num // len(ranked))
        return found

    def write(self, folder: Path, tag: str) -> None:
        """Write the rankings and the metrics of each query, each file whole or not at all.

        `{tag}_dim0096.trec` is a TREC run file of a dimension, `{tag}_image_to_text.trec` of a reranker's direction,
        `qrels.trec` or `qrels_image_to_text.trec` what is relevant there; where several directions share a file, ids
        have theirs before them. trec_eval gives the reported metrics from them: the scores have the digits that tell
        one float32 from another, and ties are broken as it breaks them. `{tag}.npz` holds those metrics by query.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name, by_direction in self.rankings.items():
            rows = ((_before(by_direction, direction), each.rows()) for direction, each in by_direction.items())
            ranked = (
                (f"{before}{query_id}", ((f"{before}{id_}", score) for id_, score in documents))
                for before, queries in rows
                for query_id, documents in queries
            )
            write_run(folder, f"{tag}_{name}", ranked)
        together = {"qrels": self.relevant_docs}
        if not self.dimensions:
            together = {f"qrels_{name}": {name: relevant} for name, relevant in self.relevant_docs.items()}
        for name, by_name in together.items():
            relevant_docs = {
                f"{_before(by_name, direction)}{query_id}": {f"{_before(by_name, direction)}{id_}" for id_ in ids}
                for direction, relevant in by_name.items()
                for query_id, ids in relevant.items()
            }
            write_qrels(folder, name, relevant_docs)
        save_query_values(folder / f"{tag}.npz", self.sections)


def _before(directions: Mapping[str, Any], direction: str) -> str:
    """Return what is before the ids of a direction in a file: its name, where there are several."""
    return f"{direction}/" if len(directions) > 1 else ""


def sample_retrievals(
    ranked: Mapping[str, Sequence[str]],
    queries: Dataset,
    corpus: Dataset,
    relevant_docs: dict[str, set[str]],
    num: int = 8,
    top: int = 5,
) -> list[dict[str, Any]]:
    """Return a few queries with what was ranked first: first misses, then hits, in query order.

    Args:
        ranked: query_id -> corpus_ids, best first.
        queries: Columns `query_id` and `query`.
        corpus: Columns `corpus_id` and `document`.
        relevant_docs: query_id -> the corpus_ids that answer it.
        num: Queries.
        top: Documents of each.

    Returns:
        One dict a query: `query`, `right` (its best ranked relevant document), `right_rank` (from 1, or None if below
        the ranking's end), `top` (the first documents, each with whether it is relevant). Images come decoded.
    """
    query_rows = {query_id: row for row, query_id in enumerate(queries["query_id"])}
    document_rows = {corpus_id: row for row, corpus_id in enumerate(corpus["corpus_id"])}
    hits = {query_id: ids[0] in relevant_docs[query_id] for query_id, ids in ranked.items()}
    samples = []
    for query_id in sorted(ranked, key=hits.__getitem__)[:num]:  # stable: misses first, each kind in query order
        ids, right_ids = ranked[query_id], relevant_docs[query_id]
        right_rank = next((rank for rank, id_ in enumerate(ids, start=1) if id_ in right_ids), None)
        right_id = ids[right_rank - 1] if right_rank else min(right_ids)
        samples.append(
            {
                "query": queries[query_rows[query_id]]["query"],
                "right": corpus[document_rows[right_id]]["document"],
                "right_rank": right_rank,
                "top": [(corpus[document_rows[id_]]["document"], id_ in right_ids) for id_ in ids[:top]],
            }
        )
    return samples
