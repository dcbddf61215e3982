"""The multilingual set on a local stand-in of its schema; `benchmarks/multilingual_memory.py` does it at full size."""

import logging

import datasets
import pyarrow.parquet
import pytest
from datasets import Dataset

from experiments.config.errors import ConfigError
from experiments.data.sources import multilingual
from standin import page, write, write_rows

NUM_ROWS = 400
OPTIONS = {"name": "vdr", "num_eval_rows": 10}


@pytest.fixture(scope="module")
def standin(tmp_path_factory):
    """The stand-in's folder and its rows by language."""
    folder = tmp_path_factory.mktemp("vdr")
    return folder, write(folder, NUM_ROWS)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        yield


def load(standin, cache, language="en", **options):
    return multilingual.load(str(standin[0]), language, cache_dir=cache, **(OPTIONS | options))


def expected(rows, language, number):
    """Return {query: [page, negative, ...]} by a plain reading of the rows, those with too few negatives left out."""
    row_of = {row["id"]: i for i, row in enumerate(rows)}
    found = {}
    for i, row in enumerate(rows):
        negatives = [row_of[id_] for id_ in dict.fromkeys(row["negatives"]) if id_ in row_of and id_ != row["id"]]
        if row["query"] and len(negatives) >= number:
            found[row["query"]] = [page(language, j) for j in (i, *negatives[:number])]
    return found


@pytest.mark.parametrize("number", [0, 1, 4, 8])
def test_every_hard_negative_is_the_page_that_its_id_names(encoded, standin, cache, number):
    data = load(standin, cache, num_negatives=number, deduplicate=False)
    columns = ["query", "image", *(f"negative_{k}" for k in range(number))]
    assert data.train.column_names == columns
    assert data.eval.column_names == columns[:6]  # as in training, of the four in the corpus
    pages = zip(*(encoded(data.train, column) for column in columns[1:]), strict=True)
    got = {query: list(row) for query, row in zip(data.train["query"], pages, strict=True)}
    wanted = expected(standin[1]["en"], "en", number)
    evaluated = set(data.direction.queries["query"])
    assert got == {query: row for query, row in wanted.items() if query not in evaluated}
    assert len(got) > 200 and len(data.train) == len(got)


def test_evaluation_is_the_last_rows_with_a_query_and_does_not_change_with_the_training_rows(encoded, standin, cache):
    data = load(standin, cache, num_negatives=0, deduplicate=False)
    wanted = expected(standin[1]["en"], "en", 4)
    assert list(data.direction.queries["query"]) == list(wanted)[-10:]
    documents = dict(zip(data.direction.corpus["corpus_id"], encoded(data.direction.corpus, "document"), strict=True))
    assert sorted(documents.values()) == sorted(page for row in list(wanted.values())[-10:] for page in row)
    rows = {id_: name.row for id_, name in data.direction.names.items()}  # of the source, which names its pages
    assert documents == {id_: page("en", row) for id_, row in rows.items()}
    for query, (right,) in zip(data.direction.queries["query"], data.direction.relevant_docs.values(), strict=True):
        assert documents[right] == wanted[query][0]
    for options in ({"num_negatives": 4}, {"num_train_rows": 20, "num_negatives": 6}):
        other = load(standin, cache, deduplicate=False, **options)
        assert other.evaluation_fingerprint == data.evaluation_fingerprint
    assert len(other.train) == 20


def test_no_evaluation_page_or_query_is_trained_on(encoded, standin, cache, caplog):
    caplog.set_level(logging.INFO)
    data = load(standin, cache, num_negatives=2)
    evaluated = set(encoded(data.direction.corpus, "document"))
    trained = {page for column in data.train.column_names[1:] for page in encoded(data.train, column)}
    assert not evaluated & trained and not {*data.direction.queries["query"]} & {*data.train["query"]}
    assert "training rows that hold an evaluation page or query" in caplog.text
    assert "passed over" in caplog.text and "ids of hard negatives that name no page here" in caplog.text


