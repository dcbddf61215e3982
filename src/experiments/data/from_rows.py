"""From rows with source columns to a `Data`: checks, corpus, relevance, and no leak into training."""

from __future__ import annotations

import difflib
import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from datasets import Dataset, Image, Value
from datasets.exceptions import DatasetGenerationError

from experiments.config.bounds import FileOrText, OnBadImage
from experiments.config.errors import ConfigError, refuse
from experiments.data.corpus import Archive, Corpus, make_corpus, make_queries
from experiments.data.document_names import Stored
from experiments.data.encoded_pages import EMPTY, Defect, HashedRows, content_hashes, read
from experiments.data.file_columns import Asked, Origin, with_files
from experiments.data.media import kind_of, readable
from experiments.data.options import ColumnOptions
from experiments.data.types import ONE_DIRECTION, Data, Direction, FromCorpus

logger = logging.getLogger(__name__)

MAX_DEFAULT_EVAL_ROWS = 100  # or a fifth, from the end of the training rows where there is no evaluation split


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
        num_eval_rows = num_eval_rows or max(1, min(MAX_DEFAULT_EVAL_ROWS, len(train) // 5))
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
    kind: FileOrText = "auto",
    query_kind: FileOrText = "auto",
    corpus: Dataset | None = None,
    **options: Unpack[ColumnOptions],
) -> Data:
    """Make a `Data` out of rows as they are stored, where a column of texts may name files; see `RowOptions`.

    Without evaluation rows they are taken from the end of the training rows; for an evaluation alone there need be
    none of these. The corpus holds documents that are searched besides those of the evaluation rows. The origins are
    of the three.

    Raises:
        ConfigError: A file is missing, there are too few rows, or `build` can't use them.
    """
    train_rows, eval_rows = first_rows(train, eval, num_train_rows, num_eval_rows)
    columns, first_eval_row = options["columns"], 0
    if eval is None and train is not None:
        first_eval_row = len(train) - len(eval_rows)
    names = [columns["query"], columns["positive"], *(columns.get("negatives") or [])]
    told = {role: columns[role] for role in ("file", "page_number") if columns.get(role)}
    asked = dict.fromkeys(names, Asked(kind, "data.kind")) | {names[0]: Asked(query_kind, "data.query_kind")}
    if train_rows is not None and not options.get("evaluation_only"):
        _require_columns(train_rows, names[: 2 + options.get("num_negatives", 0)], "training")
        train_rows, _ = with_files(train_rows, asked, origins[0])
    _require_columns(eval_rows, [*names, *told.values()], "evaluation")
    origins = [origins[0], origins[1]._replace(first_row=first_eval_row), *origins[2:]]
    read_rows, files = with_files(eval_rows, asked, origins[1])
    numbers = first_eval_row + np.arange(len(eval_rows))
    stored = Stored(eval_rows, origins[1].name, origins[1].folder, numbers, files, **told)
    archive = None
    if corpus is not None:
        column = columns.get("corpus") or columns["positive"]
        _require_columns(corpus, [column], "corpus")
        rows, files = with_files(corpus, {column: asked[columns["positive"]]}, origins[2])
        there = {role: name for role, name in told.items() if name in corpus.column_names}
        of_corpus = Stored(corpus, origins[2].name, origins[2].folder, None, files, **there)
        archive = Archive(read(with_columns(rows, [column], "corpus")), of_corpus._replace(shown_from=stored.folder))
    return build(train_rows, read_rows, stored=stored, archive=archive, origins=origins, **options)


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
    archive: Archive | None = None,
    origins: Sequence[Origin] = (),
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
    if archive is not None:
        kind, (other,) = kind_of(eval.features[positive]), map(kind_of, archive.rows.features.values())
        said = f"data.corpus holds {other}, the evaluation's column {positive!r} {kind}; give both the same"
        refuse(kind != other, said)
    kept = names[: 2 + num_eval_negatives]
    return assemble(rows, read(eval), name, kept, deduplicate, on_bad_image, stored, archive, origins)


def assemble(
    train: HashedRows | None,
    eval: HashedRows,
    name: str,
    eval_kept: Sequence[str],
    deduplicate: bool = True,
    on_bad_image: OnBadImage = "error",
    stored: Stored | None = None,
    archive: Archive | None = None,
    origins: Sequence[Origin] = (),
    evaluation_only: bool = False,
) -> Data:
    """Make training rows and an evaluation out of rows that are read: query, positive and negatives.

    The evaluation corpus holds the positives and the negatives of the evaluation rows, its ids being hashes of the
    content and its order that of the ids, so that neither tells what is relevant. Pages are neither decoded nor
    copied, except that evaluation rows with an indices mapping (a shuffled data set) are written out once. Of the
    evaluation rows the columns `eval_kept` are for the evaluation loss; documents and queries are named by the rows as
    they are `stored`, or by their number in the data set. For an evaluation alone there need be no training rows.
    Documents of the archive may be in training rows, but for those that evaluation rows hold. The origins, of training
    and evaluation rows and of the archive, are for messages.

    Raises:
        ConfigError: A page cannot be read, or no row is left.
    """
    if evaluation_only:
        train = None
    unnamed = [Origin(Path(), f"{part} data set", name) for part in ("training", "evaluation", "corpus")]
    of_train, of_eval, of_archive = origins or unnamed
    train_rows = [] if train is None else _readable_rows(train, train.defects, of_train, "training", on_bad_image)
    eval_hashes = content_hashes(eval)
    is_there, defects = _cells_there(eval, eval_kept)
    eval_rows = _readable_rows(eval, defects, of_eval, "evaluation", on_bad_image)
    if deduplicate and train is not None:
        train_rows = _drop_leaks(train_rows, content_hashes(train), eval_hashes[eval_rows][is_there[eval_rows]])
    train_hashes = [] if train is None else [content_hashes(train)[train_rows]]

    stored = stored or Stored(eval, name)
    pages = None if archive is None else archive.rows
    further = [] if pages is None else _readable_rows(pages, pages.defects, of_archive, "corpus", on_bad_image)
    documents = eval_hashes[:, 1:], is_there[:, 1:]
    corpus = make_corpus(eval, eval_rows, *documents, deduplicate, stored, archive, further)
    queries, query_ids, query_names = make_queries(eval, eval_rows, eval_hashes[:, 0], deduplicate, stored)
    relevant_docs: dict[str, set[str]] = {}
    for row in eval_rows:
        relevant_docs.setdefault(query_ids[row], set()).add(corpus.positives[row])
    answers = [(query, sorted(found)) for query, found in relevant_docs.items()]
    relevance = (corpus.documents["corpus_id"][:], answers)
    return Data(
        name,
        None if train is None else _select(train, train_rows),
        _select(eval.select_columns([*eval_kept]), eval_rows),
        {ONE_DIRECTION: Direction(queries, corpus.documents, relevant_docs, None, corpus.names, query_names)},
        _fingerprint([*train_hashes, eval_hashes[eval_rows]], relevance),
        _fingerprint(train_hashes, None) if train_hashes else None,
        _fingerprint([eval_hashes[eval_rows, :1]], relevance),
        None if archive is None else _from_corpus(corpus, train_hashes[0][:, 1:] if train_hashes else None),
    )


def _cells_there(eval: HashedRows, kept: Sequence[str]) -> tuple[np.ndarray, list[Defect]]:
    """Return which cells aren't empty, shape (num_rows, num_columns), and what is wrong with the others.

    A page may have fewer negatives than there are columns; only what the loss reads, the columns kept, must be there.
    """
    is_there, defects = np.ones((len(eval), len(eval.column_names)), dtype=bool), []
    for defect in eval.defects:
        if defect.reason == EMPTY and defect.column not in kept:
            is_there[defect.row, eval.column_names.index(defect.column)] = False
        else:
            defects.append(defect)
    return is_there, defects


def _from_corpus(corpus: Corpus, trained: np.ndarray | None) -> FromCorpus:
    """Count, and log, the documents that come from the archive."""
    in_training = None if trained is None else int(np.isin(corpus.from_archive, trained).sum())
    found = FromCorpus(len(corpus.from_archive), in_training)
    said = f"corpus: {len(corpus.documents):,} documents, {found.num_documents:,} of them from data.corpus alone"
    logger.info("%s%s", said, "" if in_training is None else f"; {in_training:,} of these are in training rows")
    return found


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


def _readable_rows(
    dataset: Dataset, defects: Sequence[Defect], origin: Origin, part: str, on_bad_image: str
) -> list[int]:
    """Return the rows without a defect; with `error`, the first defect is raised."""
    if defects:
        row, column, reason = defects[0]
        cell = dataset.with_format("arrow")[row][column][0].as_py()
        file = f" ({cell['path']})" if isinstance(cell, dict) and cell.get("path") else ""
        first = f"{origin.cell(row, column)}{file}: {reason}"
        if on_bad_image == "error":
            raise ConfigError(f"{first}; data.on_bad_image=skip leaves such rows out")
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


def _select(rows: HashedRows, chosen: Sequence[int]) -> HashedRows:
    hashes = {name: found[chosen] for name, found in rows.hashes.items()}
    return HashedRows(readable(rows.select(chosen)), hashes)


def _fingerprint(hashes: Sequence[np.ndarray], relevance: object) -> str:
    """Return a hash of the content alone: the same in another process, folder or cache."""
    digest = hashlib.sha256(repr(relevance).encode())
    for array in hashes:
        digest.update(repr(array.shape).encode() + array.astype("<i8").tobytes())
    return digest.hexdigest()[:16]
