import numpy as np
import pytest
import torch
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image

from experiments.resized import ResizedPages


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
    resized = ResizedPages(column[0], "document", tiny_model.processor.image_processor)
    for _ in range(2):  # as read, and as kept
        ours = tiny_model.preprocess([resized[row] for row in range(len(pages()))])
        theirs = tiny_model.preprocess([page.convert("RGB") for page in pages()])
        assert torch.equal(ours["pixel_values"], theirs["pixel_values"])
        assert torch.equal(ours["image_grid_thw"], theirs["image_grid_thw"])


def test_each_page_is_decoded_once(tiny_model, column):
    dataset, reads = column
    resized = ResizedPages(dataset, "document", tiny_model.processor.image_processor)
    for _ in range(3):
        assert [resized[row].mode for row in range(len(dataset))] == ["RGB"] * len(dataset)
    assert sum(reads) == len(dataset)
