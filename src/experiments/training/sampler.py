"""Batches without duplicates, found by the encoded bytes of pages instead of their pixels."""

from __future__ import annotations

import torch
from datasets import Dataset
from sentence_transformers.base.sampler import NoDuplicatesBatchSampler

from experiments.data.encoded_pages import content_hashes


class NoDuplicatesByBytes(NoDuplicatesBatchSampler):
    """The library's sampler of batches in which no value occurs twice, without decoding a page.

    For a seed and epoch its batches are those of `NoDuplicatesBatchSampler`, plain or hashed, wherever equal pixels
    are equal bytes. Otherwise the two differ:

    - Two encodings of equal pixels (another compression, say) count as different; the library, which compares
      decoded images and their metadata, takes them as equal.
    - Equal files under two paths, where a data set stores paths, count as equal; the library takes them as different,
      because a decoded image remembers its path.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(dataset, batch_size, drop_last, valid_label_columns, generator, seed, precompute_hashes=True)

    def _build_hashes(self) -> None:
        if self._row_hashes is not None:
            return
        self._row_hashes = content_hashes(self.dataset)