def test_another_language_has_rows_and_pages_of_its_own(encoded, standin, cache):
    data = load(standin, cache, "it", deduplicate=False)
    assert all(query.startswith("it ") for query in data.train["query"])
    wanted = expected(standin[1]["it"], "it", 1)
    assert encoded(data.train, "negative_0") == [wanted[query][1] for query in data.train["query"]]


def test_pages_are_kept_once_and_missing_ones_are_fetched_again(standin, tmp_path):
    load(standin, str(tmp_path), num_train_rows=20)
    (folder,) = tmp_path.glob("vdr-en-*")
    files = {path: path.stat().st_mtime_ns for path in folder.glob("pages/*/*")}
    assert 20 < len(files) < NUM_ROWS // 2
    lost = next(iter(files))
    lost.unlink()
    data = load(standin, str(tmp_path), num_train_rows=20, num_negatives=2)
    assert lost.exists()
    assert all(path.stat().st_mtime_ns == time for path, time in files.items() if path != lost)
    assert data.train.cache_files and data.train.cache_files[0]["filename"].startswith(str(folder))


def test_an_evaluation_alone_fetches_no_page_of_a_training_row(standin, tmp_path, cache):
    alone, whole = load(standin, str(tmp_path), evaluation_only=True), load(standin, cache)
    assert alone.train is None and alone.describe() == whole.describe()
    assert len([*tmp_path.glob("vdr-en-*/pages/*/*")]) == len(whole.direction.corpus)


def test_a_folder_without_configurations_is_filtered_by_its_column(encoded, tmp_path, cache):
    rows = {language: write_rows(tmp_path, language, 100) for language in ("en", "it")}
    for language in rows:  # all files side by side: one table of two languages
        for part, file in enumerate((tmp_path / language).glob("*.parquet")):
            file.rename(tmp_path / f"{language}-{part}.parquet")
    data = load((tmp_path, rows), cache, "it", deduplicate=False)
    wanted = expected(rows["it"], "it", 1)
    assert encoded(data.train, "negative_0") == [wanted[query][1] for query in data.train["query"]]
    assert len(data.train) + len(data.direction.queries) == len(wanted)
    with pytest.raises(ConfigError, match="data.language=fr: no row has it; there are en, it"):
        load((tmp_path, rows), cache, "fr")


def test_an_unreadable_page_is_left_out_or_refused_by_its_row(tmp_path, cache):
    rows = write(tmp_path, 100)
    file = tmp_path / "en" / "train-00000-of-00002.parquet"
    table = pyarrow.parquet.read_table(file)
    images = [b"no image" if i == 3 else page("en", i) for i in range(len(table))]
    column = pyarrow.array([{"bytes": image, "path": None} for image in images], table.schema.field("image").type)
    pyarrow.parquet.write_table(table.set_column(2, table.schema.field("image"), column), file)
    with pytest.raises(ConfigError, match=r"row 3 \(from 0\) of column image .*not a readable image"):
        load((tmp_path, rows), cache, deduplicate=False)
    data = load((tmp_path, rows), cache, deduplicate=False, on_bad_image="skip")
    assert "en question 3" not in data.train["query"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"language": "eng"}, "data.language=eng: .* has en, it: did you mean en"),
        ({"split": "test"}, "data.split=test: .* has train"),
        ({"num_negatives": 30}, r"data.num_negatives \(at most 16 here\)"),
        ({"num_eval_rows": 1000}, "lower data.num_eval_rows=1000"),
        ({"num_eval_negatives": 6}, "is above data.num_corpus_negatives=4; type data.num_corpus_negatives=6"),
    ],
)
def test_what_cannot_be_is_a_config_error(standin, cache, options, message):
    with pytest.raises(ConfigError, match=message):
        load(standin, cache, **options)


def test_other_columns_and_a_missing_folder_are_config_errors(tmp_path, cache):
    Dataset.from_dict({"id": ["a"], "query": ["b"], "language": ["en"]}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ConfigError, match="no column image and no negatives"):
        load((tmp_path, None), cache)
    with pytest.raises(ConfigError, match="absent"):
        load((tmp_path / "absent", None), cache)
