import io

import numpy as np
import PIL.Image
import pytest
import torch
from datasets import Dataset, Features, Image, Value
from sentence_transformers.base.sampler import DefaultBatchSampler, NoDuplicatesBatchSampler

from experiments.training.sampler import NoDuplicatesByBytes


def png(number, **options):
    pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "PNG", **options)
    return {"bytes": buffer.getvalue(), "path": None}


def dataset(num_rows=60, seed=0):
    """Rows with duplicates within and across columns: 40 queries, 50 pages for two columns."""
    rng = np.random.default_rng(seed)
    drawn = [png(number) for number in range(50)]
    return Dataset.from_dict(
        {
            "query": [f"query {number}" for number in rng.integers(0, 40, num_rows)],
            "image": [drawn[number] for number in rng.integers(0, 50, num_rows)],
            "negative_0": [drawn[number] for number in rng.integers(0, 50, num_rows)],
            "label": [0] * num_rows,
        },
        features=Features(
            {"query": Value("string"), "image": Image(), "negative_0": Image(), "label": Value("int64")}
        ),
    )


def batches(sampler_class, rows, seed, epoch, drop_last=False):
    sampler = sampler_class(
        rows,
        batch_size=8,
        drop_last=drop_last,
        valid_label_columns=["label"],
        generator=torch.Generator(),
        seed=seed,
    )
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 42])
def test_batches_are_those_of_the_library_s_plain_sampler(seed, drop_last):
    rows = dataset()
    for epoch in (0, 1):
        ours = batches(NoDuplicatesByBytes, rows, seed, epoch, drop_last)
        assert ours == batches(NoDuplicatesBatchSampler, rows, seed, epoch, drop_last)


def test_batches_are_those_of_the_library_s_hashed_sampler():
    rows = dataset()
    options = {"batch_size": 8, "drop_last": False, "valid_label_columns": ["label"], "seed": 3}
    ours = NoDuplicatesByBytes(rows, generator=torch.Generator(), **options)
    hashed = {"precompute_hashes": True, "precompute_num_proc": 1}
    library = NoDuplicatesBatchSampler(rows, generator=torch.Generator(), **options, **hashed)
    for epoch in range(3):
        ours.set_epoch(epoch)
        library.set_epoch(epoch)
        assert list(ours) == list(library)


def test_no_value_occurs_twice_in_a_batch():
    rows = dataset()
    plain = rows.cast_column("image", Image(decode=False)).cast_column("negative_0", Image(decode=False))
    sizes = []
    for batch in batches(NoDuplicatesByBytes, rows, seed=0, epoch=0):
        values = [
            {row["query"], row["image"]["bytes"], row["negative_0"]["bytes"]} for row in map(plain.__getitem__, batch)
        ]
        assert len(set.union(*values)) == sum(map(len, values))
        sizes.append(len(batch))
    assert sum(sizes) == 60
    assert len(sizes) > 8  # the duplicates made a difference


def test_the_trainer_takes_it_as_a_batch_sampler():
    assert issubclass(NoDuplicatesByBytes, DefaultBatchSampler)


def test_pages_are_not_decoded():
    rows = Dataset.from_dict({"query": ["a", "b"], "image": [{"bytes": b"no image"}, {"bytes": b"no image"}]})
    rows = rows.cast_column("image", Image())
    assert sorted(batches(NoDuplicatesByBytes, rows, seed=0, epoch=0)) == [[0], [1]]


def test_two_encodings_of_equal_pixels_count_as_different_unlike_in_the_library():
    rows = Dataset.from_dict({"image": [png(0, compress_level=0), png(0, compress_level=9)]}).cast_column(
        "image", Image()
    )
    assert len(batches(NoDuplicatesByBytes, rows, seed=0, epoch=0)) == 1
    assert len(batches(NoDuplicatesBatchSampler, rows, seed=0, epoch=0)) == 2


def test_equal_files_under_two_paths_count_as_equal_unlike_in_the_library(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png(0)["bytes"])
    rows = Dataset.from_dict({"image": [str(tmp_path / "a.png"), str(tmp_path / "b.png")]}).cast_column(
        "image", Image()
    )
    assert len(batches(NoDuplicatesByBytes, rows, seed=0, epoch=0)) == 2
    assert len(batches(NoDuplicatesBatchSampler, rows, seed=0, epoch=0)) == 1
