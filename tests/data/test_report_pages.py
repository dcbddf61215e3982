import hashlib
import io
import random
from collections import Counter

import pytest
from PIL import Image

from experiments.config.checks import check
from experiments.config.errors import ConfigError
from experiments.data.drawn import report_pages
from experiments.data.drawn.page import ATTRIBUTES, Page, draw_page
from experiments.data.drawn.queries import LANGUAGES, write_query
from experiments.data.drawn.report_pages import NEGATIVES, choose_rows, load
from experiments.data.drawn.sets import drawn_once

WORDINGS = LANGUAGES["en"].wordings
PAGE = Page("energy", "third quarter", "bar chart", "blue", "on the left")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """24 training and 10 evaluation rows, drawn once for this module."""
    cache_dir = tmp_path_factory.mktemp("cache")
    return load(24, 10, num_negatives=1, cache_dir=str(cache_dir)), cache_dir


def differing(page, other):
    return [attribute for attribute in ATTRIBUTES if getattr(page, attribute) != getattr(other, attribute)]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("num_eval_rows", [100, 144])
def test_no_combination_of_an_evaluation_page_occurs_in_training(seed, num_eval_rows):
    train_rows, eval_rows = choose_rows(1024, num_eval_rows, seed)
    held_out = {page for row in eval_rows for page in row}
    assert not held_out & {page for row in train_rows for page in row}
    assert len(held_out) == 5 * num_eval_rows
    assert len({row[0] for row in train_rows}) == len(train_rows) == 1024


def test_each_negative_differs_in_exactly_one_attribute_and_a_row_never_repeats_one():
    for rows in choose_rows(1024, 100, seed=0):
        for i, (page, *negatives) in enumerate(rows):
            attributes = [differing(page, negative) for negative in negatives]
            assert attributes == [[report_pages.differing_attribute(i, k)] for k in range(4)]
            assert len({attribute for (attribute,) in attributes}) == 4


def test_each_attribute_is_tested_by_four_fifths_of_the_queries_and_taught_by_a_fifth_of_first_negatives():
    train_rows, eval_rows = choose_rows(1000, 100, seed=0)
    tested = Counter(differing(row[0], negative)[0] for row in eval_rows for negative in row[1:])
    assert tested == dict.fromkeys(ATTRIBUTES, 80)
    assert Counter(differing(*row[:2])[0] for row in train_rows) == dict.fromkeys(ATTRIBUTES, 200)


def test_every_value_is_the_right_one_for_some_evaluation_query():
    _, eval_rows = choose_rows(1, 100, seed=0)
    for attribute, values in ATTRIBUTES.items():
        assert {getattr(row[0], attribute) for row in eval_rows} == set(values)


def test_training_rows_do_not_depend_on_how_many_there_are():
    assert choose_rows(100, 100, seed=0)[0] == choose_rows(1024, 100, seed=0)[0][:100]


def test_more_rows_than_combinations_repeat_pages():
    train_rows, _ = choose_rows(5000, 10, seed=0)
    assert len(train_rows) == 5000 > len({row[0] for row in train_rows}) > 2000


@pytest.mark.parametrize("wording", WORDINGS)
def test_every_wording_states_every_attribute(wording):
    for value in PAGE:
        assert value in wording.format(**PAGE._asdict())


def test_queries_come_in_several_wordings():
    rng = random.Random(0)
    assert len({write_query(PAGE, rng) for _ in range(100)}) == len(WORDINGS)


@pytest.mark.parametrize("size", [(128, 128), (60, 90), (850, 1100)])
def test_a_page_has_the_size_asked_for_and_the_same_pixels_each_time(size):
    page = draw_page(PAGE, size)
    assert page.size == size
    assert page.tobytes() == draw_page(PAGE, size).tobytes() != draw_page(PAGE, size, seed=1).tobytes()


def test_another_value_of_any_attribute_is_another_picture():
    pages = [PAGE._replace(**{attribute: value}) for attribute, values in ATTRIBUTES.items() for value in values]
    assert len({draw_page(page).tobytes() for page in pages}) == len(set(pages))


