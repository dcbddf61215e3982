import hashlib
import io
import logging
import re
import shutil
import subprocess
import sys

import datasets
import huggingface_hub.constants
import numpy as np
import PIL.Image
import pytest
from datasets import Dataset, DatasetDict, Features, Image, Value

from experiments.config.checks import check
from experiments.config.errors import ConfigError
from experiments.config.hub import require_hub
from experiments.data import encoded_pages, from_rows
from experiments.data.sources import hub, table
from experiments.data.types import Data

COLUMNS = {"query": "query", "positive": "image", "negatives": ["negative_0", "negative_1"]}
FEATURES = Features({"query": Value("string")} | {c: Image() for c in ("image", "negative_0", "negative_1")})
OPTIONS = {"name": "pages", "num_negatives": 1, "deduplicate": True, "on_bad_image": "error"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def page(number, format="PNG"):
    pixels = np.random.default_rng(number).integers(0, 255, (12, 10, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


def rows(*numbers, start=0):
    """Rows of a query and pages given by number; None is an empty cell, bytes are a page as they stand."""
    cells = {"query": [f"query {start + i}" for i in range(len(numbers))]}
    for k, column in enumerate(("image", "negative_0", "negative_1")):
        values = [row[k] for row in numbers]
        encoded = [page(value) if isinstance(value, int) else value for value in values]
        cells[column] = [None if value is None else {"bytes": value, "path": None} for value in encoded]
    return Dataset.from_dict(cells, features=FEATURES)


TRAIN = [(0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11)]
EVAL = [(20, 21, 22), (23, 24, 25)]


def build(train=None, eval=None, columns=COLUMNS, **options) -> Data:
    train = rows(*TRAIN) if train is None else train
    eval = rows(*EVAL, start=100) if eval is None else eval
    return from_rows.build(train, eval, columns=columns, **(OPTIONS | options))


# Building


def test_columns_are_those_of_the_loss_and_the_corpus_holds_positives_and_all_negatives(encoded):
    data = build(columns=COLUMNS | {"negatives": ["negative_1", "negative_0"]})
    assert data.train.column_names == data.eval.column_names == ["query", "image", "negative_1"]
    assert data.direction.queries[:] == {"query_id": ["q0000", "q0001"], "query": ["query 100", "query 101"]}
    assert sorted(encoded(data.direction.corpus, "document")) == sorted(page(number) for number in range(20, 26))
    assert data.direction.corpus[0]["document"].size == (10, 12)
    documents = dict(zip(data.direction.corpus["corpus_id"], encoded(data.direction.corpus, "document"), strict=True))
    positives = {query: [documents[i] for i in ids] for query, ids in data.direction.relevant_docs.items()}
    assert positives == {"q0000": [page(20)], "q0001": [page(23)]}


def test_corpus_ids_are_content_hashes_in_order():
    ids = list(build().direction.corpus["corpus_id"])
    assert ids == sorted(ids)
    assert all(len(set(i) - set("0123456789abcdef")) == 0 and len(i) == 16 for i in ids)
    swapped = [(row[1], row[0], row[2]) for row in EVAL]
    assert list(build(eval=rows(*swapped, start=100)).direction.corpus["corpus_id"]) == ids


def test_equal_pages_are_one_document_and_equal_queries_one_query(encoded):
    eval = rows((20, 21, 22), (23, 20, 25), (22, 24, 25))
    eval = eval.remove_columns("query").add_column("query", ["same", "other", "same"])
    data = build(eval=eval)
    assert len(data.direction.corpus) == 6
    assert list(data.direction.queries["query"]) == ["same", "other"]
    documents = dict(zip(data.direction.corpus["corpus_id"], encoded(data.direction.corpus, "document"), strict=True))
    assert {documents[i] for i in data.direction.relevant_docs["q0000"]} == {page(20), page(22)}
    assert {documents[i] for i in data.direction.relevant_docs["q0001"]} == {page(23)}


def test_without_deduplication_every_occurrence_is_a_document_as_in_the_article():
    eval = rows((20, 21, 22), (23, 20, 20), (20, 24, 25))
    eval = eval.remove_columns("query").add_column("query", ["same", "other", "same"])
    data = build(rows(*TRAIN, (20, 1, 2)), eval, deduplicate=False)
    assert (len(data.direction.corpus), len(set(data.direction.corpus["corpus_id"])), len(data.train)) == (9, 9, 5)
    assert list(data.direction.queries["query"]) == ["same", "other", "same"]
    assert [len(ids) for ids in data.direction.relevant_docs.values()] == [1, 1, 1]
    assert len(set.union(*data.direction.relevant_docs.values())) == 3
    digest = hashlib.sha256(page(20)).hexdigest()[:16]
    repeats = [i for i in data.direction.corpus["corpus_id"] if i.startswith(digest)]
    assert sorted(i[16:] for i in repeats) == ["", "-1", "-2", "-3"]


def test_numbers_of_repeats_do_not_tell_what_is_relevant():
    # All positives and negatives are one page: the lowest id must be a positive about as often as chance has it.
    data = build(eval=rows(*[(20, 20, 20)] * 100, start=100), deduplicate=False)
    ranks = {corpus_id: rank for rank, corpus_id in enumerate(data.direction.corpus["corpus_id"])}
    mean = np.mean([ranks[i] for ids in data.direction.relevant_docs.values() for i in ids])
    assert len(ranks) == 300
    assert abs(mean - 149.5) < 25


def test_training_rows_with_an_evaluation_item_are_dropped_and_counted(caplog):
    caplog.set_level(logging.INFO)
    train = rows(*TRAIN, (25, 40, 41), (42, 21, 43), (44, 45, 20), (46, 47, 48))
    queries = [*train["query"][:7], "query 100"]
    data = build(train.remove_columns("query").add_column("query", queries))
    # Row 4 by its page, row 5 by its negative, row 7 by its query; row 6's item is in a column not trained on.
    assert list(data.train["query"]) == [f"query {i}" for i in (0, 1, 2, 3, 6)]
    assert "dropped 3 of 8 training rows that hold an evaluation page or query" in caplog.text


def test_training_rows_that_all_leak_are_an_error():
    with pytest.raises(ConfigError, match=r"all 2 training rows hold an evaluation page"):
        build(rows(*EVAL), rows(*EVAL))


def test_texts_may_stand_on_either_side():
    train = Dataset.from_dict({"question": [page_dict(1)], "answer": ["yes"]}).cast_column("question", Image())
    eval = Dataset.from_dict({"question": [page_dict(2)], "answer": ["no"]}).cast_column("question", Image())
    data = build(train, eval, {"query": "question", "positive": "answer", "negatives": []}, num_negatives=0)
    assert data.direction.queries[0]["query"].size == (10, 12)
    assert list(data.direction.corpus["document"]) == ["no"]


def page_dict(number):
    return {"bytes": page(number), "path": None}


def test_pages_without_the_library_s_feature_become_images():
    plain = rows(*EVAL).cast(Features(dict.fromkeys(COLUMNS["negatives"], IMAGE_STRUCT) | QUERY_AND_STRUCT))
    assert plain.features["image"] == IMAGE_STRUCT
    assert build(eval=plain, deduplicate=False).direction.corpus.features["document"] == Image()
    binary = Dataset.from_dict({"query": ["a"], "image": [page(20)]})
    data = build(binary, binary, COLUMNS | {"negatives": []}, num_negatives=0, deduplicate=False)
    assert data.direction.corpus[0]["document"].size == (10, 12)


IMAGE_STRUCT = {"bytes": Value("binary"), "path": Value("string")}
QUERY_AND_STRUCT = {"query": Value("string"), "image": IMAGE_STRUCT}


def test_a_missing_further_negative_is_no_document():
    data = build(eval=rows((20, 21, None), (23, 24, 25), start=100))
    assert (len(data.direction.queries), len(data.direction.corpus)) == (2, 5)


def test_pages_stay_on_disk(tmp_path):
    DatasetDict(train=rows(*TRAIN), eval=rows(*EVAL, start=100)).save_to_disk(tmp_path / "saved")
    data = hub.load(
        str(tmp_path / "saved"), train={"split": "train"}, eval={"split": "eval"}, columns=COLUMNS, **OPTIONS
    )
    for dataset, number in ((data.train, 1), (data.direction.corpus, 2)):
        assert {file["filename"].startswith(str(tmp_path / "saved")) for file in dataset.cache_files} == {True}
        assert len({file["filename"] for file in dataset.cache_files}) == 1, number


def test_a_shuffled_evaluation_gives_the_same_corpus():
    eval = rows(*EVAL, start=100)
    shuffled = build(eval=eval.select([1, 0]))
    assert list(shuffled.direction.corpus["corpus_id"]) == list(build(eval=eval).direction.corpus["corpus_id"])
    assert list(shuffled.direction.queries["query"]) == ["query 101", "query 100"]


def test_fingerprint_depends_on_the_content_alone(tmp_path):
    fingerprint = build().fingerprint
    DatasetDict(train=rows(*TRAIN), eval=rows(*EVAL, start=100)).save_to_disk(tmp_path / "saved")
    code = f"""
from experiments.data.sources import hub
print(hub.load({str(tmp_path / "saved")!r}, {{"split": "train"}}, {{"split": "eval"}},
      name="other name", columns={COLUMNS!r}, num_negatives=1).fingerprint)"""
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.split()[-1] == fingerprint
    assert build(num_negatives=2).fingerprint != fingerprint
    assert build(num_negatives=2).evaluation_fingerprint == build().evaluation_fingerprint
    assert build(rows(*TRAIN[:3])).fingerprint != fingerprint
    assert build(eval=rows(EVAL[0], (23, 25, 24), start=100)).fingerprint != fingerprint


# Hashes


def test_hashes_are_of_encoded_bytes_and_of_text(tmp_path):
    (tmp_path / "page.png").write_bytes(page(3))
    dataset = rows((3, 4, None)).add_column("file", [{"path": str(tmp_path / "page.png")}], feature=Image())
    hashes = encoded_pages.content_hashes(dataset)
    contents = (b"query 0", page(3), page(4), b"None", page(3))
    assert hashes.dtype == np.int64
    assert [encoded_pages.content_id(found) for found in hashes[0].tolist()] == [
        hashlib.sha256(content).hexdigest()[:16] for content in contents
    ]


def test_hashes_survive_a_file_s_disappearance_as_they_are_computed_once(tmp_path):
    for number in (*range(6), *range(20, 26)):
        (tmp_path / f"{number}.png").write_bytes(page(number))
    train, eval = (
        Dataset.from_dict(
            {"query": [f"query {row[0]}" for row in numbers]}
            | {c: [str(tmp_path / f"{row[k]}.png") for row in numbers] for k, c in enumerate(FEATURES) if c != "query"}
        )
        for numbers in ([(0, 0, 1, 2), (3, 3, 4, 5)], [(20, 20, 21, 22), (23, 23, 24, 25)])
    )
    data = build(train.cast(FEATURES), eval.cast(FEATURES))
    expected = [encoded_pages.content_hash(page(number)) for number in (0, 3)]
    for file in tmp_path.glob("*.png"):
        file.unlink()
    assert encoded_pages.content_hashes(data.train)[:, 1].tolist() == expected
    assert encoded_pages.content_hashes(data.train.with_transform(lambda batch: batch)).shape == (2, 3)
    contents = encoded_pages.content_hashes(data.direction.corpus)[:, 1].tolist()
    ids = [encoded_pages.content_id(found) for found in contents]
    assert ids == data.direction.corpus["corpus_id"][:]


def test_rows_that_are_selected_or_mapped_bring_no_hashes_of_others():
    data = build()
    fewer = data.train.select([2, 0])
    other = data.train.select_columns(["image", "query"])
    assert not isinstance(fewer, encoded_pages.HashedRows)
    hashes = encoded_pages.content_hashes(data.train)
    assert np.array_equal(encoded_pages.content_hashes(fewer), hashes[[2, 0]])
    assert np.array_equal(encoded_pages.content_hashes(other), hashes[:, [1, 0]])


def test_training_hashes_are_those_of_the_rows_left():
    data = build(rows((20, 1, 2), *TRAIN))
    fresh = Dataset.from_dict(data.train.with_format("arrow")[:].to_pydict(), features=data.train.features)
    assert len(data.train) == 4
    assert (encoded_pages.content_hashes(data.train) == encoded_pages.content_hashes(fresh)).all()


# Bad pages


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "GIF"])
def test_whole_images_pass_and_truncated_ones_do_not(format):
    data = page(1, format)
    assert encoded_pages.image_defect(data) is None
    for part in (data[: len(data) // 2], data[:20], b"", b"no image at all"):
        assert encoded_pages.image_defect(part).startswith("not a readable image (")


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_bytes_after_the_image_are_tolerated(format):
    assert encoded_pages.image_defect(page(1, format) + b"\0\0trailer") is None


def test_grey_pages_of_more_than_8_bits_which_turn_white_are_counted(caplog):
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.full((12, 10), 30_000, dtype=np.uint16)).save(buffer, "PNG")
    build(rows(*TRAIN, (1, buffer.getvalue(), 3), (buffer.getvalue(), 2, 3)))
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said.startswith("2 grey pages have more than 8 bits a pixel, first row 4 (from 0) of column negative_0:")


@pytest.mark.parametrize("bad", [page(7)[:-40], b"no image", None])
def test_a_bad_page_names_its_row_or_is_left_out_and_counted(bad, caplog):
    train = rows(*TRAIN[:2], (6, bad, 8))
    with pytest.raises(
        ConfigError, match=r"training data set, row 2 \(from 0\) of column negative_0: .*bad_image=skip"
    ):
        build(train)
    data = build(train, on_bad_image="skip")
    assert list(data.train["query"]) == ["query 0", "query 1"]
    assert "left out 1 of 3 training rows" in caplog.text


def test_an_evaluation_row_with_a_bad_page_leaves_no_trace():
    data = build(eval=rows(EVAL[0], (23, 24, page(25)[:-40]), (26, 27, 28), start=100), on_bad_image="skip")
    assert list(data.direction.queries["query"]) == list(data.eval["query"]) == ["query 100", "query 102"]
    assert len(data.direction.corpus) == 6
    assert set(data.direction.relevant_docs) == {"q0000", "q0001"}


def test_only_bad_rows_are_an_error():
    with pytest.raises(ConfigError, match="no training row is left"):
        build(rows((0, b"", 1), (2, 3, 4)).select([0]), on_bad_image="skip")


# Options


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": COLUMNS | {"positive": "imag"}}, r"no column 'imag'; there are query, image, .* mean 'image'"),
        ({"num_negatives": 3}, r"num_negatives=3, but data.columns.negatives names 2 \(negative_0, negative_1\)"),
        ({"num_negatives": -1}, r"num_negatives=-1"),
        ({"columns": COLUMNS | {"positive": "query"}}, "'query' twice"),
        ({"train": rows(*TRAIN).select([])}, "training data set is empty"),
        ({"eval": rows(*EVAL).select([])}, "evaluation data set is empty"),
        ({"train": rows(*TRAIN).remove_columns("query").add_column("query", [1, 2, 3, 4])}, "'query' .* neither text"),
    ],
)
def test_an_option_that_cannot_be_is_a_config_error(changes, message):
    with pytest.raises(ConfigError, match=message):
        build(**changes)


