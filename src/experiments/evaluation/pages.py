"""Images at the size that a model sees, kept from one evaluation to the next."""

from __future__ import annotations

from typing import Any

from datasets import Dataset, Image

from experiments.data.resized_pages import ResizedPages, bounds, image_processor, shared_store


class PagesOfModel:
    """Resized pages of each column of an evaluation, for the bounds of the model evaluated last, from one store."""

    def __init__(self) -> None:
        self._store = shared_store()
        self._kept: dict[tuple[str, str], ResizedPages] = {}

    def resized(self, model: Any, direction: str, dataset: Dataset, column: str) -> ResizedPages | None:
        """Return a column's images, or None for texts and where the model doesn't tell the size."""
        processor = image_processor(model)
        if not isinstance(dataset.features[column], Image) or bounds(processor) is None:
            return None
        kept = self._kept.get((direction, column))
        if kept is None or kept.bounds != bounds(processor):
            kept = self._kept[direction, column] = ResizedPages(dataset, column, processor, self._store)
        return kept
