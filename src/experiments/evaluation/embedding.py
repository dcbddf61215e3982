"""How an evaluation embeds: batch by batch, images at the size that the model sees, kept for the next evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset, Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.util.distributed import get_world_size
from tqdm.auto import tqdm

from experiments.data.resized_pages import ResizedPages, batches, bounds, image_processor, shared_store


class KeptPages:
    """Resized pages of each column of an evaluation, by the bounds of the model, in one store."""

    def __init__(self) -> None:
        self._store = shared_store()
        self._kept: dict[Any, ResizedPages] = {}

    def resized(self, model: Any, direction: str, dataset: Dataset, column: str) -> ResizedPages | None:
        """Return a column's images, or None for texts and where the model doesn't tell the size."""
        processor = image_processor(model)
        if not isinstance(dataset.features[column], Image) or bounds(processor) is None:
            return None
        key = (direction, column, bounds(processor))
        if key not in self._kept:
            self._kept[key] = ResizedPages(dataset, column, processor, self._store)
        return self._kept[key]


@dataclass
class Embedder:
    """How queries and documents are embedded: in which batches, by how many threads, with or without a bar."""

    batch_size: int
    num_workers: int
    hide_bar: bool | None
    pages: KeptPages = field(default_factory=KeptPages)

    def embed(
        self, model: SentenceTransformer, encode: Callable, direction: str, dataset: Dataset, column: str
    ) -> np.ndarray:
        """Return the embeddings of a direction's column by the model's method, shape (num_rows, dim), float32.

        Raises:
            FloatingPointError: If an embedding is not finite.
        """
        resized = self.pages.resized(model, direction, dataset, column)
        embeddings: list[np.ndarray] = []
        with tqdm(total=len(dataset), desc=f"Embedding {column}", leave=False, disable=self.hide_bar) as progress:
            size = self.batch_size * get_world_size()
            for batch in batches(dataset, column, size, self.num_workers, resized):
                found = encode(batch, batch_size=self.batch_size, show_progress_bar=False, convert_to_numpy=True)
                if not np.isfinite(found).all():
                    raise FloatingPointError(f"an embedding in the evaluation's column {column} is not finite")
                embeddings.append(found.astype(np.float32, copy=False))
                progress.update(len(batch))
                del batch  # its pages, before the next ones arrive
        return np.concatenate(embeddings)