def test_negatives_of_another_kind_than_the_positives_are_an_error():
    eval = rows(*EVAL).remove_columns("negative_1").add_column("negative_1", ["a", "b"])
    with pytest.raises(ConfigError, match="'image' and 'negative_1' one holds texts, the other images"):
        build(eval=eval)


def test_evaluation_rows_come_from_the_end_of_training_rows_and_are_not_in_them():
    train, eval = from_rows.first_rows(rows(*TRAIN), None, None, 1)
    assert (list(train["query"]), list(eval["query"])) == (["query 0", "query 1", "query 2"], ["query 3"])
    train, eval = from_rows.first_rows(rows(*TRAIN), rows(*EVAL), 2, 1)
    assert (len(train), len(eval)) == (2, 1)


def test_too_few_rows_to_take_an_evaluation_from_are_an_error():
    with pytest.raises(ConfigError, match="4 training rows, and 4 of them"):
        from_rows.first_rows(rows(*TRAIN), None, None, 4)


@pytest.mark.parametrize("source", ["table", "hub", "doodles", "vdr_multilingual"])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("num_train_rows=0", "num_train_rows=0: must be at least 1"),
        ("num_eval_rows=-3", "num_eval_rows=-3: must be at least 1"),
        ("num_negatives=-1", "num_negatives=-1: must be at least 0"),
        ("on_bad_image=ignore", "on_bad_image=ignore: choose from error, skip"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(composed, source, override, message):
    path = {"table": ["data.train=a.csv"], "hub": ["data.path=a/b"]}.get(source, [])
    with pytest.raises(ConfigError, match=f"data.{message}"):
        check(composed(f"data={source}", *path, f"data.{override}"))


def test_a_share_is_between_0_and_1(composed):
    for share, message in ((0, "must be above 0"), (1, "must be below 1"), (1.5, "must be below 1")):
        with pytest.raises(ConfigError, match=f"data.eval_fraction={share}: {message}"):
            check(composed("data=doodles", f"data.eval_fraction={share}"))


# Tables


@pytest.fixture
def folder(tmp_path):
    """Tables beside a folder of pages."""
    (tmp_path / "scans").mkdir()
    for number in range(12):
        (tmp_path / "scans" / f"{number}.png").write_bytes(page(number))
    return tmp_path


def write_table(folder, name, cells):
    dataset = Dataset.from_dict(cells)
    path = folder / name
    getattr(dataset, {"csv": "to_csv", "parquet": "to_parquet", "jsonl": "to_json"}[name.split(".")[1]])(path)
    return str(path)


CELLS = {
    "query": [f"query {i}" for i in range(6)],
    "page": [f"scans/{i}.png" for i in range(6)],
    "other": [f"scans/{i + 6}.png" for i in range(6)],
}
TABLE_COLUMNS = {"query": "query", "positive": "page", "negatives": ["other"]}
PLAIN = {"name": "own", "columns": {"query": "query", "positive": "page"}}
TABLE = {"eval": None, "columns": TABLE_COLUMNS, "num_eval_rows": 2} | OPTIONS


@pytest.mark.parametrize("name", ["pages.csv", "pages.parquet", "pages.jsonl"])
def test_a_table_s_pages_are_read_from_paths_relative_to_it(folder, name):
    data = table.load(write_table(folder, name, CELLS), **TABLE)
    assert list(data.train["query"]) == ["query 0", "query 1", "query 2", "query 3"]
    assert data.train.with_format("arrow")[0]["page"].to_pylist() == [
        {"bytes": None, "path": str(folder / "scans" / "0.png")}
    ]
    assert np.array_equal(np.array(data.train[0]["page"]), np.array(PIL.Image.open(io.BytesIO(page(0)))))
    assert len(data.direction.corpus) == 4


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_a_csv_s_columns_may_be_parted_by_other_marks(folder, mark):
    cells = CELLS | {"query": [f"what, or {i}?" for i in range(6)]}
    for name in ("pages.csv", "pages.tsv"):
        lines = [mark.join(row) for row in [cells, *zip(*cells.values(), strict=True)]]
        (folder / name).write_text("\ufeff" * (mark == ";") + "\n".join(lines))  # as Excel writes it
        assert list(table.load(str(folder / name), **TABLE).train["query"])[1] == "what, or 1?"


def test_what_parts_the_columns_is_typed_where_it_could_be_two_marks(folder):
    (folder / "two.csv").write_text("query|page;n\nwhat|scans/0.png;1\nwhy|scans/1.png;2\n")
    options = TABLE | {"columns": TABLE_COLUMNS | {"positive": "page;n", "negatives": []}, "num_negatives": 0}
    with pytest.raises(ConfigError, match=r"type data.delimiter=semicolon, or data.delimiter=pipe"):
        table.load(str(folder / "two.csv"), **options)
    data = table.load(str(folder / "two.csv"), delimiter="pipe", **(options | {"num_eval_rows": 1}))
    assert list(data.train["page;n"]) == ["scans/0.png;1"]


def test_a_table_in_the_home_directory_is_named_by_a_tilde(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    write_table(folder, "home.csv", CELLS)
    assert len(table.load("~/home.csv", **TABLE).train) == 4


def test_absolute_paths_and_a_table_of_its_own_for_the_evaluation(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    cells = {"query": ["a"], "page": [str(folder / "scans" / "7.png")]}
    options = TABLE | {"columns": TABLE_COLUMNS | {"negatives": []}, "num_negatives": 0, "num_eval_rows": None}
    data = table.load(
        write_table(folder, "train.csv", CELLS), **(options | {"eval": write_table(elsewhere, "eval.csv", cells)})
    )
    assert (len(data.train), len(data.direction.queries), len(data.direction.corpus)) == (6, 1, 1)


def test_an_evaluation_alone_is_that_of_a_training_whose_rows_are_not_read(folder, saved):
    cells = {"query": ["a", "b"], "page": ["scans/7.png", "scans/8.png"], "other": ["scans/1.png", "scans/2.png"]}
    tables = {"train": write_table(folder, "train.csv", CELLS), "eval": write_table(folder, "eval.csv", cells)}
    splits = {"train": {"split": "train"}, "eval": {"split": "test"}, "columns": COLUMNS}
    sources = [
        (table.load, TABLE | tables, {"train": str(folder / "nowhere.csv")}),
        (table.load, TABLE | tables, {"train": None}),
        (table.load, TABLE | {"train": tables["train"]}, {}),  # from the end of the training rows
        (hub.load, OPTIONS | splits | {"path": str(saved / "splits")}, {"train": {"split": "nowhere"}}),
    ]
    for load, options, without in sources:
        whole, alone = load(**options), load(**options | without, evaluation_only=True)
        assert alone.train is None and len(whole.train)
        assert alone.describe() == whole.describe()
        assert alone.fingerprints == {"evaluation": whole.evaluation_fingerprint}
        for column, part in (("query_id", "queries"), ("corpus_id", "corpus")):
            ids = (list(getattr(data.direction, part)[column]) for data in (alone, whole))
            assert len({*map(tuple, ids)}) == 1
        assert alone.direction.relevant_docs == whole.direction.relevant_docs


def test_a_table_of_texts_stays_text(folder):
    cells = CELLS | {"page": [f"answer {i}" for i in range(6)], "other": [f"wrong {i}" for i in range(6)]}
    data = table.load(write_table(folder, "texts.jsonl", cells), **TABLE)
    assert sorted(data.direction.corpus["document"]) == ["answer 4", "answer 5", "wrong 4", "wrong 5"]


def test_of_a_short_table_without_evaluation_rows_the_last_fifth_evaluates(folder):
    cells = {"query": [f"query {i}" for i in range(12)], "page": [f"answer {i}" for i in range(12)]}
    path, columns = write_table(folder, "texts.jsonl", cells), TABLE_COLUMNS | {"negatives": []}
    data = table.load(path, **(TABLE | {"columns": columns, "num_negatives": 0, "num_eval_rows": None}))
    assert sorted(data.direction.corpus["document"]) == ["answer 10", "answer 11"]
    assert len(data.train) == 10


def test_a_missing_page_file_names_its_row_even_where_bad_images_are_skipped(folder):
    path = write_table(folder, "pages.csv", CELLS)
    (folder / "scans" / "5.png").unlink()
    with pytest.raises(ConfigError, match=r"pages.csv, row 5 \(from 0; line 7\) of column page: no page file .*5.png"):
        table.load(path, **(TABLE | {"on_bad_image": "skip"}))


def test_a_page_file_that_goes_missing_later_names_its_row(folder):
    dataset = Dataset.from_dict({"page": [str(folder / "scans" / "0.png")]}).cast_column("page", Image())
    shutil.rmtree(folder / "scans")
    with pytest.raises(ConfigError, match=r"row 0 \(from 0\) of column page: no page file .*0.png"):
        encoded_pages.content_hashes(dataset)


def test_a_column_of_paths_and_texts_is_an_error(folder):
    path = write_table(folder, "pages.csv", CELLS | {"page": [*CELLS["page"][:5], "a text"]})
    with pytest.raises(ConfigError, match=r"row 5 \(from 0; line 7\) of column page: 'a text' is no image file"):
        table.load(path, **TABLE)


def test_a_truncated_page_file_names_its_row(folder):
    path = write_table(folder, "pages.csv", CELLS)
    (folder / "scans" / "1.png").write_bytes(page(1)[:-40])
    with pytest.raises(ConfigError, match=r"row 1 \(from 0; line 3\) of column page .*scans/1.png\): not a readable"):
        table.load(path, **TABLE)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("query,page\na,b\nc,\n\n", "row 1 (from 0; line 3)"),
        ('query,page\n"two\nlines",b\nc,\n', "row 1 (from 0)"),
        ("query,page\n\na,b\nc,\n", "row 1 (from 0)"),
    ],
)
def test_an_empty_cell_is_named_by_its_table_its_row_and_its_line_if_each_row_has_one(folder, text, place):
    for name in ("eval.csv", "train.csv"):
        (folder / name).write_text("query,page\nx,y\n")
    for name in ("eval.csv", "train.csv"):
        (folder / name).write_text(text)
        with pytest.raises(ConfigError, match=re.escape(f"{name}, {place} of column page: empty; data.on_bad_image")):
            table.load(str(folder / "train.csv"), str(folder / "eval.csv"), **PLAIN)
        (folder / name).write_text("query,page\nx,y\n")


def test_an_evaluation_row_from_the_end_of_a_table_is_named_by_its_number_there(folder):
    (folder / "own.csv").write_text("query,page\n" + "".join(f"query {i},text {i}\n" for i in range(5)) + "x,\n")
    with pytest.raises(ConfigError, match=re.escape("own.csv, row 5 (from 0; line 7) of column page: empty")):
        table.load(str(folder / "own.csv"), None, **PLAIN)


def test_what_other_tools_read_as_nothing_is_a_text_as_any_other(folder):
    (folder / "own.csv").write_text("query,page\nNA,NULL\nnan,n/a\nwhat,None\n")
    data = table.load(None, str(folder / "own.csv"), evaluation_only=True, **PLAIN)
    assert list(data.direction.queries["query"]) == ["NA", "nan", "what"]
    assert sorted(data.direction.corpus["document"]) == ["NULL", "None", "n/a"]


def test_a_table_in_another_encoding_is_refused_in_one_line_that_says_what_to_do(folder, composed, capfd):
    for encoding in ("cp1252", "utf-16"):
        (folder / "own.csv").write_bytes("query,page\na,b\nWie groß?,b\n".encode(encoding))
        said = r'own.csv is not UTF-8 text, see line \d; .* save it as "CSV UTF-8" \(Excel: Save As\)'
        with pytest.raises(ConfigError, match=said):
            check(composed("data=table", f"data.train={folder / 'own.csv'}"))
        with pytest.raises(ConfigError, match=said):
            table.load(None, str(folder / "own.csv"), evaluation_only=True, **PLAIN)
    assert capfd.readouterr().err == ""


def test_a_table_that_cannot_be_read_is_a_config_error(folder):
    (folder / "pages.xlsx").write_text("")
    (folder / "broken.parquet").write_text("no parquet")
    (folder / "broken.jsonl").write_text('{"query": ')
    (folder / "empty.csv").write_text("")
    (folder / "header.csv").write_text("query,page,other\n")
    Dataset.from_dict(CELLS).select([]).to_parquet(folder / "no_row.parquet")
    for name, message in (
        ("pages.xlsx", "a table is one of .parquet, .csv"),
        ("absent.csv", "no such file"),
        ("broken.jsonl", "broken.jsonl: could not read it"),
        ("broken.parquet", "data.train=.*broken.parquet: could not read it"),
        ("empty.csv", "data.train=.*empty.csv: the data set is empty"),
        ("header.csv", "the data set is empty"),
        ("no_row.parquet", "the data set is empty"),
    ):
        with pytest.raises(ConfigError, match=message):
            table.load(str(folder / name), **TABLE)


def test_a_table_s_missing_column_is_a_config_error(folder):
    columns = TABLE_COLUMNS | {"positive": "pages"}
    with pytest.raises(ConfigError, match="no column 'pages'; there are query, page, other: did you mean 'page'"):
        table.load(write_table(folder, "pages.csv", CELLS), **(TABLE | {"columns": columns}))


# The Hub and saved folders


@pytest.fixture
def saved(tmp_path):
    DatasetDict(train=rows(*TRAIN), test=rows(*EVAL, start=100)).save_to_disk(tmp_path / "splits")
    rows(*TRAIN).save_to_disk(tmp_path / "plain")
    return tmp_path


def test_a_saved_folder_is_loaded_with_its_splits_or_without(saved):
    options = {"columns": COLUMNS} | OPTIONS
    data = hub.load(str(saved / "splits"), train={"split": "train"}, eval={"split": "test"}, **options)
    assert (len(data.train), len(data.direction.queries)) == (4, 2)
    data = hub.load(str(saved / "plain"), train={"split": "train"}, eval=None, num_eval_rows=1, **options)
    assert list(data.train["query"]) == ["query 0", "query 1", "query 2"]
    assert list(data.direction.queries["query"]) == ["query 3"]
    arguments = {"train": {"name": "splits", "split": "train"}, "eval": {"name": "splits", "split": "test"}}
    assert len(hub.load(str(saved), **arguments, **options).train) == 4


def test_a_folder_of_files_is_loaded_as_the_library_does(saved):
    (saved / "files").mkdir()
    rows(*TRAIN).to_parquet(saved / "files" / "train.parquet")
    rows(*EVAL, start=100).to_parquet(saved / "files" / "test.parquet")
    options = {"columns": COLUMNS} | OPTIONS
    data = hub.load(str(saved / "files"), train={"split": "train"}, eval={"split": "test"}, **options)
    assert data.fingerprint == build().fingerprint
    with pytest.raises(ConfigError, match=r"could not load data set .*split.*tset.*test"):
        hub.load(str(saved / "files"), train={"split": "train"}, eval={"split": "tset"}, **options)
    with pytest.raises(ConfigError, match=r"has splits: set data.train.split to one of train, test"):
        hub.load(str(saved / "files"), train={}, eval=None, **options)


@pytest.mark.parametrize(
    ("path", "eval", "message"),
    [
        ("splits", {"split": "tset"}, "data.eval.split=tset: .* has train, test: did you mean 'test'"),
        ("plain", {"split": "test"}, "has no splits: type data.eval=null"),
        ("absent", None, "data.path=.*absent: no such folder"),
    ],
)
def test_a_folder_that_does_not_fit_is_a_config_error(saved, path, eval, message):
    with pytest.raises(ConfigError, match=message):
        hub.load(str(saved / path), train={"split": "train"}, eval=eval, columns=COLUMNS, **OPTIONS)


@pytest.fixture
def _no_hub(monkeypatch):
    for key in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


@pytest.mark.usefixtures("_no_hub")
def test_a_hub_out_of_reach_is_said_at_once_with_ways_to_work_offline():
    message = r"data.path=a/b: no such folder, and could not reach the Hub \(http://127.0.0.1:9: .*save_to_disk"
    with pytest.raises(ConfigError, match=message) as refused:
        hub.load("a/b", train={"split": "train"}, eval=None, columns=COLUMNS, **OPTIONS)
    assert "HF_HUB_OFFLINE=1" in str(refused.value)


@pytest.mark.usefixtures("_no_hub")
def test_the_hub_is_not_asked_in_offline_mode_or_behind_a_proxy(monkeypatch):
    with pytest.raises(ConfigError, match="model a/b: could not reach the Hub"):
        require_hub("model a/b")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    require_hub("model a/b")
    monkeypatch.delenv("http_proxy")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    require_hub("model a/b")


def test_offline_mode_without_the_data_set_in_the_cache_is_a_config_error(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        ConfigError, match=r"data.path=absent/absent: it is not in the cache, and HF_HUB_OFFLINE is set"
    ):
        hub.load("absent/absent", train={"split": "train"}, eval=None, columns=COLUMNS, **OPTIONS)
