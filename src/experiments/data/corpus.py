"""The queries of an evaluation and the documents that are searched, equal ones once, with ids that tell nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from datasets import Dataset, concatenate_datasets

from experiments.data.document_names import DocumentNames, Stored
from experiments.data.encoded_pages import HashedRows, content_id
from experiments.data.media import readable


class Archive(NamedTuple):
    """Documents that are searched besides those of the evaluation rows; none of them is relevant."""

    rows: HashedRows  # of one column
    stored: Stored


class Corpus(NamedTuple):
    """What is searched."""

    documents: HashedRows  # columns corpus_id and document, in the order of the ids
    names: DocumentNames
    positives: list[str]  # the id of each evaluation row's, of all rows
    from_archive: np.ndarray  # hashes of the documents that no evaluation row holds, (num_from_archive,)


def make_corpus(
    eval: Dataset,
    rows: Sequence[int],
    hashes: np.ndarray,
    is_there: np.ndarray,
    deduplicate: bool,
    stored: Stored,
    archive: Archive | None = None,
    archive_rows: Sequence[int] = (),
) -> Corpus:
    """Return the documents of these evaluation rows and those of the archive that they don't hold, each once.

    Args:
        eval: Columns: query, positive, negatives.
        rows: Which of them are used.
        hashes: Of the documents, shape (num_rows, num_columns - 1).
        is_there: Which of the documents there are, of the same shape.
        deduplicate: Whether equal documents of the evaluation rows are one; equal to those, none is added from the
            archive in any case.
        stored: What documents are named by.
        archive: Further documents.
        archive_rows: Which of them are used.
    """
    names = eval.column_names[1:]
    # Position of a document: column by column, each with all rows; after them the archive's.
    positions = [k * len(eval) + row for k in range(len(names)) for row in rows if is_there[row, k]]
    further = [len(names) * len(eval) + row for row in archive_rows]
    contents = hashes.T.ravel()
    if archive is not None:
        (column,) = archive.rows.column_names
        contents = np.concatenate([contents, archive.rows.hashes[column]])
    ids = [content_id(content) for content in contents.tolist()]
    num_cells = num_equal(contents, [*positions, *further])
    if deduplicate:
        positions = _first_of_each(positions, ids)
    known = {ids[position] for position in positions}
    further = [position for position in _first_of_each(further, ids) if ids[position] not in known]
    if not deduplicate:
        ids = _number_repeats(ids, positions)
    chosen = sorted([*positions, *further], key=ids.__getitem__)

    columns, numbers = np.divmod(chosen, len(eval))
    is_further = columns >= len(names)
    places = np.column_stack([is_further, numbers, columns])
    sources: list[tuple[Stored, Sequence[str]]] = [(stored, names)]
    if archive is not None:
        places[is_further, 1] = np.array(chosen)[is_further] - len(names) * len(eval)
        places[is_further, 2] = 0
        sources.append((archive.stored, archive.rows.column_names))
    found = DocumentNames([ids[position] for position in chosen], places, num_cells[chosen], sources)
    documents = _documents(eval, archive).add_column("corpus_id", ids).select_columns(["corpus_id", "document"])
    kept = HashedRows(readable(documents.select(chosen)), {"document": contents[chosen]})
    return Corpus(kept, found, ids[: len(eval)], contents[further])


def make_queries(
    eval: Dataset, rows: Sequence[int], hashes: np.ndarray, deduplicate: bool, stored: Stored
) -> tuple[HashedRows, dict[int, str], DocumentNames]:
    """Return the queries (columns query_id and query, in row order), each row's query id, and their names."""
    query_of = hashes.tolist() if deduplicate else range(len(eval))
    first: dict[int, int] = {}  # query -> row
    for row in rows:
        first.setdefault(query_of[row], row)
    names = {query: f"q{number:04d}" for number, query in enumerate(first)}
    ids = {row: names[query_of[row]] for row in rows}
    chosen = list(first.values())
    queries = eval.select_columns([eval.column_names[0]]).rename_columns({eval.column_names[0]: "query"})
    queries = queries.add_column("query_id", [ids.get(row, "") for row in range(len(eval))])
    queries = queries.select_columns(["query_id", "query"]).select(chosen)
    places = np.column_stack([np.zeros_like(chosen), chosen, np.zeros_like(chosen)])
    without_page = stored._replace(file=None, page_number=None)  # which are of the documents
    sources = [(without_page, eval.column_names[:1])]
    found = DocumentNames([ids[row] for row in chosen], places, num_equal(hashes, rows)[chosen], sources)
    return HashedRows(readable(queries), {"query": hashes[chosen]}), ids, found


def num_equal(contents: np.ndarray, positions: Sequence[int]) -> np.ndarray:
    """Return for each content at the positions how many of those equal it, shape (num_contents,)."""
    _, place, counts = np.unique(contents[positions], return_inverse=True, return_counts=True)
    found = np.zeros(len(contents), dtype=np.int64)
    found[positions] = counts[place]
    return found


def _first_of_each(positions: Sequence[int], ids: Sequence[str]) -> list[int]:
    return list({ids[position]: position for position in reversed(positions)}.values())


def _documents(eval: Dataset, archive: Archive | None) -> Dataset:
    """Return all documents by position, in a column of that name."""
    feature = eval.features[eval.column_names[1]]
    parts = [eval.select_columns([column]) for column in eval.column_names[1:]]
    parts += [archive.rows] if archive is not None else []
    parts = [part.rename_columns(dict.fromkeys(part.column_names, "document")) for part in parts]
    parts = [part if part.features["document"] == feature else part.cast_column("document", feature) for part in parts]
    return concatenate_datasets(parts)


def _number_repeats(ids: Sequence[str], positions: Sequence[int]) -> list[str]:
    """Add -1, -2, ... to the repeats of an id, in an order that does not favour positives (they come first)."""
    numbered, seen = list(ids), Counter[str]()
    for position in np.random.default_rng(0).permutation(positions).tolist():
        if number := seen[ids[position]]:
            numbered[position] = f"{ids[position]}-{number}"
        seen[ids[position]] += 1
    return numbered
