"""The queries that a model answered worst, as a page to look at: `failures.html`, one file that needs no server.

Its size is bounded: `NUM_QUERIES`, for each at most one thumbnail of its own, `NUM_RIGHT` and `samples.NUM_FIRST` of
documents, JPEGs of at most `THUMBNAIL_PIXELS` (10 kB of a page of text), and texts of at most `MAX_CHARACTERS`.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import PIL.Image
from transformers.image_transforms import convert_to_rgb

from experiments.config.errors import one_line
from experiments.data.media import MODALITIES, kind_of
from experiments.data.types import Data, Direction
from experiments.evaluation.results import Evaluation
from experiments.evaluation.samples import Hit
from experiments.reports.page import render
from experiments.reports.run_report import FAILURES
from experiments.runs.files import replacing
from experiments.runs.metrics_file import metric_label
from experiments.runs.run import read_record

NUM_QUERIES = 25  # on the page, shared out among the directions
NUM_RIGHT = 3  # documents shown of those that answer a query
THUMBNAIL_PIXELS = 240  # the longest side
MAX_CHARACTERS = 600  # of a text


class Shown(NamedTuple):
    """A query or a document as the page has it: its text, a thumbnail, and what else it is, such as a video."""

    texts: tuple[str, ...] = ()
    images: tuple[str, ...] = ()  # `data:` addresses
    others: tuple[str, ...] = ()


def write_failures(run_dir: Path, evaluation: Evaluation, data: Data, metric: str) -> Path:
    """Write `failures.html` of an evaluation into the run's directory and return its path.

    On it are the queries of each direction that the primary metric is lowest for, the worst first; of a reranker whose
    candidates were retrieved, end to end. Only documents that are shown are read, one at a time.
    """
    sections = []
    for name, direction in data.directions.items():
        found = evaluation.worst(name, direction, metric, num=-(-NUM_QUERIES // len(data.directions)))
        pages: dict[str, Shown] = {}  # the same ones often come first
        queries = []
        for value, sample in zip(found.values, found.samples, strict=True):
            shown = show(sample.read, direction.queries.features["query"])
            hits = [[_document(pages, hit, direction) for hit in hits] for hits in (sample.right, sample.top)]
            queries.append({"value": value, "shown": shown, "sample": sample, "right": hits[0], "top": hits[1]})
        sections.append({"name": name.replace("_", " "), "found": found, "queries": queries})
    content = {"sections": sections, "evaluation": data.describe(), "metric": metric_label(metric)}
    record = read_record(run_dir) or {}
    text = render("failures", "html", title=record.get("name") or run_dir.name, num_right=NUM_RIGHT, **content)
    with replacing(run_dir / FAILURES) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return run_dir / FAILURES


def show(read: Callable[[], Any], feature: Any) -> Shown:
    """Return a value of a column as it is shown; it is read only if it is one that can be."""
    kind = kind_of(feature) or ""
    is_read = kind in ("texts", "images") or kind.startswith("dicts")
    return _shown(read()) if is_read else Shown(others=(kind.removesuffix("s"),))


def _shown(value: Any) -> Shown:
    if isinstance(value, dict):
        parts = [_shown(value[key]) for key in ("text", "image") if value.get(key) is not None]
        others = tuple(key for key in sorted(MODALITIES - {"text", "image"}) if value.get(key) is not None)
        texts, images = (tuple(each for part in parts for each in part[number]) for number in (0, 1))
        return Shown(texts, images, others)
    if isinstance(value, PIL.Image.Image):
        return Shown(images=(thumbnail(value),))
    return Shown(texts=(one_line(str(value), MAX_CHARACTERS),))


def thumbnail(image: PIL.Image.Image) -> str:
    """Return an image made small, as a JPEG in a `data:` address; what is transparent becomes white."""
    small = PIL.Image.fromarray(convert_to_rgb(image, return_numpy=True))  # type: ignore[arg-type]
    small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=70, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _document(pages: dict[str, Shown], hit: Hit, direction: Direction) -> dict[str, Any]:
    if hit.document_id not in pages:
        pages[hit.document_id] = show(hit.read, direction.corpus.features["document"])
    return {"hit": hit, "shown": pages[hit.document_id]}
