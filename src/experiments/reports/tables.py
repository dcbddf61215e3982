"""Tables as text, and how numbers and names are written in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def markdown_table(headers: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table, padded so that it reads as plain text too; numbers to the right."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in [headers, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * max(3, width) for width in widths]
    rule = [mark[:-1] + ":" if index else mark for index, mark in enumerate(rule)] if len(headers) > 2 else rule
    padded = [_pad(row, [max(3, width) for width in widths]) for row in cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in [padded[0], rule, *padded[1:]])


def aligned(headers: list[str], rows: list[list[str]]) -> str:
    """Return a table aligned for a terminal."""
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    return "\n".join(
        "  ".join(_pad(row, widths)).rstrip() for row in [headers, ["-" * width for width in widths], *rows]
    )


def _pad(row: list[str], widths: list[int]) -> list[str]:
    """Pad the first column to the right and, in tables of more than two, the others to the left."""
    return [
        cell.rjust(width) if index and len(row) > 2 else cell.ljust(width)
        for index, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


def time_text(seconds: float) -> str:
    """Return a duration in hours and minutes, or minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def energy_text(kwh: float) -> str:
    """Return an energy given in kWh as it is read, in Wh everywhere: a short run takes a few."""
    return f"{1000 * kwh:,.0f} Wh" if kwh >= 1 else f"{1000 * kwh:.3g} Wh"


def shortened(text: str, limit: int) -> str:
    """Return as many whole words of a text as fit; words end at spaces and punctuation."""
    if len(text) <= limit:
        return text
    end = max(text.rfind(mark, 0, limit + 1) for mark in " _-.,")
    return text[: end if end > 0 else limit].rstrip(" _-.,")


def joined(parts: Sequence[str], limit: int) -> str:
    """Return the parts with hyphens between them, and the number of those that don't fit: `a=1-b=2-3_more`."""
    for kept in range(len(parts), -1, -1):
        text = "-".join([*parts[:kept], *([f"{len(parts) - kept}_more"] if kept < len(parts) else [])])
        if len(text) <= limit:
            break
    return text


def short_count(count: float) -> str:
    """Return a number of parameters as it is said: 1.3 M, 2.1 B."""
    for size, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if count >= size * 0.9995:
            return f"{count / size:.3g}{unit}"
    return f"{count:.3g}"


def shown(path: Path) -> str:
    """Return a path as one would type it here: relative if it is below the working directory."""
    absolute, here = path.resolve(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)
