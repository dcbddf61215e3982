"""From rows with source columns to a `Data`: checks, corpus, relevance, and no leak into training."""

from __future__ import annotations

import difflib
import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np
from datasets import Dataset, Image, Value, concatenate_datasets
from datasets.exceptions import DatasetGenerationError

from experiments.config.bounds import OnBadImage
from experiments.config.errors import ConfigError
from experiments.data.document_names import DocumentNames, Stored
from experiments.data.encoded_pages import EMPTY, Defect, HashedRows, content_hashes, content_id, read
from experiments.data.media import Origin, kind_of, readable, with_files
from experiments.data.options import ColumnOptions
from experiments.data.types import ONE_DIRECTION, Data, Direction

logger = logging.getLogger(__name__)

DEFAULT_EVAL_ROWS = 100  # taken from the end of the training rows where there is no evaluation split


def first_rows(
    train: Dataset | None, eval: Dataset | None, num_train_rows: int | None, num_eval_rows: int | None
) -> tuple[Dataset | None, Dataset]:
    """Limit both parts to their first rows; without an evaluation part take it from the end of the training rows.

    Raises:
        ConfigError: There are too few rows to take an evaluation from.
    """
    if train is not None:
        _require_rows(train, "training")
    if eval is None:
        assert train is not None
        num_eval_rows = num_eval_rows or DEFAULT_EVAL_ROWS
        start = len(train) - num_eval_rows
        if start < 1:
            raise ConfigError(
                f"{len(train)} training rows, and {num_eval_rows} of them for the evaluation leave none to train on: "
                "lower data.num_eval_rows or give data.eval"
            )
        logger.info("evaluation: rows %d to %d of the training rows", start, len(train) - 1)
        eval, train = train.select(range(start, len(train))), train.select(range(start))
    if num_eval_rows is not None:
        eval = eval.select(range(min(num_eval_rows, len(eval))))
    if train is not None and num_train_rows is not None:
        train = train.select(range(min(num_train_rows, len(train))))
    return train, eval


def loading_error(error: Exception) -> str:
    """Return in one line why the datasets library could not load something."""
    # What it raises while reading a file only says that something happened.
    cause = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
    text = " ".join(str(cause).split()) or type(cause).__name__
    return "the data set is empty: it has no row" if "corresponds to no data" in text else text


def build_stored(
    train: Dataset | None,
    eval: Dataset | None,
    origins: Sequence[Origin],
    num_train_rows: int | None = None,
    num_eval_rows: int | None = None,
    **options: Unpack[ColumnOptions],
) -> Data:
    """Make a `Data` out of rows as they are stored, where a column of texts may name files; see `RowOptions`.

    Without evaluation rows they are taken from the end of the training rows. The origins are of both. For an
    evaluation alone there need be no training rows.

    Raises:
        ConfigError: A file is missing, there are too few rows, or `build` can't use them.
    """
    train_rows, eval_rows = first_rows(train, eval, num_train_rows, num_eval_rows)
    columns, first_eval_row = options["columns"], 0
    if eval is None and train is not None:
        first_eval_row = len(train) - len(eval_rows)
    names = [columns["query"], columns["positive"], *(columns.get("negatives") or [])]
    told = {role: columns[role] for role in ("file", "page_number") if columns.get(role)}
    _require_columns(eval_rows, [*told.values()], "evaluation")
    if train_rows is not None and not options.get("evaluation_only"):
        train_rows, _ = with_files(train_rows, names, origins[0])
    read_rows, files = with_files(eval_rows, names, origins[1], first_eval_row)
    numbers = first_eval_row + np.arange(len(eval_rows))
    stored = Stored(eval_rows, origins[1].name, origins[1].folder, numbers, files, **told)
    return build(train_rows, read_rows, stored=stored, **options)


