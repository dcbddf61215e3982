"""Pages of Markdown: rendered from the templates beside this file, with the figures that stand on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from experiments.reports import tables
from experiments.runs.metrics_file import metric_label

_TEMPLATES = jinja2.Environment(  # of Markdown: nothing is escaped
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.globals |= {"tables": tables, "metric_label": metric_label}


def render(template: str, **content: Any) -> str:
    """Return the page that `TEMPLATE.md.jinja` makes of its content."""
    return _TEMPLATES.get_template(f"{template}.md.jinja").render(content).strip() + "\n"


@dataclass
class Page:
    """A page in the making: its parts, and the figures among them."""

    folder: Path
    parts: list[str] = field(default_factory=list)
    figures: list[Path] = field(default_factory=list)

    def figure(self, name: str, caption: str) -> Path:
        """Put a figure on the page and return the file to draw it to."""
        self.parts.append(f"![{caption}](figures/{name})")
        self.figures.append(self.folder / "figures" / name)
        return self.figures[-1]
