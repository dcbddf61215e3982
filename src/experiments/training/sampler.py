"""Batches without duplicates, found by the encoded bytes of pages instead of their pixels."""

from __future__ import annotations

from typing import Any

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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs | {"precompute_hashes": True})

    def _build_hashes(self) -> None:
        if self._row_hashes is None:
            self._row_hashes = content_hashes(self.dataset)
