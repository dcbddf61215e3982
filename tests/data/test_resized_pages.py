import gc
import weakref

import numpy as np
import pytest
import torch
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image

from experiments.data import resized_pages
from experiments.data.resized_pages import PageStore, ResizedPages, resized_rows, shared_store


def pages():
    rng = np.random.default_rng(0)
    shapes = [(200, 150, 3), (40, 300, 3), (8, 8, 3), (128, 128, 3), (97, 61, 4), (50, 70)]
    return [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes]


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
        theirs = tiny_model.preprocess([page.convert("RGB") for page in pages()])
        assert torch.equal(ours["pixel_values"], theirs["pixel_values"])
        assert torch.equal(ours["image_grid_thw"], theirs["image_grid_thw"])


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
    expected = tiny_model.preprocess([page.convert("RGB") for page in pages()])["pixel_values"]
    for num_workers in (0, 2):
        for _ in range(2):
            loader = DataLoader(resized, batch_size=3, collate_fn=list, num_workers=num_workers)
            read = [row for batch in loader for row in batch]
            assert [row["query"] for row in read] == rows["query"][:]
            assert torch.equal(tiny_model.preprocess([row["page"] for row in read])["pixel_values"], expected)


def test_texts_are_left_as_they_are(tiny_model):
    rows = Dataset.from_dict({"query": ["a"], "text": ["b"]})
    assert resized_rows(rows, tiny_model.processor.image_processor) is rows
