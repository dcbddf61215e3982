"""Pages of Markdown and HTML, rendered from the templates beside this file, and the figures that stand on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from experiments.reports import tables
from experiments.runs.metrics_file import metric_label

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=jinja2.select_autoescape(["html.jinja"]),  # nothing is escaped in Markdown
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.globals |= {"tables": tables, "metric_label": metric_label}


def render(template: str, kind: str = "md", **content: Any) -> str:
    """Return the page that `TEMPLATE.md.jinja`, or `.html.jinja`, makes of its content."""
    return _TEMPLATES.get_template(f"{template}.{kind}.jinja").render(content).strip() + "\n"


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
