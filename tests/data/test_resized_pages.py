import gc
import weakref
from io import BytesIO

import numpy as np
import pytest
import torch
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image
from transformers import Qwen2VLImageProcessor
from transformers.image_utils import SizeDict

from experiments.data import resized_pages
from experiments.data.resized_pages import PageStore, ResizedPages, resize, resized_rows, shared_store


def pages():
    rng = np.random.default_rng(0)
    shapes = [(200, 150, 3), (40, 300, 3), (8, 8, 3), (128, 128, 3), (97, 61, 4), (50, 70)]
    return [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes]


def file_of(mode):
    """An encoded page of a mode of Pillow's, or of a kind that has no mode of its own."""
    rng = np.random.default_rng(0)
    rgba = Image.fromarray(rng.integers(0, 256, (170, 130, 4), dtype=np.uint8))
    rgba.paste((0, 0, 0, 0), (20, 20, 90, 150))  # black where it can't be seen
    buffer, options = BytesIO(), {}
    if mode == "I;16":
        page = Image.fromarray(rng.integers(0, 2**16, (170, 130), dtype=np.uint16))
    elif mode == "rotated":
        page, options = rgba.convert("RGB"), {"exif": Image.Exif()}
        options["exif"][0x0112] = 6
    elif mode == "P, transparent":
        page, options = rgba.convert("RGB").quantize(16), {"transparency": 3}
    elif mode == "P, transparencies":  # of each colour: a tRNS of bytes
        page, options = rgba.convert("RGB").quantize(16), {"transparency": bytes(range(0, 256, 16))}
    elif mode == "RGB, transparent":
        page, options = rgba.convert("RGB"), {"transparency": (0, 0, 0)}
    else:
        page = rgba.convert("RGB").quantize(16) if mode == "P" else rgba.convert(mode)
    page.save(buffer, "JPEG" if mode in ("CMYK", "rotated") else "PNG", **options)
    return buffer.getvalue()


MODES = ["RGB", "RGBA", "LA", "P", "P, transparent", "P, transparencies", "RGB, transparent", "L", "1", "I;16", "CMYK"]


@pytest.fixture
def column():
    dataset = Dataset.from_dict({"document": pages()}).cast_column("document", ImageFeature())
    reads = []

    def note(batch):
        reads.append(len(batch["document"]))
        return batch

    dataset.set_transform(note)
    return dataset, reads


def test_the_model_sees_the_same_pixels(tiny_model, column):
    resized = ResizedPages(column[0], "document", tiny_model.processor.image_processor, PageStore())
    for _ in range(2):  # as read, and as kept
        ours = tiny_model.preprocess([resized[row] for row in range(len(pages()))])
        theirs = tiny_model.preprocess(pages())
        assert torch.equal(ours["pixel_values"], theirs["pixel_values"])
        assert torch.equal(ours["image_grid_thw"], theirs["image_grid_thw"])


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("mode", [*MODES, "rotated"])
def test_the_model_sees_a_page_of_any_kind_as_the_library_alone_shows_it(tiny_model, mode, keep):
    rows = Dataset.from_dict({"page": [{"bytes": file_of(mode), "path": None}]}).cast_column("page", ImageFeature())
    raw = rows[0]["page"]
    expected = tiny_model.preprocess([raw])
    store, processor = PageStore(), tiny_model.processor.image_processor
    read = resized_rows(rows, processor, store if keep else None)
    for page in (read[0]["page"], ResizedPages(rows, "page", processor, PageStore())[0]):
        ours = tiny_model.preprocess([page])
        assert torch.equal(ours["image_grid_thw"], expected["image_grid_thw"])
        assert torch.equal(ours["pixel_values"], expected["pixel_values"])
        assert np.array_equal(tiny_model.encode([page]), tiny_model.encode([raw]))
    assert raw.size == ((170, 130) if mode == "rotated" else (130, 170))


