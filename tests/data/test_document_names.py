"""What documents and queries are called: by their files, or by the rows that they stand in."""

import datasets
import PIL.Image
import pytest
from datasets import Dataset, Image

from experiments.config.errors import ConfigError
from experiments.data import from_rows
from experiments.data.document_names import DocumentName
from experiments.data.sources import doodles, hub, table
from experiments.evaluation.trec import write_names

COLUMNS = {"query": "query", "positive": "page", "negatives": []}
NAMES = [f"scans/{i}.png" for i in range(6)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def folder(tmp_path):
    """Six pages, of which the last two are equal."""
    (tmp_path / "scans").mkdir()
    for number, name in enumerate(NAMES):
        PIL.Image.new("RGB", (4, 4), (40 * min(number, 4), 9, 9)).save(tmp_path / name)
    return tmp_path


def write(folder, name="pages.csv", **cells):
    rows = Dataset.from_dict({"query": [f"query {i} of {name}" for i in range(len(cells["page"]))]} | cells)
    (folder / name).unlink(missing_ok=True)
    rows.to_csv(folder / name)
    return str(folder / name)


def load(train, eval=None, **options):
    options = {"name": "own", "columns": COLUMNS, "num_eval_rows": None if eval else 3} | options
    return table.load(train, eval, **options)


def labels(data):
    """Labels in the order of the corpus, with what they stand for."""
    return {data.direction.label(id_): id_ for id_ in data.direction.corpus["corpus_id"]}


def test_pages_are_called_by_their_files_and_queries_by_their_rows(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "far.png"
    PIL.Image.new("RGB", (4, 4), "white").save(elsewhere)
    data = load(write(folder, page=[*NAMES[:4], str(elsewhere), str(folder / NAMES[4])]))
    direction = data.direction
    assert set(labels(data)) == {"scans/3.png", str(elsewhere), "scans/4.png"}
    assert direction.names[labels(data)["scans/3.png"]] == DocumentName(
        "scans/3.png", 3, None, "scans/3.png", 1, "pages.csv"
    )
    assert direction.label("q0002") == "pages.csv row 5"
    assert direction.label("no id") == "no id"


def test_texts_are_called_by_their_row_and_a_negative_by_its_column_too(folder):
    train = write(folder, page=["a", "b", "c"])
    eval = write(folder, "eval.csv", page=["d", "e", "f"], wrong=["g", "e", "h"])
    data = load(train, eval, columns=COLUMNS | {"negatives": ["wrong"]}, num_negatives=0)
    documents = dict(zip(data.direction.corpus["document"], data.direction.corpus["corpus_id"], strict=True))
    found = {text: data.direction.names[id_] for text, id_ in documents.items()}
    assert found["f"] == DocumentName("eval.csv", 2, None, "eval.csv row 2", 1, "eval.csv")
    assert found["g"].label == "eval.csv row 0, wrong"
    assert found["e"] == DocumentName("eval.csv", 1, None, "eval.csv row 1", 2, "eval.csv")  # once right, once wrong


def test_columns_tell_the_document_and_its_page(folder):
    cells = {"page": ["a", "b", "c", "d"], "from": ["x.pdf", "x.pdf", "y.pdf", "y.pdf"], "number": [1, 2, 1, 2]}
    told = {"file": "from", "page_number": "number"}
    data = load(write(folder, **cells), columns=COLUMNS | told, num_eval_rows=1)
    (name,) = data.direction.names.values()
    assert name == DocumentName("y.pdf", 3, 2, "y.pdf page 2", 1, "pages.csv")
    assert data.direction.label("q0000") == "pages.csv row 3"
    with pytest.raises(ConfigError, match="no column 'fro'; there are query, page, from, number: did you mean 'from'"):
        load(write(folder, **cells), columns=COLUMNS | {"file": "fro"}, num_eval_rows=1)


def test_equal_pages_are_called_by_the_first_and_counted(folder):
    eval = write(folder, "eval.csv", page=NAMES[3:])
    names = load(write(folder, page=NAMES[:3]), eval).direction.names
    assert {(name.label, name.num_cells) for name in names.values()} == {("scans/3.png", 1), ("scans/4.png", 2)}


def test_encoded_pages_are_called_by_set_and_row_with_what_their_file_was_called(folder):
    pages = Dataset.from_dict({"query": list("abcdef"), "page": [str(folder / name) for name in NAMES]})
    pages.cast_column("page", Image()).save_to_disk(folder / "saved")  # takes the files' content along
    options = {"name": "own", "columns": COLUMNS, "num_eval_rows": 2}
    direction = hub.load(str(folder / "saved"), {}, None, **options).direction
    assert {(each.file, each.label) for each in direction.names.values()} == {("4.png", "own row 4 (4.png)")}
    arrays = [{"bytes": (folder / name).read_bytes(), "path": None} for name in NAMES]
    rows = Dataset.from_dict({"query": list("abcdef"), "page": arrays})
    direction = from_rows.build(rows.select([0]), rows.select([1]), columns=COLUMNS, name="own").direction
    assert [name.label for name in direction.names.values()] == ["own row 0"]


def test_captioned_images_are_called_by_their_rows_in_the_data_set_on_either_side(folder):
    pictures = [PIL.Image.new("RGB", (4, 4), (20 * i, 0, 0)) for i in range(12)]
    images = Dataset.from_dict({"text": [f"picture {i}" for i in range(12)], "image": pictures})
    images.save_to_disk(folder / "saved")
    data = doodles.load(str(folder / "saved"), eval_fraction=0.25, num_negatives=0)
    for direction in data.directions.values():
        texts = direction.corpus if isinstance(direction.corpus[0]["document"], str) else direction.queries
        for id_, text in zip(*(texts[name] for name in texts.column_names), strict=True):
            assert direction.label(id_) == f"doodles row {text.split()[1]}"
    named, ids = data.directions["image_to_text"].query_names, data.directions["text_to_image"].names
    assert {each.label for each in named.values()} == {each.label for each in ids.values()}


def test_the_files_of_names_hold_a_line_for_each_id_as_it_stands_in_trec_files(tmp_path):
    odd, plain = (
        DocumentName("a\tb\\.png", 0, None, "a\nb", 2, "t.csv"),
        DocumentName("c.pdf", 1, 3, "c.pdf page 3", 1, "t.csv"),
    )
    names = {"q1": odd, "q2": plain}
    write_names(tmp_path, "documents", {"query_to_document": names})
    lines = (tmp_path / "documents.tsv").read_text().splitlines()
    assert lines == [
        "id\tfile\trow\tpage\tlabel\tnum_cells\ttable",
        "q1\ta\\tb\\\\.png\t0\t\ta\\nb\t2\tt.csv",
        "q2\tc.pdf\t1\t3\tc.pdf page 3\t1\tt.csv",
    ]
    write_names(tmp_path, "documents", {"text_to_image": names, "image_to_text": names})
    ids = [line.split("\t")[0] for line in (tmp_path / "documents.tsv").read_text().splitlines()[1:]]
    assert ids == ["text_to_image/q1", "text_to_image/q2", "image_to_text/q1", "image_to_text/q2"]
