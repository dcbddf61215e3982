"""Tables as text, and how numbers and names are written in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

LISTED, NAMED = 6, 3  # names in a sentence, and where their number says enough
Table = tuple[list[str], list[list[str]]]  # headers and rows


def markdown_table(headers: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table, padded so that it reads as plain text too; numbers to the right."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in [headers, *rows]]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    end = ":" if len(headers) > 2 else "-"
    rule = ["-" * widths[0], *("-" * (width - 1) + end for width in widths[1:])]
    header, *padded = (_pad(row, widths) for row in cells)
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *padded])


def aligned(headers: list[str], rows: list[list[str]]) -> str:
    """Return a table aligned for a terminal."""
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    lines = [headers, ["-" * width for width in widths], *rows]
    return "\n".join("  ".join(_pad(row, widths)).rstrip() for row in lines)


def _pad(row: list[str], widths: list[int]) -> list[str]:
    """Pad the first column to the right and, in tables of more than two, the others to the left."""
    return [
        cell.rjust(width) if index and len(row) > 2 else cell.ljust(width)
        for index, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


def value_text(value: Any) -> str:
    """Return a value of a record as it is read."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)


def known(value: Any, text: Callable[[Any], str]) -> str:
    """Return a value as a text, a dash for None."""
    return "–" if value is None else text(value)


def score(values: dict[str, Any] | None, metric: str, *, interval: bool = False) -> str:
    """Return a rounded metric of a part of an evaluation, a dash for none."""
    found = values or {}
    return score_text(found.get(metric), found.get(f"{metric}_ci95") if interval else None)


def score_text(value: float | None, interval: Sequence[float] | None = None) -> str:
    """Return a rounded metric, with its interval where there is one, a dash for none."""
    if value is None:
        return "–"
    return f"{value:.3f}" + (" [{:.3f}, {:.3f}]".format(*interval) if interval else "")


def difference_text(difference: float, interval: Sequence[float]) -> str:
    """Return a difference of metrics with its interval, signed: `+0.050 [+0.021, +0.079]`."""
    return f"{difference:+z.3f} [{interval[0]:+z.3f}, {interval[1]:+z.3f}]"  # z: no -0.000


def p_text(p: float) -> str:
    """Return a rounded p-value."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def percent(share: float, interval: Sequence[float] | None = None) -> str:
    """Return a share in percent, with its interval where there is one, a dash for NaN."""
    if math.isnan(share):
        return "–"
    return f"{share:.1%}" + (" [{:.1%}, {:.1%}]".format(*interval) if interval else "")


def counts(evaluation: dict[str, Any]) -> str:
    """Return how many queries and documents an evaluation has, in words."""
    return f"{queries_text(evaluation['num_queries'])}, {evaluation['num_documents']:,} documents"


def queries_text(num_queries: int) -> str:
    """Return a number of queries in words."""
    return f"{num_queries:,} {'query' if num_queries == 1 else 'queries'}"


def time_text(seconds: float) -> str:
    """Return a duration in hours and minutes, or minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def energy_text(kwh: float) -> str:
    """Return an energy given in kWh as it is read, in Wh everywhere: a short run takes a few."""
    return f"{1000 * kwh:,.0f} Wh" if kwh >= 1 else f"{1000 * kwh:.3g} Wh"


def memory_text(size: int) -> str:
    """Return a number of bytes as it is read."""
    return f"{size / 2**20:,.0f} MiB"


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


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence lists them, the first few and how many more."""
    more = len(names) - LISTED
    separator = "; " if any(", " in name for name in names) else ", "
    return separator.join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


def named_or_counted(names: Sequence[str], num_all: int) -> str:
    """Return which of all these are, as a sentence says it: a few by name, more by their number."""
    if len(names) == num_all > 1:
        return f"all {num_all}"
    return listed(names) if len(names) <= NAMED else f"{len(names)} of {num_all}"
