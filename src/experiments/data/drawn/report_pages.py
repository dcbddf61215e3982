"""Drawn report pages: which pages there are, the queries that ask for them, and their cache on disk.

A page is one value of each of five attributes. A query states all five in words, and each hard negative of a page
differs from it in exactly one, so that only a model that has learnt that attribute ranks the right page first.
"""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from annotated_types import Interval
from datasets import Dataset, DatasetDict, Features, Image, Value, load_from_disk
from tqdm.auto import tqdm

from experiments.config.bounds import NotNegative
from experiments.data import from_rows
from experiments.data.drawn.page import ATTRIBUTES, Page, PageSize, draw_page
from experiments.data.drawn.queries import write_query
from experiments.data.drawn.sets import combinations, drawn_once
from experiments.data.encoded_pages import HashedRows, content_id
from experiments.data.types import ONE_DIRECTION, Data

NAME = "report-pages"
NEGATIVES = ("negative_0", "negative_1", "negative_2", "negative_3")
PAGES = ("image", *NEGATIVES)  # the columns of a row's pages

Row = list[Page]  # the page a query asks for, then its four hard negatives


def load(
    num_train_rows: Annotated[int, Interval(ge=1, le=1_000_000)] = 1024,
    num_eval_rows: Annotated[int, Interval(ge=1, le=144)] = 100,  # with their negatives a quarter of all pages
    num_negatives: Annotated[int, Interval(ge=0, le=4)] = 1,
    seed: NotNegative = 0,
    cache_dir: str = "outputs/.cache",
    page_size: PageSize = (128, 128),
) -> Data:
    """Return drawn report pages, from the cache if they were drawn before.

    Args:
        num_train_rows: Training rows.
        num_eval_rows: Evaluation queries, each with five pages of its own in the corpus.
        num_negatives: Hard negatives in a training row.
        seed: Of the choice of pages, the wording of the queries, and the figures on the pages.
        cache_dir: Folder of the cache; the pages of one set of arguments are drawn once.
        page_size: Width and height of a page in pixels.
    """

    def draw(folder: Path) -> None:
        train, eval = choose_rows(num_train_rows, num_eval_rows, seed)
        drawn = draw_pngs(itertools.chain(*train, *eval), page_size, seed)
        parts = {"train": _dataset(train, drawn, f"{seed}/train"), "eval": _dataset(eval, drawn, f"{seed}/eval")}
        DatasetDict(parts).save_to_disk(str(folder))

    width, height = page_size
    arguments = f"{num_train_rows}-{num_eval_rows}-{width}x{height}-seed{seed}"
    pages = load_from_disk(drawn_once(cache_dir, "report_pages", arguments, draw))
    columns = {"query": "query", "positive": "image", "negatives": NEGATIVES}
    data = from_rows.build(pages["train"], pages["eval"], columns=columns, name=NAME, num_negatives=num_negatives)
    assert isinstance(data.eval, HashedRows)
    contents = zip(*(data.eval.hashes[column].tolist() for column in NEGATIVES), strict=True)
    attribute_negatives = {
        f"q{i:04d}": {differing_attribute(i, k): content_id(content) for k, content in enumerate(row)}
        for i, row in enumerate(contents)
    }
    return replace(data, directions={ONE_DIRECTION: replace(data.direction, attribute_negatives=attribute_negatives)})


def choose_rows(num_train_rows: int, num_eval_rows: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Choose each row's page and negatives; no page of an evaluation row is in a training row.

    Pages are taken in the order of a hash. The evaluation takes the first, with neighbours as negatives, all
    distinct; training takes the others, each once until all have been taken.

    Returns:
        The training rows and the evaluation rows. Negative k of row i differs from its page in attribute
        (i + k + 1) modulo 5 alone.
    """
    pages, held_out, eval_rows = all_pages(seed), set[Page](), list[Row]()
    for row in itertools.islice(_rows(pages, seed, held_out), num_eval_rows):
        eval_rows.append(row)
        held_out.update(row)
    return [*itertools.islice(_rows(itertools.cycle(pages), seed, held_out), num_train_rows)], eval_rows


def all_pages(seed: int) -> list[Page]:
    """Return the page of every combination of attributes, in the order of a hash."""
    return combinations(Page, ATTRIBUTES.values(), seed)


def differing_attribute(row: int, negative: int) -> str:
    """Return the attribute in which a row's negative differs; each is skipped by a fifth of the rows."""
    return list(ATTRIBUTES)[(row + negative + 1) % len(ATTRIBUTES)]


def _rows(pages: Iterable[Page], seed: int, excluded: Collection[Page]) -> Iterator[Row]:
    """Yield rows of these pages, but for a page that is excluded itself or with all its neighbours in an attribute."""
    i = 0
    for page in pages:
        rng = random.Random(f"{seed}/{i}/{'/'.join(page)}")
        free = [_neighbours(page, differing_attribute(i, k), excluded) for k in range(len(NEGATIVES))]
        if page not in excluded and all(free):
            yield [page, *map(rng.choice, free)]
            i += 1


def _neighbours(page: Page, attribute: str, excluded: Collection[Page]) -> Row:
    others = [page._replace(**{attribute: value}) for value in ATTRIBUTES[attribute]]
    return [other for other in others if other != page and other not in excluded]


def draw_pngs(pages: Iterable[Page], size: PageSize, seed: int) -> dict[Page, bytes]:
    """Draw each page once."""
    progress = tqdm(dict.fromkeys(pages), desc="Drawing report pages", unit="page", mininterval=0.5)
    return {page: draw_png(page, size, seed) for page in progress}


def draw_png(page: Page, size: PageSize, seed: int) -> bytes:
    """Return a drawn page as a PNG; see `draw_page`."""
    buffer = io.BytesIO()
    draw_page(page, size, seed).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def _dataset(rows: list[Row], drawn: dict[Page, bytes], seed: str) -> Dataset:
    rng = random.Random(seed)
    cells: dict[str, list] = {"query": [write_query(row[0], rng) for row in rows]}
    for column, pages in zip(PAGES, zip(*rows, strict=True), strict=True):
        cells[column] = [{"bytes": drawn[page], "path": None} for page in pages]
    return Dataset.from_dict(cells, features=Features({"query": Value("string")} | dict.fromkeys(PAGES, Image())))
