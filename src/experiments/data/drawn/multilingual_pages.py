"""The offline twin of the multilingual source set: drawn report pages, queries in five languages, negatives by ids.

What is written is a copy of the repository in all that `multilingual.load` reads: a configuration for each language,
Parquet files of pages as PNG with their ids, and 16 hard negatives a query, given by their ids, the nearest first.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image, List, Value

from experiments.config.bounds import NotNegative
from experiments.data.drawn.page import Page, PageSize
from experiments.data.drawn.queries import LANGUAGES, write_query
from experiments.data.drawn.report_pages import Row, all_pages, choose_rows, draw_pngs
from experiments.data.drawn.sets import drawn_once

NUM_TRAIN_QUERIES = 1500  # with those of the evaluation a little more than half of the pages, as in the source
NUM_EVAL_QUERIES = 100
NUM_NEGATIVES = 16
NUM_FILES = 2  # of a language
ROWS_AT_ONCE = 100  # in a row group: what is read for one page

TEXT = Value("string")
FEATURES = Features({"id": TEXT, "query": TEXT, "image": Image(), "negatives": List(TEXT), "language": TEXT})


def source_set(seed: NotNegative = 0, cache_dir: str = "outputs/.cache", page_size: PageSize = (128, 128)) -> str:
    """Return the folder of the data set, which is written first unless it is there.

    In each language every page is one row, and a little more than half of them have a query. The last of these with
    their first four hard negatives (one attribute differs) are what `data=report_pages` evaluates on: their
    combinations of attributes occur in no other row that has a query, nor among its hard negatives.

    Args:
        seed: Of the choice of pages, the wording of the queries, and the figures on the pages.
        cache_dir: Where the folder is kept; the pages of one set of arguments are drawn once.
        page_size: Width and height of a page in pixels.
    """
    width, height = page_size
    arguments = f"{width}x{height}-seed{seed}"
    return drawn_once(cache_dir, "multilingual_pages", arguments, lambda folder: _write(folder, page_size, seed))


def rows_of(seed: int) -> list[Row]:
    """Return the page and the hard negatives of each row, those with a query first, the evaluated ones last of them.

    Returns:
        Every page once; it is followed by `NUM_NEGATIVES` others, or by none in a row without a query. The first four
        differ from it in one attribute each, the rest are the next nearest ones: they have most attributes in common.
    """
    pages = all_pages(seed)
    train, eval = choose_rows(NUM_TRAIN_QUERIES, NUM_EVAL_QUERIES, seed)
    evaluated = {page for row in eval for page in row}
    asked = [
        *_with_nearest(train, [page for page in pages if page not in evaluated]),
        *_with_nearest(eval, [page for page in pages if page in evaluated]),
    ]
    with_query = {row[0] for row in asked}
    return asked + [[page] for page in pages if page not in with_query]


def _with_nearest(rows: list[Row], pages: list[Page]) -> Iterator[Row]:
    """Yield each row with as many of these pages added as it lacks negatives, those most like its page first."""
    values = np.array(pages)
    for row in rows:
        in_common = (values == np.array(row[0])).sum(axis=1)
        nearest = (pages[number] for number in np.argsort(-in_common, kind="stable").tolist())
        more = (page for page in nearest if page not in row)
        yield row + [*itertools.islice(more, 1 + NUM_NEGATIVES - len(row))]


def _write(folder: Path, page_size: PageSize, seed: int) -> None:
    rows = rows_of(seed)
    drawn = draw_pngs((row[0] for row in rows), page_size, seed)
    configs = ""
    for language in LANGUAGES:
        rng = random.Random(f"{seed}/{language}")
        dataset = Dataset.from_list([_row(row, language, drawn, rng) for row in rows], features=FEATURES)
        (folder / language).mkdir(parents=True)
        for number in range(NUM_FILES):
            file = folder / language / f"train-{number:05d}-of-{NUM_FILES:05d}.parquet"
            table = dataset.shard(NUM_FILES, number).with_format("arrow")[:]
            pq.write_table(table, file, row_group_size=ROWS_AT_ONCE)
        configs += f"- config_name: {language}\n  data_files:\n  - split: train\n    path: {language}/train-*\n"
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")


def _row(row: Row, language: str, drawn: dict[Page, bytes], rng: random.Random) -> dict[str, Any]:
    ids = [hashlib.sha256(f"{language}/{'/'.join(page)}".encode()).hexdigest()[:32] for page in row]
    return {
        "id": ids[0],  # it tells nothing of what is on the page
        "query": write_query(row[0], rng, language) if row[1:] else None,
        "image": {"bytes": drawn[row[0]], "path": None},
        "negatives": ids[1:],
        "language": language,
    }
