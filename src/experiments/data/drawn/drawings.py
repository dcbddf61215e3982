"""Drawings with captions: the offline twin of the doodles, made from the seed and cached on disk.

A drawing is one value of each of three attributes, drawn with a shaky hand. A caption states all three in one of
several wordings. No combination of attributes that is evaluated is ever trained on.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset, DatasetDict, Features, Image, Value, load_from_disk
from PIL import Image as PillowImage
from PIL import ImageDraw

from experiments.config.bounds import NotNegative, Positive
from experiments.config.errors import ConfigError
from experiments.data import pairs
from experiments.data.types import Data
from experiments.runs.files import write_once

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
PAPERS = {
    "white": (255, 255, 255),
    "yellow": (255, 240, 150),
    "pink": (255, 205, 220),
    "grey": (185, 190, 195),
}
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
    "tree": [
        _round(0, -0.35, 0.65, 0.6),
        [(-0.12, 0.2), (-0.12, 0.95), (0.12, 0.95), (0.12, 0.2)],
    ],
    "cat": [
        [(-0.8, -0.9), (-0.3, -0.45), (0.3, -0.45), (0.8, -0.9), *_round(0, 0.15, 0.8, 0.75, -0.2, 1.2)],
        [(-0.9, 0.2), (0.9, 0.4)],
        [(-0.9, 0.4), (0.9, 0.2)],
    ],
}
ATTRIBUTES: dict[str, Sequence[str]] = {
    "subject": tuple(SUBJECTS),
    "color": tuple(COLORS),
    "paper": tuple(PAPERS),
}


def load(
    num_train_rows: Positive = 512,
    num_eval_rows: Positive = 40,
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
        labelled: See `pairs.build`.

    Raises:
        ConfigError: If a number is out of range.
    """
    rows = captioned(num_train_rows, num_eval_rows, seed, cache_dir)
    return pairs.build(
        rows["train"],
        rows["eval"],
        image="image",
        text="text",
        name=NAME,
        num_negatives=num_negatives,
        seed=seed,
        labelled=labelled,
    )


def captioned(num_train_rows: int, num_eval_rows: int, seed: int, cache_dir: str) -> DatasetDict:
    """Return the rows before they become pairs: `train` and `eval`, each with columns image and text; see `load`."""
    _check(num_train_rows, num_eval_rows)
    train, eval = choose(num_train_rows, num_eval_rows, seed)
    version = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]  # no cache outlives what made it
    folder = Path(cache_dir).expanduser() / f"drawings-{version}-{num_train_rows}-{num_eval_rows}-seed{seed}"
    if not folder.exists():
        rows = {"train": _rows(train, f"{seed}/train"), "eval": _rows(eval, f"{seed}/eval")}
        write_once(folder, lambda scratch: DatasetDict(rows).save_to_disk(str(scratch)))
    return load_from_disk(str(folder))


def choose(num_train_rows: int, num_eval_rows: int, seed: int) -> tuple[list[Drawing], list[Drawing]]:
    """Choose what is drawn for training and for the evaluation; no combination is in both.

    Returns:
        Training drawings, where combinations recur once all have been taken, and evaluation drawings, all different.
    """
    drawings = [Drawing(*values) for values in itertools.product(*ATTRIBUTES.values())]
    drawings.sort(key=lambda drawing: hashlib.sha256(f"{seed}/{'/'.join(drawing)}".encode()).digest())
    eval, rest = drawings[:num_eval_rows], drawings[num_eval_rows:]
    return list(itertools.islice(itertools.cycle(rest), num_train_rows)), eval


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
        buffer = io.BytesIO()
        draw(drawing, rng).save(buffer, format="PNG")
        images.append({"bytes": buffer.getvalue(), "path": None})
        texts.append(rng.choice(WORDINGS).format(**drawing._asdict()))
    return Dataset.from_dict({"image": images, "text": texts}, features=Features(image=Image(), text=Value("string")))


def _check(num_train_rows: int, num_eval_rows: int) -> None:
    most = math.prod(map(len, ATTRIBUTES.values())) // 4  # a quarter of all combinations at most is held out
    for key, value, high in (("num_train_rows", num_train_rows, 10**6), ("num_eval_rows", num_eval_rows, most)):
        if not 2 <= value <= high:
            raise ConfigError(f"data.{key}={value}: type a number from 2 to {high}")
