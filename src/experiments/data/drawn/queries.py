"""Queries that ask for a drawn report page, in five languages; each states all five attributes of the page."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from experiments.config.fits import VDR_LANGUAGES
from experiments.data.drawn.page import ATTRIBUTES, Page


class Language(NamedTuple):
    """How a language says what is on a page: the values of `ATTRIBUTES` in their order, and sentences around them."""

    division: Sequence[str]
    quarter: Sequence[str]
    chart: Sequence[str]
    color: Sequence[str]
    layout: Sequence[str]
    wordings: Sequence[str]


_LANGUAGES = (  # in the order of `VDR_LANGUAGES`
    Language(
        **ATTRIBUTES,
        wordings=(
            "the {division} {quarter} report with a {color} {chart} {layout}",
            "a {color} {chart} {layout}, {division} {quarter}",
            "find {quarter} {division}, {layout} a {color} {chart}",
            "show a {chart} in {color} {layout} from {division}, {quarter}",
            "which {division} page has a {color} {chart} {layout} for {quarter}",
        ),
    ),
    Language(
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
    Language(
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
    Language(
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
    Language(
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
)
LANGUAGES = dict(zip(VDR_LANGUAGES, _LANGUAGES, strict=True))


def write_query(page: Page, rng: random.Random, language: str = "en") -> str:
    """Return one wording of a query that states every attribute of the page."""
    words = LANGUAGES[language]
    values = {name: getattr(words, name)[ATTRIBUTES[name].index(value)] for name, value in page._asdict().items()}
    return rng.choice(words.wordings).format(**values)
