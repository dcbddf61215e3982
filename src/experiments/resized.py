"""Pages at the size that the model sees, decoded and resized once for all evaluations of a run."""

from __future__ import annotations

import os
import tempfile
from threading import Lock
from typing import Any

from datasets import Dataset
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image
from transformers import Qwen2VLImageProcessor


class ResizedPages:
    """A column of pages as the model's image processor resizes them.

    The processor resizes such a page no further, so that the model sees the very same pixels. They lie in a temporary
    file (3 bytes a pixel, under TMPDIR), not in memory; safe under threads.

    Args:
        dataset: With a column of images.
        column: Its name.
        processor: Of the model.
    """

    def __init__(self, dataset: Dataset, column: str, processor: Qwen2VLImageProcessor) -> None:
        self.dataset = dataset
        self.column = column
        self.processor = processor
        self.bounds = bounds(processor)
        self._file = tempfile.TemporaryFile()  # as long as this object lives
        self._places: dict[int, tuple[int, tuple[int, int]]] = {}  # row -> offset, size
        self._end = 0
        self._lock = Lock()

    def __del__(self) -> None:
        """Give the disk back."""
        self._file.close()

    def __getitem__(self, row: int) -> Image.Image:
        """Return a page, from the file if it has been read before."""
        if row in self._places:
            offset, (width, height) = self._places[row]
            pixels = os.pread(self._file.fileno(), 3 * width * height, offset)
            return Image.frombytes("RGB", (width, height), pixels)
        page = self._resize(self.dataset[row][self.column])
        pixels = page.tobytes()
        with self._lock:
            offset, self._end = self._end, self._end + len(pixels)
        if os.pwrite(self._file.fileno(), pixels, offset) == len(pixels):
            self._places[row] = (offset, page.size)
        return page

    def _resize(self, page: Image.Image) -> Image.Image:
        pixels = pil_to_tensor(page.convert("RGB"))[None]
        factor = self.processor.patch_size * self.processor.merge_size
        size: Any = self.processor.size
        resized = self.processor.resize(images=pixels, size=size, resample=self.processor.resample, factor=factor)
        return to_pil_image(resized[0])


def bounds(processor: Any) -> tuple[Any, ...] | None:
    """Return what decides a page's size, or None for a processor that doesn't keep a resized page as it is."""
    if not isinstance(processor, Qwen2VLImageProcessor) or not processor.do_resize:
        return None
    size = processor.size
    return size["shortest_edge"], size["longest_edge"], processor.patch_size, processor.merge_size, processor.resample