def build(
    train: Dataset | None,
    eval: Dataset,
    *,
    columns: Mapping[str, Any],
    name: str,
    num_negatives: int = 0,
    num_eval_negatives: int | None = None,
    num_corpus_negatives: int | None = None,
    deduplicate: bool = True,
    on_bad_image: OnBadImage = "error",
    stored: Stored | None = None,
    evaluation_only: bool = False,
) -> Data:
    """Make training rows and a retrieval evaluation out of two sets of rows; see `ColumnOptions` and `assemble`.

    Of the negatives the training rows, if there are any, need the first `num_negatives`; the evaluation rows need, and
    bring into the corpus, the first `num_corpus_negatives` (None: all that are named).

    Raises:
        ConfigError: A column is missing or of the wrong kind, a page cannot be read, or no row is left.
    """
    negatives = list(columns.get("negatives") or [])
    num_eval_negatives = num_negatives if num_eval_negatives is None else num_eval_negatives
    for key, number in (("num_negatives", num_negatives), ("num_eval_negatives", num_eval_negatives)):
        if not 0 <= number <= len(negatives):
            raise ConfigError(
                f"data.{key}={number}, but data.columns.negatives names {len(negatives)} "
                f"({', '.join(negatives) or 'none'}): give a number from 0 to that, or name more columns"
            )
    names = [columns["query"], columns["positive"], *negatives]
    require_one_role(names)
    if evaluation_only:
        train = None
    rows = None if train is None else read(with_columns(train, names[: 2 + num_negatives], "training"))
    end = None if num_corpus_negatives is None else 2 + num_corpus_negatives
    eval = with_columns(eval, names[:end], "evaluation")
    _, positive, *others = eval.column_names
    for column in others:
        if (kind := kind_of(eval.features[positive])) != (other := kind_of(eval.features[column])):
            raise ConfigError(f"of columns {positive!r} and {column!r} one holds {other}, the other {kind}")
    return assemble(rows, read(eval), name, names[: 2 + num_eval_negatives], deduplicate, on_bad_image, stored)


def assemble(
    train: HashedRows | None,
    eval: HashedRows,
    name: str,
    eval_kept: Sequence[str],
    deduplicate: bool = True,
    on_bad_image: OnBadImage = "error",
    stored: Stored | None = None,
    evaluation_only: bool = False,
) -> Data:
    """Make training rows and an evaluation out of rows that are read: query, positive and negatives.

    The evaluation corpus holds the positives and the negatives of the evaluation rows, its ids being hashes of the
    content and its order that of the ids, so that neither tells what is relevant. Pages are neither decoded nor
    copied, except that evaluation rows with an indices mapping (a shuffled data set) are written out once. Of the
    evaluation rows the columns `eval_kept` are for the evaluation loss; documents and queries are named by the rows as
    they are `stored`, or by their number in the data set. For an evaluation alone there need be no training rows.

    Raises:
        ConfigError: A page cannot be read, or no row is left.
    """
    if evaluation_only:
        train = None
    train_rows = [] if train is None else _readable_rows(train, train.defects, "training", on_bad_image)
    eval_hashes = content_hashes(eval)
    # A page may have fewer negatives than there are columns; only what the loss reads must be there.
    spare = {(d.row, d.column) for d in eval.defects if d.reason == EMPTY and d.column not in eval_kept}
    defects = [d for d in eval.defects if (d.row, d.column) not in spare]
    eval_rows = _readable_rows(eval, defects, "evaluation", on_bad_image)
    is_there = np.ones(eval_hashes.shape, dtype=bool)
    for row, column in spare:
        is_there[row, eval.column_names.index(column)] = False
    if deduplicate and train is not None:
        train_rows = _drop_leaks(train_rows, content_hashes(train), eval_hashes[eval_rows][is_there[eval_rows]])
    train_hashes = [] if train is None else [content_hashes(train)[train_rows]]

    stored = stored or Stored(eval, name)
    corpus, ids, names = _corpus(eval, eval_rows, eval_hashes[:, 1:], is_there[:, 1:], deduplicate, stored)
    queries, query_ids, query_names = _queries(eval, eval_rows, eval_hashes[:, 0], deduplicate, stored)
    relevant_docs: dict[str, set[str]] = {}
    for row in eval_rows:
        relevant_docs.setdefault(query_ids[row], set()).add(ids[row])
    relevance = (list(corpus["corpus_id"]), [(query, sorted(found)) for query, found in relevant_docs.items()])
    return Data(
        name,
        None if train is None else _select(train, train_rows),
        _select(eval.select_columns([*eval_kept]), eval_rows),
        {ONE_DIRECTION: Direction(queries, corpus, relevant_docs, names=names, query_names=query_names)},
        _fingerprint([*train_hashes, eval_hashes[eval_rows]], relevance),
        _fingerprint(train_hashes, None) if train_hashes else None,
        _fingerprint([eval_hashes[eval_rows, :1]], relevance),
    )