def test_columns_are_those_of_vdr_en(encoded, small):
    data, cache_dir = small
    assert data.train.column_names == data.eval.column_names == ["query", "image", "negative_0"]
    (folder,) = cache_dir.iterdir()
    stored = report_pages.load_from_disk(str(folder))
    for part, rows in (("train", 24), ("eval", 10)):
        assert stored[part].column_names == ["query", "image", *NEGATIVES]
        assert stored[part].num_rows == rows
    assert all(page.startswith(b"\x89PNG") for page in encoded(stored["eval"], "negative_3"))
    assert isinstance(data.train[0]["image"], Image.Image)


def test_corpus_holds_five_pages_a_query_and_the_right_one_among_them(encoded, small):
    data, _ = small
    assert data.direction.queries.num_rows == 10
    assert data.direction.corpus.num_rows == 50
    pages = dict(zip(data.direction.corpus["corpus_id"], encoded(data.direction.corpus, "document"), strict=True))
    for row, query_id in zip(encoded(data.eval, "image"), data.direction.queries["query_id"], strict=True):
        assert [pages[corpus_id] for corpus_id in data.direction.relevant_docs[query_id]] == [row]


def test_attribute_negatives_name_the_page_that_differs_in_that_attribute(encoded, small):
    data, _ = small
    _, eval_rows = choose_rows(24, 10, seed=0)
    pages = dict(zip(data.direction.corpus["corpus_id"], encoded(data.direction.corpus, "document"), strict=True))
    for query_id, row in zip(data.direction.queries["query_id"], eval_rows, strict=True):
        assert len(data.direction.attribute_negatives[query_id]) == 4
        for attribute, corpus_id in data.direction.attribute_negatives[query_id].items():
            (negative,) = [page for page in row[1:] if differing(row[0], page) == [attribute]]
            drawn = Image.open(io.BytesIO(pages[corpus_id]))
            assert drawn.tobytes() == draw_page(negative).tobytes()


def test_pages_are_drawn_once(small, monkeypatch):
    data, cache_dir = small
    monkeypatch.delattr(report_pages, "draw_page")
    assert load(24, 10, cache_dir=str(cache_dir)).fingerprint == data.fingerprint
    assert load(24, 10, num_negatives=4, cache_dir=str(cache_dir)).train.column_names[2:] == list(NEGATIVES)
    with pytest.raises(NameError):
        load(24, 10, seed=1, cache_dir=str(cache_dir))


def test_a_build_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.delattr(report_pages.Dataset, "from_dict")
    with pytest.raises(AttributeError):
        load(4, 2, cache_dir=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_of_two_builders_at_once_the_later_yields(tmp_path):
    def draw(folder, what, meanwhile=lambda: None):
        meanwhile()
        folder.mkdir()
        (folder / "what").write_text(what)

    def first():
        drawn_once(str(tmp_path), "pages", "seed0", lambda folder: draw(folder, "first"))

    folder = drawn_once(str(tmp_path), "pages", "seed0", lambda folder: draw(folder, "later", first))
    assert [path.read_text() for path in tmp_path.rglob("what")] == ["first"]
    assert [str(path) for path in tmp_path.iterdir()] == [folder]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("num_train_rows=0", "data.num_train_rows=0: must be at least 1"),
        ("num_eval_rows=145", "data.num_eval_rows=145: must be at most 144"),
        ("num_negatives=5", "data.num_negatives=5: must be at most 4"),
        ("page_size=[8,8]", r"data.page_size=\[8,8\]: must be at least 32"),
        ("page_size=[128]", r"data.page_size=\[128\]: expected integers \(tuple\[int, int\]\)"),
    ],
)
def test_a_number_out_of_range_is_refused(composed, override, message):
    with pytest.raises(ConfigError, match=message):
        check(composed("data=report_pages", f"data.{override}"))


def test_a_quarter_of_all_pages_at_most_is_held_out():
    assert 144 == len(report_pages.all_pages(0)) // 4 // (1 + len(NEGATIVES))


def test_equal_pages_are_equal_bytes(encoded, small):
    _, cache_dir = small
    (folder,) = cache_dir.iterdir()
    stored = report_pages.load_from_disk(str(folder))
    train_rows, _ = choose_rows(24, 10, seed=0)
    by_page = {}
    for k, column in enumerate(("image", *NEGATIVES)):
        for row, page in zip(train_rows, encoded(stored["train"], column), strict=True):
            digest = hashlib.sha256(page).hexdigest()
            assert by_page.setdefault(row[k], digest) == digest
