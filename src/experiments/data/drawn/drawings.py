"""Drawings with captions: the offline twin of the doodles, made from the seed and cached on disk.

A drawing is one value of each of three attributes, drawn with a shaky hand. A caption states all three in one of
several wordings. No combination of attributes that is evaluated is ever trained on.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

from annotated_types import Interval
from datasets import Dataset, DatasetDict, Features, Image, Value, load_from_disk
from PIL import Image as PillowImage
from PIL import ImageDraw

from experiments.config.bounds import NotNegative
from experiments.data import pairs
from experiments.data.drawn.sets import combinations, drawn_once
from experiments.data.types import Data

NAME = "drawings"
SIZE = 64  # pixels, both sides
COLORS = {
    "red": (200, 30, 40),
    "green": (30, 140, 60),
    "blue": (30, 80, 200),
    "brown": (150, 95, 45),
    "purple": (130, 50, 170),
    "black": (20, 20, 20),
}
PAPERS = {"white": (255, 255, 255), "yellow": (255, 240, 150), "pink": (255, 205, 220), "grey": (185, 190, 195)}
WORDINGS = (
    "a {color} {subject} on {paper} paper",
    "{paper} paper with a {color} {subject}",
    "doodle of a {subject} in {color}, {paper} background",
    "someone drew a {color} {subject}, the background is {paper}",
)

Point = tuple[float, float]  # in the square from (-1, -1) to (1, 1), y downwards


class Drawing(NamedTuple):
    """What a drawing shows: one value of each attribute."""

    subject: str
    color: str
    paper: str


def _round(x: float, y: float, rx: float, ry: float, start: float = 0, end: float = 2, steps: int = 24) -> list[Point]:
    """Return points of an ellipse's arc; angles in multiples of pi, clockwise from the right."""
    angles = [math.pi * (start + (end - start) * i / steps) for i in range(steps + 1)]
    return [(x + rx * math.cos(angle), y + ry * math.sin(angle)) for angle in angles]


def _star() -> list[Point]:
    corners = [(0.95 if i % 2 == 0 else 0.38, math.pi * (i / 5 - 0.5)) for i in range(11)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for radius, angle in corners]


# Subject -> its lines. The first is filled.
SUBJECTS: dict[str, list[list[Point]]] = {
    "ball": [_round(0, 0, 0.85, 0.85)],
    "box": [[(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8), (-0.8, -0.8)]],
    "star": [_star()],
    "moon": [_round(0, 0, 0.9, 0.9, 0.35, 1.65) + _round(0.35, 0, 0.55, 0.75, 1.7, 0.3)],
    "house": [
        [(-0.7, -0.1), (-0.7, 0.9), (0.7, 0.9), (0.7, -0.1), (0.95, -0.1), (0, -0.95), (-0.95, -0.1), (-0.7, -0.1)]
    ],
    "fish": [_round(-0.15, 0, 0.7, 0.45) + [(0.55, 0), (0.95, -0.5), (0.95, 0.5), (0.55, 0)]],
    "tree": [_round(0, -0.35, 0.65, 0.6), [(-0.12, 0.2), (-0.12, 0.95), (0.12, 0.95), (0.12, 0.2)]],
    "cat": [
        [(-0.8, -0.9), (-0.3, -0.45), (0.3, -0.45), (0.8, -0.9), *_round(0, 0.15, 0.8, 0.75, -0.2, 1.2)],
        [(-0.9, 0.2), (0.9, 0.4)],
        [(-0.9, 0.4), (0.9, 0.2)],
    ],
}
ATTRIBUTES = dict(zip(Drawing._fields, (tuple(SUBJECTS), tuple(COLORS), tuple(PAPERS)), strict=True))


def load(
    num_train_rows: Annotated[int, Interval(ge=2, le=1_000_000)] = 512,
    num_eval_rows: Annotated[int, Interval(ge=2, le=48)] = 40,  # a quarter of all combinations at most is held out
    num_negatives: NotNegative = 4,
    seed: NotNegative = 0,
    cache_dir: str = "outputs/.cache",
    labelled: bool = True,
) -> Data:
    """Return drawings and captions in both directions, from the cache if they were drawn before.

    Args:
        num_train_rows: Captioned drawings to train on, each with its negatives in both directions.
        num_eval_rows: Captioned drawings to evaluate on, in both directions.
        num_negatives: Documents that don't match, sampled for each row.
        seed: Of the choice of combinations, the wordings, the shaking hand and the sampling.
        cache_dir: Folder of the cache; the drawings of one set of arguments are drawn once.
        labelled: Whether rows are pairs with labels, for rerankers, see `pairs.build`.
    """
    rows = captioned(num_train_rows, num_eval_rows, seed, cache_dir)
    parts = rows["train"], rows["eval"]
    return pairs.build(*parts, "image", "text", NAME, num_negatives=num_negatives, seed=seed, labelled=labelled)


def captioned(num_train_rows: int, num_eval_rows: int, seed: int, cache_dir: str) -> DatasetDict:
    """Return the rows before they become pairs: `train` and `eval`, each with columns image and text; see `load`."""

    def draw_all(folder: Path) -> None:
        parts = zip(("train", "eval"), choose(num_train_rows, num_eval_rows, seed), strict=True)
        DatasetDict({name: _rows(chosen, f"{seed}/{name}") for name, chosen in parts}).save_to_disk(str(folder))

    return load_from_disk(drawn_once(cache_dir, "drawings", f"{num_train_rows}-{num_eval_rows}-seed{seed}", draw_all))


def choose(num_train_rows: int, num_eval_rows: int, seed: int) -> tuple[list[Drawing], list[Drawing]]:
    """Choose what is drawn for training and for the evaluation; no combination is in both.

    Returns:
        Training drawings, where combinations recur once all have been taken, and evaluation drawings, all different.
    """
    drawings = combinations(Drawing, ATTRIBUTES.values(), seed)
    train = itertools.islice(itertools.cycle(drawings[num_eval_rows:]), num_train_rows)
    return [*train], drawings[:num_eval_rows]


def draw(drawing: Drawing, rng: random.Random) -> PillowImage.Image:
    """Draw with a shaky hand: place, size, slant and every point of a line vary."""
    canvas = PillowImage.new("RGB", (2 * SIZE, 2 * SIZE), PAPERS[drawing.paper])
    pen = ImageDraw.Draw(canvas)
    radius = SIZE * rng.uniform(0.6, 0.8)
    x, y, slant = (SIZE * rng.uniform(0.85, 1.15), SIZE * rng.uniform(0.85, 1.15), rng.uniform(-0.25, 0.25))

    def place(point: Point) -> Point:
        along = point[0] * math.cos(slant) - point[1] * math.sin(slant)
        down = point[0] * math.sin(slant) + point[1] * math.cos(slant)
        return x + radius * along + rng.gauss(0, 1), y + radius * down + rng.gauss(0, 1)

    for number, line in enumerate(SUBJECTS[drawing.subject]):
        points = [place(point) for point in line]
        if number == 0:
            pen.polygon(points, fill=COLORS[drawing.color])
        pen.line(points, fill=(40, 40, 40) if number else COLORS[drawing.color], width=5, joint="curve")
    return canvas.reduce(2)


def _rows(drawings: Sequence[Drawing], seed: str) -> Dataset:
    rng = random.Random(seed)
    images, texts = [], []
    for drawing in drawings:
        images.append(draw(drawing, rng))
        texts.append(rng.choice(WORDINGS).format(**drawing._asdict()))
    return Dataset.from_dict({"image": images, "text": texts}, features=Features(image=Image(), text=Value("string")))
