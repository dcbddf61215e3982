"""Drawn report pages: which pages there are, the queries that ask for them, and their cache on disk.

A page is one value of each of five attributes. A query states all five in words, and each hard negative of a page
differs from it in exactly one, so that only a model that has learnt that attribute ranks the right page first.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import logging
import math
import random
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict, Features, Image, Value, load_from_disk
from tqdm.auto import tqdm

from experiments.config.bounds import NotNegative, Positive
from experiments.config.errors import ConfigError
from experiments.data import from_rows
from experiments.data.drawn import drawing
from experiments.data.drawn.drawing import CHARTS, COLORS, DIVISIONS, LAYOUTS, QUARTERS, Page, draw_page
from experiments.data.encoded_pages import HashedRows, content_id
from experiments.data.types import ONE_DIRECTION, Data
from experiments.runs.files import write_once

logger = logging.getLogger(__name__)

NAME = "report-pages"
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "division": tuple(DIVISIONS),
    "quarter": QUARTERS,
    "chart": tuple(CHARTS),
    "color": tuple(COLORS),
    "layout": LAYOUTS,
}
NEGATIVES = ("negative_0", "negative_1", "negative_2", "negative_3")
COLUMNS = {"query": "query", "positive": "image", "negatives": list(NEGATIVES)}
WORDINGS = (
    "the {division} {quarter} report with a {color} {chart} {layout}",
    "a {color} {chart} {layout}, {division} {quarter}",
    "find {quarter} {division}, {layout} a {color} {chart}",
    "show a {chart} in {color} {layout} from {division}, {quarter}",
    "which {division} page has a {color} {chart} {layout} for {quarter}",
)

Row = list[Page]  # the page a query asks for, then its four hard negatives


def load(
    num_train_rows: Positive = 1024,
    num_eval_rows: Positive = 100,
    num_negatives: NotNegative = 1,
    seed: NotNegative = 0,
    cache_dir: str = "outputs/.cache",
    page_size: Sequence[int] = (128, 128),
) -> Data:
    """Return drawn report pages, from the cache if they were drawn before.

    Args:
        num_train_rows: Training rows.
        num_eval_rows: Evaluation queries, each with five pages of its own in the corpus.
        num_negatives: Hard negatives in a training row, 0 to 4.
        seed: Of the choice of pages, the wording of the queries, and the figures on the pages.
        cache_dir: Folder of the cache; the pages of one set of arguments are drawn once.
        page_size: Width and height of a page in pixels.

    Raises:
        ConfigError: If there are not enough combinations of attributes, or a number is out of range.
    """
    _check(num_train_rows, num_eval_rows, num_negatives, page_size)
    width, height = page_size
    train_rows, eval_rows = choose_rows(num_train_rows, num_eval_rows, seed)
    folder = Path(cache_dir).expanduser() / (
        f"report_pages-{version()}-{num_train_rows}-{num_eval_rows}-{width}x{height}-seed{seed}"
    )
    if not folder.exists():
        build(folder, train_rows, eval_rows, (width, height), seed)
    pages = load_from_disk(str(folder))
    data = from_rows.build(
        pages["train"],
        pages["eval"],
        columns=COLUMNS,
        name=NAME,
        num_negatives=num_negatives,
        deduplicate=True,
        on_bad_image="error",
    )
    assert isinstance(data.eval, HashedRows)
    direction = replace(data.direction, attribute_negatives=_attribute_negatives(data.eval.hashes))
    return replace(data, directions={ONE_DIRECTION: direction})


def choose_rows(num_train_rows: int, num_eval_rows: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Choose each row's page and negatives; no page of an evaluation row is in a training row.

    Pages are taken in the order of a hash. The evaluation takes the first, with neighbours as negatives, all
    distinct; training takes the others, each once until all have been taken.

    Returns:
        The training rows and the evaluation rows. Negative k of row i differs from its page in attribute
        (i + k + 1) modulo 5 alone.
    """
    pages = all_pages(seed)
    eval_rows: list[Row] = []
    held_out: set[Page] = set()
    for page in pages:
        if len(eval_rows) == num_eval_rows:
            break
        if row := _row(page, len(eval_rows), seed, excluded=held_out):
            eval_rows.append(row)
            held_out.update(row)
    train_rows: list[Row] = []
    for page in itertools.cycle(pages):
        if len(train_rows) == num_train_rows:
            break
        if row := _row(page, len(train_rows), seed, excluded=held_out):
            train_rows.append(row)
    return train_rows, eval_rows


