"""Pages at the size that the model sees: decoded and resized in threads, and kept on disk where they are read again.

The model's image processor resizes such a page no further, so that the model sees the very same pixels as if it had
been given the page itself: transparency on white, as the processor has it. (Of an image that the library opens by its
name the alpha is dropped, and what was hidden, black mostly, is seen.)
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, TypeVar
from weakref import WeakSet

import torch
from datasets import Dataset, Value
from datasets.features.image import Image as ImageFeature
from PIL import Image
from sentence_transformers.base.modules import Transformer
from torch import nn
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image
from transformers import Qwen2VLImageProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from experiments.data.encoded_pages import HashedRows, content_hash, content_hashes

_TEXT_BATCHES = 64  # read at once: enough to be sorted by length, few enough for a progress bar
Rows = TypeVar("Rows", Dataset, dict[str, Dataset])


def image_processor(model: nn.Module) -> Any:
    """Return what prepares a model's images; None where it takes none, or its routes prepare them differently."""
    takes_images = [m for m in model.modules() if isinstance(m, Transformer) and "image" in m.modalities]
    found = [getattr(module.processor, "image_processor", module.processor) for module in takes_images]
    return found[0] if len(found) == 1 else None


class PageStore:
    """Resized pages by their content's hash and the bounds, so that equal pages are decoded once, whoever reads them.

    They are in a temporary file (3 bytes a pixel, under TMPDIR), not in memory; safe under threads and forks.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._places: dict[Hashable, tuple[BinaryIO, int, tuple[int, int]]] = {}  # key -> file, offset, size
        self._open()

    def _open(self) -> None:
        self._process, self._end = os.getpid(), 0
        self._file: BinaryIO = tempfile.TemporaryFile()  # as long as this object lives

    def __del__(self) -> None:
        """Give the disk back."""
        self._file.close()

    def __reduce__(self) -> tuple[type, tuple]:
        """Be an empty store in another process."""
        return PageStore, ()

    def __deepcopy__(self, memo: Any) -> PageStore:
        """Return itself: copies of a data set share its pages."""
        return self

    def read(self, content: int, processor: Qwen2VLImageProcessor, decode: Callable[[], Image.Image]) -> Image.Image:
        """Return the page of a `content_hash` at the processor's size; `decode` gives one that wasn't read before."""
        key = (content, bounds(processor))
        if (page := self._get(key)) is None:
            page = resize(decode(), processor)
            self._put(key, page)
        return page

    def _get(self, key: Hashable) -> Image.Image | None:
        with self._lock:
            if self._process != os.getpid():  # a worker process writes a file of its own, and reads both
                self._open()
        if key not in self._places:
            return None
        file, offset, (width, height) = self._places[key]
        pixels = os.pread(file.fileno(), 3 * width * height, offset)
        return Image.frombytes("RGB", (width, height), pixels)

    def _put(self, key: Hashable, page: Image.Image) -> None:
        pixels = page.tobytes()
        with self._lock:
            offset, self._end = self._end, self._end + len(pixels)
        if os.pwrite(self._file.fileno(), pixels, offset) == len(pixels):
            self._places[key] = (self._file, offset, page.size)


_stores: WeakSet[PageStore] = WeakSet()


def shared_store() -> PageStore:
    """Return the store that the evaluation and its loss share: the one still held in this process, or a new one."""
    store = next(iter(_stores), None) or PageStore()
    _stores.add(store)
    return store


class ResizedPages:
    """A column of pages by row, at the size that the model sees, kept in a store."""

    def __init__(self, dataset: Dataset, column: str, processor: Qwen2VLImageProcessor, store: PageStore) -> None:
        self.dataset, self.column, self.processor, self.store = dataset, column, processor, store
        self.bounds = bounds(processor)
        self._contents = content_hashes(dataset.select_columns([column]))[:, 0].tolist()

    def __getitem__(self, row: int) -> Image.Image:
        """Return a page."""
        return self.store.read(self._contents[row], self.processor, lambda: self.dataset[row][self.column])


def batches(
    dataset: Dataset, column: str, batch_size: int, num_workers: int, resized: ResizedPages | None
) -> Iterator[list]:
    """Yield a column in lists, decoding the items of the next one meanwhile: two lists are in memory, never more."""
    if isinstance(dataset.features[column], Value):
        size = batch_size * _TEXT_BATCHES
        yield from (list(dataset[start : start + size][column]) for start in range(0, len(dataset), size))
        return

    def read(row: int) -> Any:
        return resized[row] if resized else dataset[row][column]

    parts = [range(start, min(start + batch_size, len(dataset))) for start in range(0, len(dataset), batch_size)]
    if not num_workers:
        yield from ([read(row) for row in rows] for rows in parts)
        return
    with ThreadPoolExecutor(num_workers) as pool:
        waiting: deque[list[Future]] = deque()
        for rows in parts:
            waiting.append([pool.submit(read, row) for row in rows])
            if len(waiting) == 2:
                yield [item.result() for item in waiting.popleft()]
        yield [item.result() for item in waiting.popleft()]


@dataclass(frozen=True)
class ReadResized:
    """A transform of datasets: encoded pages in, resized ones out."""

    processor: Qwen2VLImageProcessor
    columns: dict[str, ImageFeature]  # those that hold pages, and how they are decoded
    store: PageStore | None  # keeps the pages for the next time, by their hash, which `KeptRows` know

    def __call__(self, batch: dict[str, list]) -> dict[str, list]:
        """Return the batch with its pages decoded and resized, in threads unless this is a worker process."""
        encoded = [(page, feature) for name, feature in self.columns.items() for page in batch.get(name, [])]
        if torch.utils.data.get_worker_info() is None:
            with ThreadPoolExecutor(torch.get_num_threads()) as pool:
                pages = iter([*pool.map(self.read, *zip(*encoded, strict=True))])
        else:
            pages = starmap(self.read, encoded)
        read = {column: [next(pages) for _ in batch[column]] for column in self.columns if column in batch}
        return batch | read

    def read(self, encoded: dict[str, Any], feature: ImageFeature) -> Image.Image:
        """Return one page."""
        if self.store is None:
            return resize(feature.decode_example(encoded), self.processor)
        content = encoded.get("content")
        if content is None:
            content = content_hash(encoded["bytes"] or Path(encoded["path"]).read_bytes())
        return self.store.read(content, self.processor, lambda: feature.decode_example(encoded))


class KeptRows(HashedRows):
    """Rows whose pages are kept: a data loader asks for them by number, so that no page is hashed to be found."""

    def __getitems__(self, keys: list[int]) -> list[dict[str, Any]]:
        """Return several rows."""
        batch = self.with_format(None)[keys]
        for column, contents in self.hashes.items():
            if isinstance(self.features[column], ImageFeature):
                for page, content in zip(batch[column], contents[keys].tolist(), strict=True):
                    page["content"] = content
        batch = self.format["format_kwargs"]["transform"](batch)
        return [dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)]


def resized_rows(dataset: Rows, processor: Any, store: PageStore | None = None) -> Rows:
    """Return the rows, of one or several data sets, with pages that come out at the size the model sees."""
    if isinstance(dataset, dict):
        return {name: resized_rows(rows, processor, store) for name, rows in dataset.items()}
    columns = {name: feature for name, feature in dataset.features.items() if isinstance(feature, ImageFeature)}
    if not columns or bounds(processor) is None or dataset.format["type"] == "custom":  # read in a way of its own
        return dataset
    rows = dataset
    for column in columns:
        rows = rows.cast_column(column, ImageFeature(decode=False))
    if store is not None:
        rows = KeptRows(rows, dict(zip(rows.column_names, content_hashes(rows).T, strict=True)))
    return rows.with_transform(ReadResized(processor, columns, store))


def resize(page: Image.Image, processor: Qwen2VLImageProcessor) -> Image.Image:
    """Return a page as the processor converts and resizes it; unresized if it would resize the result once more.

    That is so of a thin page whose result is above the bounds, since a side is at least a patch.
    """
    if page.mode == "RGB" and "transparency" not in page.info:
        pixels = pil_to_tensor(page)  # the same, channels last, which are resized in two thirds of the time
    else:
        pixels = processor.process_image(page, do_convert_rgb=True)
    factor, area = processor.patch_size * processor.merge_size, processor.size
    limits = {"factor": factor, "min_pixels": area["shortest_edge"], "max_pixels": area["longest_edge"]}
    height, width = smart_resize(*pixels.shape[-2:], **limits)
    too_thin = max(height, width) > 200 * min(height, width)  # would be refused
    if too_thin or smart_resize(height, width, **limits) != (height, width):
        return to_pil_image(pixels)
    resized = processor.resize(images=pixels[None], size=area, resample=processor.resample, factor=factor)  # type: ignore
    return to_pil_image(resized[0])


def bounds(processor: Any) -> tuple[Any, ...] | None:
    """Return what decides a page's size, or None for a processor that doesn't keep a resized page as it is."""
    if not isinstance(processor, Qwen2VLImageProcessor) or not (processor.do_resize and processor.do_convert_rgb):
        return None
    size = processor.size
    return size["shortest_edge"], size["longest_edge"], processor.patch_size, processor.merge_size, processor.resample
