"""llamaindex/vdr-multilingual-train and copies of it: pages in five languages, hard negatives given by their ids.

The set holds every page once, and a page is the negative of many queries. Its rows are streamed: first without the
pages, to find out which are needed, then the pages, each into a file of its own that all rows which need it name.
Neither the set nor the rows are ever in memory as a whole; only ids, row numbers and hashes are.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image, List, Value, get_dataset_config_names, load_dataset_builder
from datasets.exceptions import DatasetsError
from huggingface_hub import constants
from tqdm.auto import tqdm

from experiments.config.bounds import NotNegative, Positive
from experiments.config.errors import ConfigError, refuse
from experiments.config.hub import COPY, commit, refusal, require_hub, why_offline
from experiments.data.document_names import Stored
from experiments.data.from_rows import build, loading_error
from experiments.data.options import ItemOptions
from experiments.data.types import Data
from experiments.runs.files import replacing

TEXT = Value("string")
INDEX = Features({"id": TEXT, "query": TEXT, "negatives": List(TEXT), "language": TEXT})
PAGES_AT_ONCE = 64

logger = logging.getLogger(__name__)


class Source(NamedTuple):
    """Where the rows are: Parquet files in order, and what tells one state of them from another."""

    config: str
    files: tuple[str, ...]
    version: str

    @property
    def columns(self) -> tuple[str, ...]:
        """What is read; the language only where it is no configuration of its own."""
        return ("id", "query", "image", "negatives", *(["language"] if self.config == "default" else []))


def load(
    path: str,
    language: str,
    name: str,
    split: str = "train",
    revision: str | None = None,
    num_train_rows: Positive | None = None,
    num_eval_rows: Positive = 300,
    num_negatives: NotNegative = 1,
    num_corpus_negatives: NotNegative = 4,
    num_eval_negatives: NotNegative | None = None,
    cache_dir: str = "outputs/.cache",
    **options: Unpack[ItemOptions],
) -> Data:
    """Load one language, its hard negatives resolved into pages.

    A row has a page (`image`) with its `id`, the `query` that it answers, and `negatives`, the ids of its hard
    negatives, the nearest first. Rows without a query are pages that serve as negatives alone. An id that names no
    page of the language, or the row's own, is passed over for the next one; a row that is left with fewer negatives
    than asked for is dropped, with a count.

    Args:
        path: Hub name, or a folder with a copy of its repository (Parquet files).
        language: A configuration of the data set; where it has none, a value of its column `language`.
        name: Of the evaluation, in metrics and reports.
        split: Of the data set.
        revision: Branch, tag or commit on the Hub.
        num_train_rows: The first so many of the rows that are not evaluated; None: all.
        num_eval_rows: Rows to evaluate on: the last so many that have a query and enough negatives.
        num_negatives: Hard negatives in a training row.
        num_corpus_negatives: Hard negatives of an evaluation row in the corpus.
        num_eval_negatives: Of these, in a row of the evaluation loss; None: as in training, if there are as many.
        cache_dir: Where the pages are kept, each as a file, once for all settings.
        **options: See `ItemOptions`.

    Raises:
        ConfigError: The data set cannot be loaded, has other columns or not the language, or too few rows.
    """
    num_eval_negatives = _num_eval_negatives(num_eval_negatives, num_negatives, num_corpus_negatives)
    with _one_line_errors(path, language):
        source = _find(path, language, split, revision)
        state = hashlib.sha256(repr((source, split)).encode()).hexdigest()[:12]
        folder = (Path(cache_dir).expanduser() / f"vdr-{language}-{state}").absolute()
        index = _index(source, folder)
        table = index.with_format("arrow")[:]
        numbers = num_train_rows, num_eval_rows, num_negatives, num_corpus_negatives
        pages = _choose(table, _of_language(table, language, source), *numbers)
        if options.get("evaluation_only"):
            pages = pages[0][:0], pages[1]
        logger.info("%s: %s training rows, %s to evaluate on", language, *(f"{len(part):,}" for part in pages))
        _write_pages(source, np.unique(np.concatenate([part.ravel() for part in pages])), folder)
    train = _with_pages(index, pages[0], folder) if len(pages[0]) else None
    eval = _with_pages(index, pages[1], folder)
    negatives = _columns(1 + max(num_negatives, num_corpus_negatives))[1:]
    columns = {"query": "query", "positive": "image", "negatives": negatives}
    used: dict[str, Any] = {"num_negatives": num_negatives, "num_eval_negatives": num_eval_negatives}
    used |= {"num_corpus_negatives": num_corpus_negatives}
    stored = Stored(eval, Path(path).name, numbers=pages[1])
    return build(train, eval, columns=columns, name=name, stored=stored, **used, **options)


def _num_eval_negatives(asked: int | None, num_negatives: int, num_corpus_negatives: int) -> int:
    """Return how many hard negatives a row of the evaluation loss has, which must be in the corpus."""
    number = min(num_negatives, num_corpus_negatives) if asked is None else asked
    said = f"data.num_eval_negatives={number} is above data.num_corpus_negatives={num_corpus_negatives}"
    refuse(number > num_corpus_negatives, f"{said}; type data.num_corpus_negatives={number}")
    return number


def _index(source: Source, folder: Path) -> Dataset:
    """Return all rows without their pages, kept on disk."""
    kept, which = str(folder / "index"), {"source": source}
    return Dataset.from_generator(_rows_without_pages, INDEX, cache_dir=kept, gen_kwargs=which)


@contextmanager
def _one_line_errors(path: str, language: str) -> Iterator[None]:
    try:
        yield
    except ConfigError:
        raise
    except (OSError, RuntimeError, DatasetsError, ValueError) as error:
        if not Path(path).expanduser().exists() and (reason := refusal(error, path, COPY, "dataset")):
            raise ConfigError(f"data.path={path}: {reason}") from error
        raise ConfigError(f"could not load data set {path} ({language}): {loading_error(error)}") from error


def _find(path: str, language: str, split: str, revision: str | None) -> Source:
    """Return where the language's rows are.

    Raises:
        ConfigError: The data set has no such language or split, or other columns, or can't be reached.
    """
    if not Path(path).expanduser().exists():
        require_hub(f"data.path={path}", COPY)
        if constants.HF_HUB_OFFLINE:
            raise ConfigError(f"data.path={path}: it is streamed, and {why_offline()}, or {COPY}")
        revision = commit(f"data.path={path}", path, revision, kind="dataset", instead=COPY)
    configs = get_dataset_config_names(path, revision=revision)
    if configs != ["default"]:
        _require_known("language", language, path, configs)
    config = language if language in configs else "default"
    builder = load_dataset_builder(path, config, revision=revision)
    files = builder.config.data_files or {}
    _require_known("split", split, path, list(files))
    source = Source(config, tuple(files[split]), repr(files[split].origin_metadata))
    with fsspec.open(source.files[0], "rb") as file:
        there = pq.read_schema(file).names
    if missing := [column for column in source.columns if column not in there]:
        raise ConfigError(
            f"data set {path} has no column {' and no '.join(missing)}; this option reads "
            f"{', '.join(source.columns)} (data=hub takes any columns, with pages for negatives)"
        )
    return source


def _require_known(key: str, value: str, path: str, known: Sequence[str]) -> None:
    if value not in known:
        near = difflib.get_close_matches(value, known, 1)
        hint = f": did you mean {near[0]}?" if near else ""
        raise ConfigError(f"data.{key}={value}: {path} has {', '.join(known)}{hint}")


def _batches(
    source: Source, columns: list[str], rows: np.ndarray | None = None
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield these columns in small batches, each with the number of its first row.

    Where rows (ascending) are given, only row groups that hold one of them are read.
    """
    start = 0
    for name in source.files:
        # Not streamed by the datasets library: its scan decodes a whole file ahead of what is asked for.
        with fsspec.open(name, "rb") as file:
            parquet = pq.ParquetFile(file, pre_buffer=False)
            for group in range(parquet.num_row_groups):
                first, start = start, start + parquet.metadata.row_group(group).num_rows
                if rows is None or np.searchsorted(rows, first) < np.searchsorted(rows, start):
                    for batch in parquet.iter_batches(PAGES_AT_ONCE, row_groups=[group], columns=columns):
                        yield first, batch
                        first += len(batch)