def require_one_role(names: Sequence[str]) -> None:
    """Refuse a column that is named twice."""
    if twice := [column for column, number in Counter(names).items() if number > 1]:
        raise ConfigError(f"data.columns names {twice[0]!r} twice: each column has one role")


def _require_rows(dataset: Dataset, part: str) -> None:
    if len(dataset) == 0:
        raise ConfigError(f"the {part} data set is empty: it has no row")


def _require_columns(dataset: Dataset, names: Sequence[str], part: str) -> None:
    for column in names:
        if column not in dataset.column_names:
            nearest = difflib.get_close_matches(column, dataset.column_names, n=1, cutoff=0.0)
            raise ConfigError(
                f"the {part} data set has no column {column!r}; there are {', '.join(dataset.column_names)}: "
                f"did you mean {nearest[0]!r}? Set data.columns"
            )


def with_columns(dataset: Dataset, names: Sequence[str], part: str) -> Dataset:
    """Return the named columns in their order, each as text, as an image that decodes on access, or as other media.

    Raises:
        ConfigError: A column is missing or of no such kind, or there is no row; it names the part.
    """
    _require_rows(dataset, part)
    _require_columns(dataset, names, part)
    dataset = dataset.select_columns(list(names)).with_format(None)
    for column in names:
        feature = dataset.features[column]
        # Parquet written without the datasets library holds pages as plain binary or {bytes, path}.
        is_binary = isinstance(feature, Value) and feature.dtype in ("binary", "large_binary")
        if (
            is_binary
            or isinstance(feature, Image)
            or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})
        ):
            dataset = dataset.cast_column(column, Image(mode=getattr(feature, "mode", None)))
        elif not kind_of(feature):
            what = "neither text nor images, sound or video"
            raise ConfigError(f"column {column!r} of the {part} data set holds {feature}: {what}")
    return dataset


def _readable_rows(dataset: Dataset, defects: Sequence[Defect], part: str, on_bad_image: str) -> list[int]:
    """Return the rows without a defect; with `error`, the first defect is raised."""
    if defects:
        row, column, reason = defects[0]
        cell = dataset.with_format("arrow")[row][column][0].as_py()
        file = f" ({cell['path']})" if isinstance(cell, dict) and cell.get("path") else ""
        first = f"row {row} (from 0) of column {column}{file}: {reason}"
        if on_bad_image == "error":
            raise ConfigError(f"{part} data set, {first}; data.on_bad_image=skip leaves such rows out")
        bad = {defect.row for defect in defects}
        logger.warning("left out %s of %s %s rows, first %s", f"{len(bad):,}", f"{len(dataset):,}", part, first)
        if len(bad) == len(dataset):
            raise ConfigError(f"no {part} row is left: each has an unreadable page or an empty cell, first {first}")
        return [row for row in range(len(dataset)) if row not in bad]
    return list(range(len(dataset)))


