"""Pages that are searched besides those of the evaluation rows: `data.corpus`."""

import logging

import datasets
import PIL.Image
import pytest
from datasets import Dataset, DatasetDict

from experiments.config.checks import check
from experiments.config.errors import ConfigError
from experiments.data.sources import hub, table
from experiments.reports.run_report import write_run_report
from experiments.reports.settings import load_settings
from finished import finished_run, keep_queries

OPTIONS = {"name": "own", "columns": {"query": "query", "positive": "page", "negatives": []}}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write(folder, name, pages, column="page", **cells):
    rows = {"query": [f"question {i} of {name}" for i in range(len(pages))]} if name != "all.csv" else {}
    Dataset.from_dict(rows | {column: pages} | cells).to_csv(folder / name)
    return str(folder / name)


@pytest.fixture
def tables(tmp_path):
    """Pages of text: trained on are a and b, evaluated c and d; the archive has all of them, e, and f twice."""
    write(tmp_path, "train.csv", ["page a", "page b"])
    write(tmp_path, "eval.csv", ["page c", "page d"])
    write(tmp_path, "all.csv", [f"page {letter}" for letter in "abcdeff"])
    return tmp_path


def load(folder, corpus="all.csv", **options):
    corpus = None if corpus is None else str(folder / corpus)
    return table.load(str(folder / "train.csv"), str(folder / "eval.csv"), corpus, **(OPTIONS | options))


def test_queries_meet_the_whole_archive_in_which_equal_pages_are_one(tables, caplog):
    caplog.set_level(logging.INFO)
    data, alone = load(tables), load(tables, None)
    assert sorted(data.direction.corpus["document"]) == [f"page {letter}" for letter in "abcdef"]
    assert data.direction.relevant_docs == alone.direction.relevant_docs  # of the archive nothing is relevant
    assert list(data.direction.corpus["corpus_id"]) == sorted(data.direction.corpus["corpus_id"])
    assert list(data.train["page"]) == ["page a", "page b"]
    assert data.describe()["num_documents"] == 6
    assert data.describe()["from_corpus"] == {"num_documents": 4, "num_in_training": 2}
    assert "corpus: 6 documents, 4 of them from data.corpus alone; 2 of these are in training rows" in caplog.text
    assert "from_corpus" not in alone.describe()


def test_the_report_says_how_many_documents_are_of_the_archive_and_trained_on(tables, tmp_path):
    finished_run(tmp_path / "run", evaluation=load(tables).describe())
    said = "- documents of data.corpus: 4 of the 6 searched, none of them relevant; 2 of them in training rows, too"
    assert said in write_run_report(tmp_path / "run").splitlines()


def test_an_evaluation_alone_is_compared_with_a_training_that_searched_the_same_archive(tables, tmp_path):
    alone = table.load(None, str(tables / "eval.csv"), str(tables / "all.csv"), evaluation_only=True, **OPTIONS)
    described = alone.describe(), load(tables).describe()
    assert described[0]["from_corpus"] != described[1]["from_corpus"]  # which of them are trained on
    runs = [tmp_path / "evaluated", tmp_path / "trained"]
    for run, evaluation in zip(runs, described, strict=True):
        keep_queries(finished_run(run, config={"run_name": run.name}, evaluation=evaluation))
    assert len(load_settings(runs)) == 2


def test_the_archive_is_another_evaluation_of_the_same_training_rows(tables):
    data, alone = load(tables), load(tables, None)
    assert data.fingerprint != alone.fingerprint
    assert data.evaluation_fingerprint != alone.evaluation_fingerprint
    assert data.train_fingerprint == alone.train_fingerprint
    write(tables, "all.csv", [f"page {letter}" for letter in "fedcba"])  # the same in another order
    assert load(tables).fingerprint == data.fingerprint


def test_evaluated_pages_stay_out_of_training_though_the_archive_may_share_pages_with_it(tables):
    write(tables, "train.csv", ["page a", "page b", "page c"])
    assert list(load(tables).train["page"]) == ["page a", "page b"]


def test_a_relevant_page_has_no_twin_in_the_archive_even_where_rows_stand_as_they_are(tables):
    write(tables, "eval.csv", ["page c", "page c"])
    data = load(tables, deduplicate=False)
    assert sorted(data.direction.corpus["document"]) == [
        "page a",
        "page b",
        *["page c"] * 2,
        "page d",
        "page e",
        "page f",
    ]
    assert [len(ids) for ids in data.direction.relevant_docs.values()] == [1, 1]