def test_a_column_that_has_a_mode_is_decoded_as_it_says(tiny_model):
    rows = Dataset.from_dict({"page": [{"bytes": file_of("RGBA"), "path": None}]})
    rows = rows.cast_column("page", ImageFeature(mode="RGB"))
    read = resized_rows(rows, tiny_model.processor.image_processor)[0]["page"]
    seen = [tiny_model.preprocess([page])["pixel_values"] for page in (read, rows[0]["page"])]
    assert torch.equal(*seen)


@pytest.mark.parametrize(
    "bounds", [(784, 16384), (784, 4096), (4096, 4096), (3136, 3200), (784, 360000), (65536, 2**20)]
)
def test_a_page_that_is_resized_already_is_left_as_it_is(bounds):
    processor = Qwen2VLImageProcessor(patch_size=16, size=SizeDict(shortest_edge=bounds[0], longest_edge=bounds[1]))
    rng = np.random.default_rng(0)
    sizes = [(1600, 60), (60, 1600), (6600, 33), (33, 6600), (1, 1), (1, 150), (32, 32), (850, 1100), (31, 33)]
    sizes += [tuple(np.exp(rng.uniform(0, np.log(2000), 2)).astype(int)) for _ in range(60)]
    checked = 0
    for width, height in sizes:
        if max(width, height) > 200 * min(width, height):  # the processor takes no such page
            continue
        page = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        theirs, ours = processor(page, return_tensors="pt"), processor(resize(page, processor), return_tensors="pt")
        assert torch.equal(theirs["image_grid_thw"], ours["image_grid_thw"]), (width, height)
        assert torch.equal(theirs["pixel_values"], ours["pixel_values"]), (width, height)
        checked += 1
    assert checked > 50


def test_each_page_is_decoded_once(tiny_model, column):
    dataset, reads = column
    resized = ResizedPages(dataset, "document", tiny_model.processor.image_processor, PageStore())
    for _ in range(3):
        assert [resized[row].mode for row in range(len(dataset))] == ["RGB"] * len(dataset)
    assert sum(reads) == len(dataset)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_the_evaluation_has_read_its_loss_neither_resizes_nor_hashes(tiny_model, monkeypatch, num_workers):
    processor, rows = tiny_model.processor.image_processor, Dataset.from_dict({"page": pages()})
    rows = rows.cast_column("page", ImageFeature())
    store = shared_store()
    kept = resized_rows(rows, processor, shared_store())
    corpus = ResizedPages(rows, "page", processor, store)
    expected = [corpus[row].tobytes() for row in range(len(rows))]
    monkeypatch.setattr(resized_pages, "resize", None)
    monkeypatch.setattr(resized_pages, "content_hash", None)
    loader = torch.utils.data.DataLoader(kept, batch_size=4, collate_fn=list, num_workers=num_workers)
    assert [row["page"].tobytes() for batch in loader for row in batch] == expected


def test_a_store_is_shared_as_long_as_somebody_holds_it():
    store = shared_store()
    assert shared_store() is store
    gone = weakref.ref(store)
    del store
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("keep", [False, True])
def test_rows_give_the_same_features_hashes_and_rows_in_workers(tiny_model, keep):
    from torch.utils.data import DataLoader

    from experiments.data.encoded_pages import content_hashes

    rows = Dataset.from_dict({"query": [f"page {i}" for i in range(6)], "page": pages()})
    rows = rows.cast_column("page", ImageFeature())
    store = PageStore() if keep else None
    resized = resized_rows(rows, tiny_model.processor.image_processor, store)
    assert resized.column_names == rows.column_names
    assert np.array_equal(content_hashes(resized), content_hashes(rows))
    expected = tiny_model.preprocess(pages())["pixel_values"]
    for num_workers in (0, 2):
        for _ in range(2):
            loader = DataLoader(resized, batch_size=3, collate_fn=list, num_workers=num_workers)
            read = [row for batch in loader for row in batch]
            assert [row["query"] for row in read] == rows["query"][:]
            assert torch.equal(tiny_model.preprocess([row["page"] for row in read])["pixel_values"], expected)


def test_texts_are_left_as_they_are(tiny_model):
    rows = Dataset.from_dict({"query": ["a"], "text": ["b"]})
    assert resized_rows(rows, tiny_model.processor.image_processor) is rows