def _rows_without_pages(source: Source) -> Iterator[dict[str, Any]]:
    """Yield id, query, negatives and language (None where it is not read) of every row of the data set."""
    for _, batch in _batches(source, [name for name in source.columns if name != "image"]):
        for row in batch.to_pylist():
            yield {"language": None} | row | {"negatives": row["negatives"] or []}


def _of_language(table: pa.Table, language: str, source: Source) -> np.ndarray:
    """Return which rows are of the language, shape (num_rows,)."""
    if source.config != "default":
        return np.ones(len(table), dtype=bool)
    found = pc.fill_null(pc.equal(table["language"], language), False).to_numpy()
    if not found.any():
        there = [value for value in pc.unique(table["language"]).to_pylist() if value]
        raise ConfigError(f"data.language={language}: no row has it; there are {', '.join(sorted(there)) or 'none'}")
    return found


def _choose(
    table: pa.Table,
    of_language: np.ndarray,
    num_train_rows: int | None,
    num_eval_rows: int,
    num_negatives: int,
    num_corpus_negatives: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the row numbers of each training row and its hard negatives, and those of the evaluation.

    Of shapes (num_train_rows, 1 + num_negatives) and (num_eval_rows, 1 + num_corpus_negatives).
    """
    negatives = _resolve(table, of_language, max(num_negatives, num_corpus_negatives))
    asked = of_language & pc.fill_null(pc.greater(pc.utf8_length(table["query"]), 0), False).to_numpy()
    numbers = (negatives >= 0).sum(axis=1)
    eval_rows = np.flatnonzero(asked & (numbers >= num_corpus_negatives))[-num_eval_rows:]
    train = asked & (numbers >= num_negatives)
    train[eval_rows] = False
    train_rows = np.flatnonzero(train)[:num_train_rows]
    if few := int((asked & (numbers < num_negatives)).sum()):
        logger.info("left out %s of %s rows with fewer than %d hard negatives", few, int(asked.sum()), num_negatives)
    if len(eval_rows) < num_eval_rows or len(train_rows) == 0:
        raise ConfigError(
            f"{int(asked.sum()):,} rows have a query, {len(eval_rows):,} of the last ones {num_corpus_negatives} hard "
            f"negatives, and {len(train_rows):,} others {num_negatives}: lower data.num_eval_rows={num_eval_rows}, "
            f"data.num_corpus_negatives or data.num_negatives (at most {int(numbers.max(initial=0))} here)"
        )
    parts = (train_rows, num_negatives), (eval_rows, num_corpus_negatives)
    train_pages, eval_pages = (np.column_stack([rows, negatives[rows, :number]]) for rows, number in parts)
    return train_pages, eval_pages


def _resolve(table: pa.Table, of_language: np.ndarray, most: int) -> np.ndarray:
    """Return the row numbers of each row's first hard negatives, -1 where it has no more, shape (num_rows, most)."""
    ids = table["id"].combine_chunks()
    if (repeats := len(ids) - pc.count_distinct(ids).as_py()) > 0:
        logger.warning("%s rows repeat an id; as a hard negative it stands for its first row", f"{repeats:,}")
    found = pc.fill_null(pc.index_in(pc.list_flatten(table["negatives"]), value_set=ids), -1).to_numpy()
    found = np.where((found >= 0) & of_language[found], found, -1)
    if unknown := int((found < 0).sum()):
        logger.info("passed over %s ids of hard negatives that name no page here", f"{unknown:,}")
    ends = np.cumsum(pc.list_value_length(table["negatives"]).to_numpy())
    negatives = np.full((len(table), most), -1, dtype=np.int64)
    for row, (start, end) in enumerate(zip(np.concatenate([[0], ends]), ends, strict=False)):
        usable = [page for page in dict.fromkeys(found[start:end].tolist()) if page not in (-1, row)][:most]
        negatives[row, : len(usable)] = usable
    return negatives


def _page_file(folder: Path, row: int) -> Path:
    return folder / "pages" / f"{row // 1000:05d}" / f"{row:08d}"


def _write_pages(source: Source, rows: np.ndarray, folder: Path) -> None:
    """Write the pages of these rows, ascending, as files, those that are not there yet."""
    missing = np.array([row for row in rows.tolist() if not _page_file(folder, row).exists()], dtype=np.int64)
    if not len(missing):
        return
    with tqdm(total=len(missing), desc="Fetching pages", unit="page", delay=2, disable=None) as progress:
        for first, batch in _batches(source, ["image"], missing):
            here = missing[np.searchsorted(missing, first) : np.searchsorted(missing, first + len(batch))]
            pages = batch["image"].field("bytes")
            for row in here.tolist():
                page, file = pages[row - first], _page_file(folder, row)
                file.parent.mkdir(parents=True, exist_ok=True)
                with replacing(file) as unfinished:  # an absent page is an empty file, which is no image
                    unfinished.write_bytes(memoryview(page.as_buffer()) if page.is_valid else b"")
            progress.update(len(here))


def _columns(number: int) -> list[str]:
    return ["image", *(f"negative_{k}" for k in range(number - 1))]


def _with_pages(index: Dataset, pages: np.ndarray, folder: Path) -> Dataset:
    """Return rows of a query and pages, the pages given by their files; the rows are on disk."""
    names = _columns(pages.shape[1])

    def name_pages(batch: dict[str, list], numbers: list[int]) -> dict[str, list]:
        files = [
            [{"bytes": None, "path": str(_page_file(folder, page))} for page in column]
            for column in pages[numbers].T.tolist()
        ]
        return {"query": batch["query"]} | dict(zip(names, files, strict=True))

    return index.select(pages[:, 0]).map(
        name_pages,
        with_indices=True,
        batched=True,
        remove_columns=index.column_names,
        features=Features({"query": TEXT} | dict.fromkeys(names, Image())),
        desc="Resolving hard negatives",
    )
