import io
import logging

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, Features, Image, Value
from PIL import Image as PillowImage

from experiments.config.checks import check
from experiments.config.errors import ConfigError
from experiments.data import pairs
from experiments.data.drawn import drawings
from experiments.data.sources import doodles


@pytest.fixture(scope="module")
def data(cache):
    return drawings.load(num_train_rows=60, num_eval_rows=12, num_negatives=3, cache_dir=str(cache))


def test_no_evaluated_combination_is_trained_on():
    train, eval = drawings.choose(1000, 48, seed=0)
    assert not {*train} & {*eval}
    assert len({*eval}) == 48 and len({*train}) == 8 * 6 * 4 - 48


def test_the_same_seed_gives_the_same_pixels_and_another_other_ones(cache, tmp_path):
    first, again, other = (
        drawings.captioned(6, 2, seed, str(folder))["train"].cast_column("image", Image(decode=False))[:]
        for seed, folder in ((0, cache), (0, tmp_path), (1, cache))
    )
    assert first == again != other


def test_drawings_are_made_once(data, cache):
    folder = next(path for path in cache.iterdir() if path.name.endswith("-60-12-seed0"))
    before = (folder / "dataset_dict.json").stat().st_mtime_ns
    drawings.load(num_train_rows=60, num_eval_rows=12, num_negatives=3, cache_dir=str(cache))
    assert (folder / "dataset_dict.json").stat().st_mtime_ns == before


def test_captions_state_every_attribute_in_several_wordings(cache):
    train, _ = drawings.choose(60, 12, 0)
    texts = drawings.captioned(60, 12, 0, str(cache))["train"]["text"]
    for drawing, text in zip(train, texts, strict=True):
        assert all(value in text for value in drawing)
    assert len({text.split()[0] for text in texts}) > 2


def test_each_positive_comes_with_as_many_negatives_that_differ_from_it_and_each_other(data):
    for direction, rows in data.train.items():
        assert rows.column_names == ["query", "document", "label"]
        assert rows["label"][:8] == [1, 0, 0, 0, 1, 0, 0, 0] and len(rows) == 60 * 4
        image, text = ("query", "document") if direction == "image_to_text" else ("document", "query")
        assert isinstance(rows[0][image], PillowImage.Image) and isinstance(rows[0][text], str)
        encoded = [str(row["document"]) for row in rows.cast_column(image, Image(decode=False))]
        for start in range(0, len(rows), 4):
            assert len({*encoded[start : start + 4]}) == 4


def test_both_directions_are_evaluated_with_the_document_of_each_query(data):
    for direction in data.directions.values():
        assert len(direction.queries) == len(direction.corpus) == 12
        assert [len(ids) for ids in direction.relevant_docs.values()] == [1] * 12
        assert list(direction.corpus["corpus_id"]) == sorted(direction.corpus["corpus_id"])
    assert data.describe()["num_queries"] == 24


def test_fingerprints_follow_the_content(data, cache):
    same = drawings.load(num_train_rows=60, num_eval_rows=12, num_negatives=3, cache_dir=str(cache))
    fewer = drawings.load(num_train_rows=60, num_eval_rows=12, num_negatives=2, cache_dir=str(cache))
    assert (same.fingerprint, same.evaluation_fingerprint) == (data.fingerprint, data.evaluation_fingerprint)
    assert fewer.fingerprint != data.fingerprint and fewer.evaluation_fingerprint == data.evaluation_fingerprint


def test_more_negatives_than_there_are_documents_are_refused(cache):
    with pytest.raises(ConfigError, match="data.num_negatives="):
        drawings.load(num_train_rows=4, num_eval_rows=4, num_negatives=8, cache_dir=str(cache))


@pytest.mark.parametrize(
    ("override", "message"),
    [("num_eval_rows=49", "must be at most 48"), ("num_train_rows=1", "must be at least 2")],
)
def test_impossible_numbers_are_refused(composed, override, message):
    with pytest.raises(ConfigError, match=f"data.{override}: {message}"):
        check(composed("data=drawings", f"data.{override}"))


def png(shade):
    buffer = io.BytesIO()
    PillowImage.new("RGB", (8, 8), (shade, 0, 0)).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def test_rows_that_share_a_caption_are_no_negatives_of_each_other():
    rows = Dataset.from_dict(
        {"image": [png(shade) for shade in range(6)], "text": ["a cat"] * 4 + ["a dog", "a fish"]},
        features=Features(image=Image(), text=Value("string")),
    )
    expanded = pairs.label(rows, 2, "seed")
    texts = [expanded["document"][start : start + 3] for start in range(0, len(expanded), 3)]
    assert all(len({*each}) == 3 for each in texts)


def test_a_folder_of_captioned_images_takes_the_place_of_the_doodles(tmp_path, caplog):
    features = Features(picture=Image(), caption=Value("string"))
    rows = {"picture": [png(shade) for shade in range(40)], "caption": [f"shade {i // 2}" for i in range(40)]}
    DatasetDict(train=Dataset.from_dict(rows, features=features)).save_to_disk(str(tmp_path / "own"))
    columns = {"image": "picture", "text": "caption"}
    options = {"columns": columns, "eval_fraction": 0.25, "num_negatives": 2}
    with caplog.at_level(logging.INFO):
        data = doodles.load(str(tmp_path / "own"), **options)
    evaluated = {*data.directions["text_to_image"].queries["query"]}
    assert not evaluated & {*data.train["text_to_image"]["query"]}
    assert "dropped" in caplog.text  # rows whose caption is in the evaluation
    assert sum(len(ids) for ids in data.directions["text_to_image"].relevant_docs.values()) == 10
    labels = np.array(data.train["image_to_text"]["label"])
    assert labels.mean() == pytest.approx(1 / 3)
    alone = doodles.load(str(tmp_path / "own"), **options, evaluation_only=True)
    assert alone.train is None and alone.describe() == data.describe()
    unlabelled = doodles.load(str(tmp_path / "own"), **options, labelled=False)
    assert len(unlabelled.train["image_to_text"]) == len(labels) / 3
    assert unlabelled.evaluation_fingerprint == data.evaluation_fingerprint
    with pytest.raises(ConfigError, match="eval_fraction=0.25 of 40 rows is 10; type data.num_eval_rows=10 or"):
        doodles.load(str(tmp_path / "own"), **options, num_eval_rows=11)
