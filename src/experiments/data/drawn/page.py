"""Draw one report page with Pillow from five attributes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, NamedTuple

from annotated_types import Interval
from PIL import Image, ImageDraw, ImageFont

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
Color = tuple[int, int, int]

INK = (38, 44, 54)
GREY = (168, 174, 184)
PALE = (228, 231, 236)
PANEL = (72, 88, 112)
WHITE = (255, 255, 255)

WORDS = (
    "revenue margin growth demand orders volume costs outlook segment market shares supply price units "
    "customers region contract energy profit capital"
).split()


class Page(NamedTuple):
    """What a page shows: one value of each attribute."""

    division: str
    quarter: str
    chart: str
    color: str
    layout: str


Shape = tuple[tuple[float, float], ...]  # a polygon in the square from (-1, -1) to (1, 1), y downwards

_CIRCLE: Shape = tuple((math.cos(math.pi * i / 16), math.sin(math.pi * i / 16)) for i in range(32))
_CROSS: Shape = (
    (-0.35, -1), (0.35, -1), (0.35, -0.35), (1, -0.35), (1, 0.35), (0.35, 0.35),
    (0.35, 1), (-0.35, 1), (-0.35, 0.35), (-1, 0.35), (-1, -0.35), (-0.35, -0.35),
)  # fmt: skip
_BOLT: Shape = ((0.3, -1), (-0.7, 0.2), (-0.1, 0.2), (-0.3, 1), (0.7, -0.25), (0.1, -0.25))
_BAG: Shape = ((-0.75, -0.6), (0.75, -0.6), (1, 1), (-1, 1))
_ARROW: Shape = ((-1, -0.4), (0.1, -0.4), (0.1, -1), (1, 0), (0.1, 1), (0.1, 0.4), (-1, 0.4))
_DIAMOND: Shape = ((0, -1), (1, 0), (0, 1), (-1, 0))

# Division -> its logo and the colour of its header.
DIVISIONS: dict[str, tuple[Shape, Color]] = {
    "energy": (_BOLT, (28, 45, 84)),
    "health": (_CROSS, (28, 45, 84)),
    "retail": (_BAG, (104, 30, 52)),
    "finance": (_CIRCLE, (104, 30, 52)),
    "transport": (_ARROW, (70, 70, 74)),
    "software": (_DIAMOND, (70, 70, 74)),
}
QUARTERS = ("first quarter", "second quarter", "third quarter", "fourth quarter")
COLORS: dict[str, Color] = {
    "blue": (41, 105, 214),
    "red": (208, 38, 44),
    "green": (44, 148, 62),
    "yellow": (242, 190, 24),
    "purple": (128, 60, 170),
    "pink": (240, 120, 190),
}
LAYOUTS = ("at the top", "at the bottom", "on the left", "on the right")  # where the chart stands
PageSize = tuple[Annotated[int, Interval(ge=32, le=4096)], Annotated[int, Interval(ge=32, le=4096)]]


def draw_page(page: Page, size: PageSize = (128, 128), seed: int = 0) -> Image.Image:
    """Draw a report page: header, quarter tabs, a chart or table, and text.

    The same arguments give the same pixels.

    Args:
        page: One value of each attribute; the rest (the figures, the words) follows from the page and `seed`.
        size: Width and height in pixels.
        seed: Another seed draws other figures and words.
    """
    rng = random.Random(f"{seed}/{'/'.join(page)}")
    scale = 2 if min(size) < 512 else 1  # small pages are drawn larger and reduced, for smooth edges
    width, height = size[0] * scale, size[1] * scale
    canvas = Image.new("RGB", (width, height), WHITE)
    draw = ImageDraw.Draw(canvas)
    margin = 0.035 * width
    _header(draw, (0, 0, width, 0.2 * height), page.division)
    # The chart's colour once more, where it always stands: under the header.
    draw.rectangle((0, 0.2 * height, width, 0.25 * height), fill=COLORS[page.color])
    # At 128 pixels the tabs fill one row of patches, two patches each.
    _tabs(draw, (0, 0.25 * height, width, 0.375 * height), QUARTERS.index(page.quarter))
    chart, text = _split((margin, 0.41 * height, width - margin, height - margin), page.layout, margin)
    CHARTS[page.chart](draw, chart, COLORS[page.color], rng)
    draw.rectangle(text, fill=PANEL)
    pad = margin / 2
    _text(draw, (text[0] + pad, text[1] + pad, text[2] - pad, text[3] - pad), 0.033 * height, rng)
    return canvas.reduce(scale) if scale > 1 else canvas


@lru_cache(maxsize=4096)
def _glyphs(text: str, size: int) -> Image.Image:
    """Return the rendered text as a mask; words recur on every page, and rendering is what drawing costs."""
    font = ImageFont.load_default(max(size, 4))
    _, _, right, _ = font.getbbox(text, anchor="ls")
    mask = Image.new("L", (math.ceil(right), math.ceil(1.25 * size)), 0)
    ImageDraw.Draw(mask).text((0, size), text, font=font, fill=255, anchor="ls")
    return mask


def _write(
    draw: ImageDraw.ImageDraw, x: float, y: float, text: str, size: float, fill: Color, centered: bool = False
) -> int:
    """Write text whose middle left, or middle, is at (x, y); return its width."""
    mask = _glyphs(text, round(size))
    left = x - mask.width / 2 if centered else x
    draw.bitmap((round(left), round(y - 0.65 * size)), mask, fill=fill)
    return mask.width


def _header(draw: ImageDraw.ImageDraw, box: Box, division: str) -> None:
    left, top, right, bottom = box
    logo, color = DIVISIONS[division]
    draw.rectangle(box, fill=color)
    radius = 0.4 * (bottom - top)
    x, y = left + 1.4 * radius, (top + bottom) / 2
    draw.polygon([(x + radius * dx, y + radius * dy) for dx, dy in logo], fill=WHITE)
    size = min(0.56 * (bottom - top), 0.13 * (right - left))
    _write(draw, x + 1.5 * radius, y, division.capitalize(), size, WHITE)


def _tabs(draw: ImageDraw.ImageDraw, box: Box, active: int) -> None:
    left, top, right, bottom = box
    step = (right - left) / 4
    for i in range(4):
        start, end = left + i * step, left + (i + 0.97) * step
        fill, ink = (INK, WHITE) if i <= active else (PALE, GREY)
        draw.rectangle((start, top, end, bottom), fill=fill)
        _write(draw, (start + end) / 2, (top + bottom) / 2, f"Q{i + 1}", 0.7 * (bottom - top), ink, centered=True)


def _split(box: Box, layout: str, gap: float) -> tuple[Box, Box]:
    """Return the boxes of the chart and of the text."""
    left, top, right, bottom = box
    width, height = 0.72 * (right - left), 0.72 * (bottom - top)  # of the chart, the one or the other
    return {
        "at the top": ((left, top, right, top + height), (left, top + height + gap, right, bottom)),
        "at the bottom": ((left, bottom - height, right, bottom), (left, top, right, bottom - height - gap)),
        "on the left": ((left, top, left + width, bottom), (left + width + gap, top, right, bottom)),
        "on the right": ((right - width, top, right, bottom), (left, top, right - width - gap, bottom)),
    }[layout]


def _text(draw: ImageDraw.ImageDraw, box: Box, size: float, rng: random.Random) -> None:
    left, top, right, bottom = box
    y = top + size / 2
    while y + size / 2 <= bottom:
        x, word = left, rng.choice(WORDS).capitalize()
        while x == left or x + _glyphs(word, round(size)).width <= right:
            x += _write(draw, x, y, word, size, WHITE) + 0.3 * size
            word = rng.choice(WORDS)
        y += 1.5 * size


def _axes(draw: ImageDraw.ImageDraw, box: Box) -> tuple[Box, int]:
    """Draw axes and grid lines; return the box between them and the width of a line."""
    left, top, right, bottom = box
    stroke = max(round(0.02 * min(right - left, bottom - top)), 1)
    for i in range(4):
        y = top + i * (bottom - top) / 4
        draw.line((left, y, right, y), fill=PALE, width=stroke)
    draw.line((left, top, left, bottom, right, bottom), fill=GREY, width=stroke)
    return (left + 2 * stroke, top, right, bottom - stroke), stroke


def _bar(draw: ImageDraw.ImageDraw, box: Box, color: Color, rng: random.Random) -> None:
    (left, top, right, bottom), _ = _axes(draw, box)
    num_bars = rng.randint(4, 6)
    step = (right - left) / num_bars
    for i in range(num_bars):
        y = bottom - rng.uniform(0.45, 1.0) * (bottom - top)
        draw.rectangle((left + (i + 0.15) * step, y, left + (i + 0.85) * step, bottom), fill=color)


def _line(draw: ImageDraw.ImageDraw, box: Box, color: Color, rng: random.Random) -> None:
    (left, top, right, bottom), stroke = _axes(draw, box)
    width, height, num_steps = right - left, bottom - top, rng.randint(5, 7) - 1
    points = [(left + i * width / num_steps, bottom - rng.uniform(0.25, 0.95) * height) for i in range(num_steps + 1)]
    draw.line(points, fill=color, width=5 * stroke, joint="curve")


def _pie(draw: ImageDraw.ImageDraw, box: Box, color: Color, rng: random.Random) -> None:
    left, top, right, bottom = box
    x, y, radius = (left + right) / 2, (top + bottom) / 2, min(right - left, bottom - top) / 2
    circle = (x - radius, y - radius, x + radius, y + radius)
    cuts = [-90.0, rng.uniform(10, 70), rng.uniform(120, 180), rng.uniform(200, 250)]
    stroke = max(round(0.05 * radius), 1)
    for i, light in enumerate((0.0, 0.35, 0.6, 0.15)):
        fill = _lighter(color, light)
        draw.pieslice(circle, cuts[i], cuts[(i + 1) % 4] + 360 * (i == 3), fill=fill, outline=WHITE, width=stroke)


def _scatter(draw: ImageDraw.ImageDraw, box: Box, color: Color, rng: random.Random) -> None:
    (left, top, right, bottom), stroke = _axes(draw, box)
    radius = 3.5 * stroke
    for _ in range(rng.randint(14, 18)):
        x, y = rng.uniform(left + radius, right - radius), rng.uniform(top + radius, bottom - radius)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)


def _table(draw: ImageDraw.ImageDraw, box: Box, color: Color, rng: random.Random) -> None:
    left, top, right, bottom = box
    num_rows, num_columns = 5, 3
    height, width = (bottom - top) / num_rows, (right - left) / num_columns
    for row in range(num_rows):
        y = top + row * height
        fill = color if row == 0 else _lighter(color, 0.4) if row % 2 == 0 else WHITE
        draw.rectangle((left, y, right, y + height), fill=fill)
        for column in range(num_columns):
            word = rng.choice(WORDS).capitalize()[:5] if row == 0 or column == 0 else str(rng.randint(100, 999))
            x, size = left + (column + 0.5) * width, min(0.6 * height, 0.28 * width)
            _write(draw, x, y + height / 2, word, size, INK if row else WHITE, centered=True)
    stroke = max(round(0.1 * height), 1)
    draw.rectangle((left, top, right, bottom), outline=color, width=stroke)
    for column in range(1, num_columns):
        draw.line((left + column * width, top, left + column * width, bottom), fill=color, width=stroke)


def _lighter(color: Color, share: float) -> Color:
    red, green, blue = (round(c + (255 - c) * share) for c in color)
    return red, green, blue


CHARTS: dict[str, Callable[[ImageDraw.ImageDraw, Box, Color, random.Random], None]] = {
    "bar chart": _bar,
    "line chart": _line,
    "pie chart": _pie,
    "scatter plot": _scatter,
    "table": _table,
}
ATTRIBUTES = dict(zip(Page._fields, (tuple(DIVISIONS), QUARTERS, tuple(CHARTS), tuple(COLORS), LAYOUTS), strict=True))
