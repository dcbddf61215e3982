"""The offline twin of the multilingual source set: what is written, and what multilingual.load makes of it."""

import logging
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
from datasets import get_dataset_config_names

from experiments.config.checks import check
from experiments.config.errors import ConfigError
from experiments.config.keys import config_hash
from experiments.data.drawn import multilingual_pages
from experiments.data.drawn.multilingual_pages import NUM_NEGATIVES, rows_of, source_set
from experiments.data.drawn.page import ATTRIBUTES
from experiments.data.drawn.queries import LANGUAGES
from experiments.data.drawn.report_pages import draw_png
from experiments.data.sources import multilingual
from experiments.models.tiny.qwen3vl import train_tokenizer
from experiments.stages import build
from standin import FEATURES

SIZE = (32, 32)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache with the set, which is drawn once for this module."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "datasets")
        source_set(cache_dir=str(folder), page_size=SIZE)
        yield folder


@pytest.fixture(scope="module")
def tables(cache):
    """The rows of each language, as they are on disk."""
    folder = source_set(cache_dir=str(cache), page_size=SIZE)
    return {language: pq.read_table(f"{folder}/{language}").to_pylist() for language in LANGUAGES}


@pytest.fixture
def config(composed):
    size = f"data.path.page_size=[{SIZE[0]},{SIZE[1]}]"
    return lambda cache, *overrides: composed(
        "data=vdr_multilingual_tiny", f"data.cache_dir={cache}", size, *overrides
    )


@pytest.fixture
def load(config):
    def load_checked(cache, *overrides):
        plain = config(cache, *overrides)
        check(plain)
        return build(plain["data"])

    return load_checked


def in_common(page, other):
    return sum(mine == theirs for mine, theirs in zip(page, other, strict=True))


def test_the_schema_is_that_of_the_source(cache):
    folder = source_set(cache_dir=str(cache), page_size=SIZE)
    assert get_dataset_config_names(folder) == [*LANGUAGES]
    for language in LANGUAGES:
        files = sorted(Path(folder, language).iterdir())
        assert [file.name for file in files] == [f"train-0000{number}-of-00002.parquet" for number in (0, 1)]
        for file in files:
            schema = pq.read_schema(file)
            assert {*multilingual.Source("default", (), "").columns} == {*schema.names} == {*FEATURES}
            assert {name: schema.field(name).type for name in schema.names} == {
                name: FEATURES.arrow_schema.field(name).type for name in FEATURES
            }


def test_rows_hold_pages_once_and_name_the_nearest_others_by_their_ids(tables):
    rows = rows_of(seed=0)
    assert rows == rows_of(seed=0) != rows_of(seed=1)
    for language, table in tables.items():
        page_of = {line["id"]: row[0] for line, row in zip(table, rows, strict=True)}
        assert len(page_of) == len({*page_of.values()}) == len(table) == 2880
        for line, row in zip(table, rows, strict=True):
            assert [page_of[id_] for id_ in line["negatives"]] == row[1:]
            assert (line["query"] is None) == (not row[1:]) and line["language"] == language
    for page, *negatives in rows[:1600]:
        assert len({page, *negatives}) == 1 + NUM_NEGATIVES
        likeness = [in_common(page, negative) for negative in negatives]
        assert likeness[:4] == [4] * 4 and likeness == sorted(likeness, reverse=True)
    for number in (0, 1599, 2879):
        assert tables["it"][number]["image"]["bytes"] == draw_png(rows[number][0], SIZE, seed=0)


def test_a_query_states_all_that_is_on_its_page_in_its_language(tables):
    rows = rows_of(seed=0)
    for language, words in LANGUAGES.items():
        for attribute, values in ATTRIBUTES.items():
            assert len({*getattr(words, attribute)}) == len(values)
        assert all(f"{{{attribute}}}" in wording for wording in words.wordings for attribute in ATTRIBUTES)
        for line, row in zip(tables[language][:100], rows, strict=False):
            for attribute, value in row[0]._asdict().items():
                assert getattr(words, attribute)[ATTRIBUTES[attribute].index(value)] in line["query"]
    queries = [{line["query"] for line in table} - {None} for table in tables.values()]
    assert [len(each) for each in queries] == [1600] * 5 and len(set.union(*queries)) == 8000


def test_no_combination_of_an_evaluated_page_is_trained_on(encoded, load, cache, caplog):
    caplog.set_level(logging.INFO)
    data = load(cache, "data.language=it", "data.num_negatives=6")
    assert (len(data.train), len(data.direction.queries), len(data.direction.corpus)) == (1500, 100, 500)
    trained = {page for column in data.train.column_names[1:] for page in encoded(data.train, column)}
    assert not trained & {*encoded(data.direction.corpus, "document")}
    assert data.train.column_names == ["query", "image", *(f"negative_{k}" for k in range(6))]
    assert "dropped" not in caplog.text and "passed over" not in caplog.text


def test_a_language_is_chosen_and_its_rows_are_resolved_into_its_pages(encoded, load, cache, tables):
    data = load(cache, "data.language=fr", "data.num_train_rows=50", "data.num_negatives=2", "data.num_eval_rows=5")
    page_of = {line["id"]: line["image"]["bytes"] for line in tables["fr"]}
    assert [*data.train["query"]] == [line["query"] for line in tables["fr"][:50]]
    for k in range(2):
        assert encoded(data.train, f"negative_{k}") == [page_of[line["negatives"][k]] for line in tables["fr"][:50]]
    assert [*data.direction.queries["query"]] == [line["query"] for line in tables["fr"][1595:1600]]
    assert data.name == "vdr-tiny-fr-hard"
    with pytest.raises(ConfigError, match="data.language=pt: .* has en, es, it, de, fr"):
        load(cache, "data.language=pt")


def test_it_is_written_once_or_not_at_all_and_where_it_is_changes_no_result(config, cache, tmp_path, monkeypatch):
    monkeypatch.delattr(multilingual_pages, "draw_pngs")
    assert source_set(cache_dir=str(cache), page_size=SIZE)
    with pytest.raises(NameError):
        source_set(seed=1, cache_dir=str(tmp_path))
    assert not [*tmp_path.iterdir()]
    assert config_hash(config(cache)) == config_hash(config(tmp_path)) != config_hash(config(cache, "seed=1"))
    with pytest.raises(ConfigError, match=r"data.path.page_size=\[8,8\]: must be at least 32"):
        check(config(cache, "data.path.page_size=[8,8]"))


@pytest.mark.parametrize("text", ["¿qué página?", "Grün, im Überblick", "отчёт", "四半期の報告", "تقرير", "🟦"])
def test_the_embedded_tokenizer_represents_every_script(text):
    tokenizer = train_tokenizer()
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