def _drop_leaks(rows: Sequence[int], hashes: np.ndarray, in_evaluation: np.ndarray) -> list[int]:
    leaks = np.asarray(np.isin(hashes[rows], in_evaluation).any(axis=1))
    clean = np.asarray(rows)[~leaks].tolist()
    if len(clean) < len(rows):
        counts = f"{len(rows) - len(clean):,} of {len(rows):,}"
        logger.info("dropped %s training rows that hold an evaluation page or query", counts)
    if not clean:
        raise ConfigError(
            f"all {len(rows):,} training rows hold an evaluation page or query: give another data.eval, "
            "or data.deduplicate=false to train on them all the same"
        )
    return clean


def _corpus(
    eval: Dataset, rows: Sequence[int], hashes: np.ndarray, is_there: np.ndarray, deduplicate: bool, stored: Stored
) -> tuple[HashedRows, list[str], DocumentNames]:
    """Return the documents of these rows (corpus_id and document, in the order of the ids), each row's, and names."""
    names = eval.column_names[1:]
    feature = eval.features[names[0]]
    parts = [eval.select_columns([column]) for column in names]
    parts = [part.rename_columns(dict.fromkeys(part.column_names, "document")) for part in parts]
    parts = [part if part.features["document"] == feature else part.cast_column("document", feature) for part in parts]
    documents = concatenate_datasets(parts)
    # Position of a document: column by column, each with all rows.
    positions = [k * len(eval) + row for k in range(len(names)) for row in rows if is_there[row, k]]
    contents = hashes.T.ravel()
    ids = [content_id(content) for content in contents.tolist()]
    num_cells = _num_equal(contents, positions)
    if deduplicate:
        positions = list({ids[position]: position for position in reversed(positions)}.values())
    else:
        ids = _number_repeats(ids, positions)
    positions.sort(key=lambda position: ids[position])
    columns, rows_ = np.divmod(positions, len(eval))
    places = np.column_stack([np.zeros_like(rows_), rows_, columns])
    found = DocumentNames([ids[position] for position in positions], places, num_cells[positions], [(stored, names)])
    documents = documents.add_column("corpus_id", ids).select_columns(["corpus_id", "document"])
    return HashedRows(readable(documents.select(positions)), {"document": contents[positions]}), ids, found


def _num_equal(contents: np.ndarray, positions: Sequence[int]) -> np.ndarray:
    """Return for each content how many of those at the positions equal it, shape (num_contents,)."""
    _, place, counts = np.unique(contents[positions], return_inverse=True, return_counts=True)
    found = np.zeros(len(contents), dtype=np.int64)
    found[positions] = counts[place]
    return found


def _number_repeats(ids: Sequence[str], positions: Sequence[int]) -> list[str]:
    """Add -1, -2, ... to the repeats of an id, in an order that does not favour positives (they come first)."""
    numbered, seen = list(ids), Counter[str]()
    for position in np.random.default_rng(0).permutation(positions).tolist():
        if number := seen[ids[position]]:
            numbered[position] = f"{ids[position]}-{number}"
        seen[ids[position]] += 1
    return numbered


def _queries(
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
    found = DocumentNames([ids[row] for row in chosen], places, _num_equal(hashes, rows)[chosen], sources)
    return HashedRows(readable(queries), {"query": hashes[chosen]}), ids, found


def _select(rows: HashedRows, chosen: Sequence[int]) -> HashedRows:
    hashes = {name: found[chosen] for name, found in rows.hashes.items()}
    return HashedRows(readable(rows.select(chosen)), hashes)


def _fingerprint(hashes: Sequence[np.ndarray], relevance: object) -> str:
    """Return a hash of the content alone: the same in another process, folder or cache."""
    digest = hashlib.sha256(repr(relevance).encode())
    for array in hashes:
        digest.update(repr(array.shape).encode() + array.astype("<i8").tobytes())
    return digest.hexdigest()[:16]