def all_pages(seed: int) -> list[Page]:
    """Return the page of every combination of attributes, in the order of a hash."""
    pages = [Page(*values) for values in itertools.product(*ATTRIBUTES.values())]
    return sorted(pages, key=lambda page: hashlib.sha256(f"{seed}/{'/'.join(page)}".encode()).digest())


def differing_attribute(row: int, negative: int) -> str:
    """Return the attribute in which a row's negative differs; each is skipped by a fifth of the rows."""
    return list(ATTRIBUTES)[(row + negative + 1) % len(ATTRIBUTES)]


def _row(page: Page, i: int, seed: int, excluded: Collection[Page]) -> Row | None:
    """Return row i for a page, None if it or all its neighbours in one attribute are excluded."""
    rng = random.Random(f"{seed}/{i}/{'/'.join(page)}")
    row = [page]
    for k in range(len(NEGATIVES)):
        attribute = differing_attribute(i, k)
        neighbours = [page._replace(**{attribute: value}) for value in ATTRIBUTES[attribute]]
        free = [neighbour for neighbour in neighbours if neighbour != page and neighbour not in excluded]
        if page in excluded or not free:
            return None
        row.append(rng.choice(free))
    return row


def write_query(page: Page, rng: random.Random) -> str:
    """Return one wording of a query that states every attribute of the page."""
    return rng.choice(WORDINGS).format(**page._asdict())


def version() -> str:
    """Return a hash of what decides the pages and the queries, this file and the drawing: no cache outlives either."""
    sources = (Path(__file__), Path(drawing.__file__))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:8]


def _check(num_train_rows: int, num_eval_rows: int, num_negatives: int, page_size: Sequence[int]) -> None:
    # A quarter of all combinations at most is held out: enough neighbours are left on either side.
    most = math.prod(map(len, ATTRIBUTES.values())) // 4 // (1 + len(NEGATIVES))
    for key, value, low, high in (
        ("num_train_rows", num_train_rows, 1, 10**6),
        ("num_eval_rows", num_eval_rows, 1, most),
        ("num_negatives", num_negatives, 0, len(NEGATIVES)),
    ):
        if not low <= value <= high:
            raise ConfigError(f"data.{key}={value}: type a number from {low} to {high}")
    check_page_size(page_size, "data.page_size")


def check_page_size(page_size: Sequence[int], key: str) -> None:
    """Refuse what is no width and height of a page, or too small or large to draw.

    Raises:
        ConfigError: It says what to type instead, for this key.
    """
    if len(page_size) != 2 or not all(32 <= side <= 4096 for side in page_size):
        raise ConfigError(f"{key}={list(page_size)}: type width and height, 32 to 4096 pixels each, as in [850,1100]")


def build(folder: Path, train_rows: list[Row], eval_rows: list[Row], size: tuple[int, int], seed: int) -> None:
    """Draw each page once and write both data sets, complete or not at all."""
    wanted = dict.fromkeys(itertools.chain.from_iterable(train_rows + eval_rows))
    progress = tqdm(wanted, desc="Drawing report pages", unit="page", mininterval=0.5)
    drawn = {page: draw_png(page, size, seed) for page in progress}
    parts = {"train": train_rows, "eval": eval_rows}
    data = DatasetDict({name: _dataset(rows, drawn, f"{seed}/{name}") for name, rows in parts.items()})
    write_once(folder, lambda scratch: data.save_to_disk(str(scratch)))


def draw_png(page: Page, size: tuple[int, int], seed: int) -> bytes:
    """Return a drawn page as a PNG; see `draw_page`."""
    buffer = io.BytesIO()
    draw_page(page, size, seed).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def _dataset(rows: list[Row], drawn: dict[Page, bytes], seed: str) -> Dataset:
    rng = random.Random(seed)
    columns: dict[str, list] = {"query": [write_query(row[0], rng) for row in rows]}
    for k, column in enumerate(("image", *NEGATIVES)):
        columns[column] = [{"bytes": drawn[row[k]], "path": None} for row in rows]
    features = {"query": Value("string")} | {column: Image() for column in ("image", *NEGATIVES)}
    return Dataset.from_dict(columns, features=Features(features))


def _attribute_negatives(contents: dict[str, np.ndarray]) -> dict[str, dict[str, str]]:
    """Return for each query the corpus id of the page that differs in each attribute."""
    negatives: dict[str, dict[str, str]] = defaultdict(dict)
    for k, column in enumerate(NEGATIVES):
        for i, content in enumerate(contents[column].tolist()):
            negatives[f"q{i:04d}"][differing_attribute(i, k)] = content_id(content)
    return dict(negatives)
