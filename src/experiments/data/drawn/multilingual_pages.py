"""The offline twin of the multilingual source set: drawn report pages, queries in five languages, negatives by ids.

What is written is a copy of the repository in all that `multilingual.load` reads: a configuration for each language,
Parquet files of pages as PNG with their ids, and 16 hard negatives a query, given by their ids, the nearest first.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image, List, Value
from tqdm.auto import tqdm

from experiments.config.bounds import NotNegative
from experiments.data.drawn import report_pages
from experiments.data.drawn.drawing import Page
from experiments.data.drawn.report_pages import ATTRIBUTES, Row, all_pages, check_page_size, choose_rows, draw_png
from experiments.runs.files import write_once

NUM_TRAIN_QUERIES = 1500  # with those of the evaluation a little more than half of the pages, as in the source
NUM_EVAL_QUERIES = 100
NUM_NEGATIVES = 16
NUM_FILES = 2  # of a language
ROWS_AT_ONCE = 100  # in a row group: what is read for one page

TEXT = Value("string")
FEATURES = Features({"id": TEXT, "query": TEXT, "image": Image(), "negatives": List(TEXT), "language": TEXT})


class Language(NamedTuple):
    """How a language says what is on a page: the values of `ATTRIBUTES` in their order, and sentences around them."""

    division: Sequence[str]
    quarter: Sequence[str]
    chart: Sequence[str]
    color: Sequence[str]
    layout: Sequence[str]
    wordings: Sequence[str]

    def write_query(self, page: Page, rng: random.Random) -> str:
        """Return one wording of a query that states every attribute of the page."""
        values = {
            attribute: getattr(self, attribute)[ATTRIBUTES[attribute].index(value)]
            for attribute, value in page._asdict().items()
        }
        return rng.choice(self.wordings).format(**values)


LANGUAGES = {
    "en": Language(**ATTRIBUTES, wordings=report_pages.WORDINGS),
    "es": Language(
        ("energía", "salud", "comercio", "finanzas", "transporte", "software"),
        ("primer trimestre", "segundo trimestre", "tercer trimestre", "cuarto trimestre"),
        ("gráfico de barras", "gráfico de líneas", "gráfico circular", "diagrama de dispersión", "cuadro"),
        ("azul", "rojo", "verde", "amarillo", "morado", "rosa"),
        ("arriba", "abajo", "a la izquierda", "a la derecha"),
        (
            "informe de {division} del {quarter} con un {chart} en {color} {layout}",
            "un {chart} en {color} {layout}, {division}, {quarter}",
            "busca {division}, {quarter}: {layout} un {chart} en {color}",
            "muestra un {chart} de color {color} {layout}, de {division} y del {quarter}",
            "¿qué página de {division} tiene {layout} un {chart} en {color} en el {quarter}?",
        ),
    ),
    "it": Language(
        ("energia", "sanità", "commercio", "finanza", "trasporti", "software"),
        ("primo trimestre", "secondo trimestre", "terzo trimestre", "quarto trimestre"),
        ("grafico a barre", "grafico a linee", "grafico a torta", "grafico a dispersione", "prospetto"),
        ("blu", "rosso", "verde", "giallo", "viola", "rosa"),
        ("in alto", "in basso", "a sinistra", "a destra"),
        (
            "rapporto {division} del {quarter} con un {chart} in {color} {layout}",
            "un {chart} in {color} {layout}, {division}, {quarter}",
            "cerca {division}, {quarter}: {layout} un {chart} in {color}",
            "mostra un {chart} di colore {color} {layout}, da {division}, {quarter}",
            "quale pagina di {division} ha {layout} un {chart} in {color} nel {quarter}?",
        ),
    ),
    "de": Language(
        ("Energie", "Gesundheit", "Handel", "Finanzen", "Verkehr", "Software"),
        ("ersten Quartal", "zweiten Quartal", "dritten Quartal", "vierten Quartal"),
        ("Balkendiagramm", "Liniendiagramm", "Kreisdiagramm", "Streudiagramm", "Tabellenblatt"),
        ("Blau", "Rot", "Grün", "Gelb", "Violett", "Rosa"),
        ("oben", "unten", "links", "rechts"),
        (
            "Bericht {division} vom {quarter} mit einem {chart} in {color} {layout}",
            "{layout} ein {chart} in {color}, {division} im {quarter}",
            "finde {division} im {quarter}, {layout} ein {chart} in {color}",
            "zeige ein {chart} in {color} {layout} aus {division}, im {quarter}",
            "welche Seite von {division} hat im {quarter} {layout} ein {chart} in {color}?",
        ),
    ),
    "fr": Language(
        ("énergie", "santé", "commerce", "finances", "transports", "logiciels"),
        ("premier trimestre", "deuxième trimestre", "troisième trimestre", "quatrième trimestre"),
        ("graphique à barres", "graphique linéaire", "camembert", "nuage de points", "tableau"),
        ("bleu", "rouge", "vert", "jaune", "violet", "rose"),
        ("en haut", "en bas", "à gauche", "à droite"),
        (
            "rapport {division} du {quarter} avec un {chart} en {color} {layout}",
            "un {chart} en {color} {layout}, {division}, {quarter}",
            "trouve {division}, {quarter} : {layout} un {chart} en {color}",
            "montre un {chart} de couleur {color} {layout}, {division}, au {quarter}",
            "quelle page {division} a {layout} un {chart} en {color} au {quarter} ?",
        ),
    ),
}


def source_set(seed: NotNegative = 0, cache_dir: str = "outputs/.cache", page_size: Sequence[int] = (128, 128)) -> str:
    """Return the folder of the data set, which is written first unless it is there.

    In each language every page is one row, and a little more than half of them have a query. The last of these with
    their first four hard negatives (one attribute differs) are what `data=report_pages` evaluates on: their
    combinations of attributes occur in no other row that has a query, nor among its hard negatives.

    Args:
        seed: Of the choice of pages, the wording of the queries, and the figures on the pages.
        cache_dir: Where the folder is kept; the pages of one set of arguments are drawn once.
        page_size: Width and height of a page in pixels.

    Raises:
        ConfigError: If the size is out of range.
    """
    check_page_size(page_size, "data.path.page_size")
    width, height = page_size
    sources = (Path(__file__).read_bytes(), report_pages.version().encode())
    version = hashlib.sha256(b"".join(sources)).hexdigest()[:8]  # no cache outlives what made it
    folder = Path(cache_dir).expanduser() / f"multilingual_pages-{version}-{width}x{height}-seed{seed}"
    if not folder.exists():
        write_once(folder, lambda scratch: _write(scratch, (width, height), seed))
    return str(folder)


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


def _write(folder: Path, page_size: tuple[int, int], seed: int) -> None:
    rows = rows_of(seed)
    progress = tqdm([row[0] for row in rows], desc="Drawing report pages", unit="page", mininterval=0.5)
    drawn = {page: draw_png(page, page_size, seed) for page in progress}
    for language in LANGUAGES:
        rng = random.Random(f"{seed}/{language}")
        dataset = Dataset.from_list([_row(row, language, drawn, rng) for row in rows], features=FEATURES)
        (folder / language).mkdir(parents=True)
        for number in range(NUM_FILES):
            file = folder / language / f"train-{number:05d}-of-{NUM_FILES:05d}.parquet"
            table = dataset.shard(NUM_FILES, number).with_format("arrow")[:]
            pq.write_table(table, file, row_group_size=ROWS_AT_ONCE)
    configs = "".join(
        f"- config_name: {language}\n  data_files:\n  - split: train\n    path: {language}/train-*\n"
        for language in LANGUAGES
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")


def _row(row: Row, language: str, drawn: dict[Page, bytes], rng: random.Random) -> dict[str, Any]:
    page, *negatives = row
    return {
        "id": _id(page, language),
        "query": LANGUAGES[language].write_query(page, rng) if negatives else None,
        "image": {"bytes": drawn[page], "path": None},
        "negatives": [_id(negative, language) for negative in negatives],
        "language": language,
    }


def _id(page: Page, language: str) -> str:
    """Return the id of a page, which tells nothing of what is on it."""
    return hashlib.sha256(f"{language}/{'/'.join(page)}".encode()).hexdigest()[:32]