def test_pages_of_the_archive_are_called_by_their_own_table_and_files_of_another_folder_by_their_path(tables):
    direction = load(tables).direction
    labels = {row["document"]: direction.label(row["corpus_id"]) for row in direction.corpus}
    assert (labels["page c"], labels["page f"]) == ("eval.csv row 0", "all.csv row 5")
    (tables / "eval").mkdir()
    for number in range(4):
        PIL.Image.new("RGB", (4, 4), (9 * number, 0, 0)).save(tables / f"{number}.png")
        PIL.Image.new("RGB", (4, 4), (0, 9 * number + 9, 0)).save(tables / "eval" / f"{number}.png")
    write(tables, "train.csv", ["0.png", "1.png"])
    write(tables, "all.csv", ["2.png", "3.png", "eval/1.png"], column="scan")
    write(tables / "eval", "eval.csv", ["0.png", "1.png"])
    columns = OPTIONS["columns"] | {"corpus": "scan"}
    files = [str(tables / name) for name in ("train.csv", "eval/eval.csv", "all.csv")]
    data = table.load(*files, **(OPTIONS | {"columns": columns}))
    assert data.direction.corpus[0]["document"].size == (4, 4)
    found = {name.label for name in data.direction.names.values()}
    assert found == {"0.png", "1.png", str(tables / "2.png"), str(tables / "3.png")}


@pytest.mark.parametrize("queries", [["question 0", "question 1"], ["2.png", "3.png"]])
def test_an_archive_of_files_with_other_columns_may_hold_no_further_page(tmp_path, queries, caplog):
    caplog.set_level(logging.INFO)
    for number in range(4):
        PIL.Image.new("RGB", (4, 4), (9 * number, 0, 0)).save(tmp_path / f"{number}.png")
    file = write(tmp_path, "eval.csv", ["0.png", "1.png"], query=queries, note=["x", "y"])
    data = table.load(None, file, file, evaluation_only=True, **OPTIONS)
    assert [len(data.direction.corpus), len(data.direction.queries)] == [2, 2]
    assert "corpus: 2 documents, 0 of them from data.corpus alone" in caplog.text


def test_a_split_of_a_saved_data_set_may_be_the_archive_and_stays_on_disk(tables):
    parts = {name: Dataset.from_csv(str(tables / f"{name}.csv")) for name in ("train", "eval", "all")}
    DatasetDict(parts).save_to_disk(tables / "saved")
    splits = {"train": {"split": "train"}, "eval": {"split": "eval"}, "corpus": {"split": "all"}}
    data = hub.load(str(tables / "saved"), **splits, **OPTIONS)
    assert data.fingerprint == load(tables).fingerprint
    names = {name.label for name in data.direction.names.values()}
    assert names >= {"own row 0", "own corpus row 5"}
    with pytest.raises(ConfigError, match="data.corpus.split=al: .* has train, eval, all: did you mean 'all'"):
        hub.load(str(tables / "saved"), **(splits | {"corpus": {"split": "al"}}), **OPTIONS)


def test_an_archive_that_does_not_fit_is_refused(tables, composed):
    config = composed("data=table", f"data.train={tables / 'train.csv'}")
    write(tables, "all.csv", ["page a"], column="pages")
    for corpus, message in (
        ("nothing.csv", "data.corpus=.*nothing.csv: there is no such file"),
        (".", "is a folder; type a table's name: a CSV with a column page, a row for each page"),
        ("all.csv", "data.corpus=.*all.csv has no column page; type data.columns.corpus=pages"),
    ):
        with pytest.raises(ConfigError, match=message):
            check(config | {"data": config["data"] | {"corpus": str(tables / corpus)}})
    with pytest.raises(ConfigError, match="the corpus data set has no column 'page'; .* did you mean 'pages'"):
        load(tables)
    PIL.Image.new("RGB", (4, 4)).save(tables / "0.png")
    write(tables, "all.csv", ["0.png"])
    with pytest.raises(ConfigError, match="data.corpus holds images, the evaluation's column 'page' texts"):
        load(tables)
    write(tables, "all.csv", ["1.png"])
    with pytest.raises(ConfigError, match=r"all.csv, row 0 \(from 0; line 2\) of column page: no page file .*1.png"):
        load(tables)


def test_an_evaluation_alone_reads_no_training_rows_for_its_archive(tables):
    data = table.load(None, str(tables / "eval.csv"), str(tables / "all.csv"), evaluation_only=True, **OPTIONS)
    assert data.describe()["from_corpus"] == {"num_documents": 4, "num_in_training": None}
    assert data.evaluation_fingerprint == load(tables).evaluation_fingerprint
