"""The leaderboard over finished runs: its tables, its figures, and the article's values beside it."""

import re

import pytest
import yaml
from PIL import Image

from experiments import report
from experiments.reports import leaderboard, leaderboard_figures
from experiments.runs.files import load_json, save_json
from experiments.runs.run import load_finished, load_run
from finished import EVALUATION, finished_run

ARTICLE_DATA = {"path": "tomaarsen/llamaindex-vdr-en-train-preprocessed", "eval": {"name": "eval", "split": "train"}}
ARTICLE_EVALUATION = {"name": "vdr-eval-hard", "num_queries": 300, "num_documents": 1493, "fingerprint": "vdr"}


def model(name, parameters=1_400_000):
    return {"name": name, "parameters": parameters, "embedding_dim": 96, "truncate_dim": None}


def cells(text, heading=""):
    """Return the rows of the tables below a heading, as lists of cells."""
    lines = text[text.index(heading) :].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [row for row in rows if not set("".join(row)) <= set("-:")]


@pytest.fixture(scope="module")
def three_runs(tmp_path_factory):
    """The folder of three runs, and its report, the article's values asked for."""
    folder = tmp_path_factory.mktemp("runs")
    finished_run(folder / "trained", model=model("qwen3vl_tiny"))
    finished_run(folder / "clip", base={96: 0.5, 48: 0.45}, final=None, model=model("clip_tiny", 400_000))
    finished_run(folder / "llava", base={64: 0.7}, final=None, model=model("owner/llava", 620_000))
    return folder, write(folder, published=True)


def write(folder, published=False):
    return report.write_report([folder], folder / "out", published)[0]


def test_models_table_has_each_model_as_it_is_and_finetuned_best_first(three_runs):
    rows = cells(three_runs[1])
    assert [row[:5] for row in rows[1:5]] == [
        ["qwen3vl_tiny", "finetuned", "1.4 M", "0.874 [0.844, 0.904]", "96"],
        ["owner/llava", "as it is", "620 k", "0.700 [0.670, 0.730]", "64"],
        ["clip_tiny", "as it is", "400 k", "0.500 [0.470, 0.530]", "96"],
        ["qwen3vl_tiny", "as it is", "1.4 M", "0.016 [0.000, 0.046]", "–"],
    ]


def test_dimensions_table_is_of_the_best_trained_run_with_shares_of_the_full_dimension(three_runs):
    rows = cells(three_runs[1], "### Dimensions of qwen3vl_tiny")
    assert rows[0] == ["dimensions", "base [95% interval]", "% of full", "finetuned [95% interval]", "% of full"]
    assert rows[2] == ["48", "0.015 [0.000, 0.045]", "93.8%", "0.865 [0.835, 0.895]", "98.9%"]
    rows = cells(three_runs[1], "of every run by dimension")
    assert rows[0] == ["model", "96", "64", "48", "24", "12"]
    assert ["clip_tiny", "0.500 (100.0%)", "–", "0.450 (90.0%)", "–", "–"] in rows


def test_figures_are_written_and_named_in_the_page(three_runs):
    folder, _ = three_runs
    page = (folder / "out" / "report.md").read_text()
    for name in ("size_against_ndcg.png", "dimensions_against_ndcg.png"):
        assert f"](figures/{name})" in page
        with Image.open(folder / "out" / "figures" / name) as image:
            assert image.width > 1000


def test_base_of_a_sweep_is_one_row_and_its_runs_are_told_apart_by_what_was_swept(tmp_path):
    for size in (1, 4):
        config = {"loss": {"mini_batch_size": size}, "data": {"cache_dir": f"{size}"}}
        finished_run(tmp_path / str(size), config=config, model=model("tiny"), final={96: 0.8 + size / 100})
    entries = leaderboard.entries(load_finished([tmp_path]))
    assert [(entry.label, entry.kind) for entry in entries] == [
        ("tiny mini_batch_size=4", "finetuned"),
        ("tiny mini_batch_size=1", "finetuned"),
        ("tiny", "as it is"),
    ]


def test_bases_of_a_sweep_are_told_apart_by_what_they_depend_on(tmp_path):
    for size, pixels in ((1, 4096), (4, 16384)):
        config = {"loss": {"mini_batch_size": size}, "model": {"max_pixels": pixels}}
        finished_run(tmp_path / str(size), config=config, model=model("tiny"), base={96: size / 100})
    labels = [entry.label for entry in leaderboard.entries(load_finished([tmp_path])) if entry.kind == "as it is"]
    assert labels == ["tiny max_pixels=16384", "tiny max_pixels=4096"]


def test_other_data_gets_a_section_of_its_own(tmp_path):
    finished_run(tmp_path / "a", model=model("one"))
    finished_run(tmp_path / "b", model=model("two"), evaluation=EVALUATION | {"fingerprint": "other"})
    finished_run(tmp_path / "c", model=model("three"))
    boards = leaderboard.boards(load_finished([tmp_path]))
    title = "nDCG@10 on report-pages-hard: 100 queries, 500 documents"
    assert [(heading, [run.metrics["model"]["name"] for run in runs]) for heading, runs in boards] == [
        (f"{title} (data abc)", ["one", "three"]),
        (f"{title} (data other)", ["two"]),
    ]


def test_runs_without_dimensions_are_ranked_too(tmp_path):
    finished_run(tmp_path / "a", model=model("reranker"))
    file = tmp_path / "a" / "metrics.json"
    metrics = load_json(file)
    for key, value in (("base", 0.4), ("final", 0.9)):
        directions = ("both", "image_to_text")
        values = {"cosine_ndcg@10": value, "cosine_ndcg@10_ci95": [0.3, 0.95]}
        metrics[key] = {"directions": {name: values for name in directions}}
    save_json(file, metrics)
    assert cells(write(tmp_path))[1][:4] == ["reranker", "finetuned", "1.4 M", "0.900 [0.300, 0.950]"]
    assert not (tmp_path / "out" / "figures" / "dimensions_against_ndcg.png").exists()


# The article's values


def test_published_values_stand_beside_runs_on_the_same_data_marked_as_published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vdr")
    dims = leaderboard.load_published()["dimensions"]
    base, final = ({dim: row[k] - 0.01 for dim, row in dims.items()} for k in (0, 1))
    evaluation = {"evaluation": ARTICLE_EVALUATION, "model": model("Qwen/Qwen3-VL-Embedding-2B", 2_127_532_032)}
    finished_run(folder / "run", base=base, final=final, config={"data": ARTICLE_DATA}, **evaluation)
    text = write(folder, published=True)
    rows = [row for row in cells(text)[1:] if row[1] == "published"]
    assert len(rows) == 20 and all(row[4:] == ["–"] * 4 and "[" not in row[3] for row in rows)
    assert "not measured here" in text and "300 queries, 1,500 documents" in text
    table = cells(text, "### Dimensions")
    assert table[0][5:] == ["published base", "% of full", "published finetuned", "% of full"]
    assert table[4][5:] == ["0.876", "97.8%", "0.945", "99.7%"]


@pytest.mark.parametrize(
    ("config", "evaluation", "why"),
    [
        ({}, {}, "and these runs of vdr-eval-hard.$"),  # a name alone makes no data set
        ({"data": {"path": "mine"}}, {}, "and these runs of vdr-eval-hard.$"),
        (
            {"data": ARTICLE_DATA | {"eval": {"name": "full", "split": "train"}}},
            {},
            "and these runs of vdr-eval-hard.$",
        ),
        ({"data": ARTICLE_DATA}, {"num_queries": 100}, "100 queries, 1,493 documents of it.$"),
    ],
)
def test_other_data_is_no_place_for_published_values(tmp_path, config, evaluation, why):
    folder = finished_run(tmp_path / "run", config=config, evaluation=ARTICLE_EVALUATION | evaluation)
    published = leaderboard.load_published()
    reason = leaderboard.why_not_published(load_run(folder), published)
    assert reason.startswith("Published values not shown: they are of tomaarsen/llamaindex-vdr-en-train-preprocessed")
    assert re.search(why, reason)


def test_one_line_says_that_published_values_are_not_shown(three_runs):
    (line,) = [line for line in three_runs[1].splitlines() if "ublished" in line]
    assert line.endswith("and these runs of report-pages-hard.")


def test_published_values_are_the_articles():
    published = yaml.safe_load(leaderboard.PUBLISHED.read_text())
    assert len(published["models"]) == 20
    assert published["models"]["Qwen/Qwen3-VL-Embedding-2B"] == [2.1e9, 0.888]
    assert published["models"]["BAAI/BGE-VL-base"] == [1.5e8, 0.335]
    full = published["dimensions"][2048]
    shares = {dim: [round(value / whole, 3) for value, whole in zip(row, full, strict=True)] for dim, row in
              published["dimensions"].items()}  # fmt: skip
    assert shares == {  # as the article's second table gives them
        2048: [1, 1],
        1536: [0.998, 0.996],
        1024: [0.998, 0.998],
        512: [0.978, 0.997],
        256: [0.931, 0.989],
        128: [0.880, 0.955],
        64: [0.765, 0.924],
    }


# Figures


def label_boxes(monkeypatch, entries, path):
    """Draw, and return the boxes of the labels in the figure and of its points."""
    from matplotlib.text import Annotation, Text

    placed = []
    original = leaderboard_figures.place_labels
    monkeypatch.setattr(leaderboard_figures, "place_labels", lambda *drawn: original(*drawn) or placed.append(drawn))
    leaderboard_figures.size_against_quality(entries, "cosine_ndcg@10", "title", path)
    ((figure, axes, _),) = placed
    renderer = figure.canvas.get_renderer()
    labels = [child for child in axes.get_children() if isinstance(child, Annotation) and child.get_text()]
    return {label.get_text(): Text.get_window_extent(label, renderer) for label in labels}


@pytest.mark.parametrize("number", [3, 20])
def test_labels_of_few_and_of_twenty_points_do_not_overlap(monkeypatch, tmp_path, number):
    published = leaderboard.published_entries(leaderboard.load_published())[:number]
    entries = [
        entry._replace(kind="as it is", interval=(entry.value - 0.03, entry.value + 0.03)) for entry in published
    ]
    boxes = label_boxes(monkeypatch, entries, tmp_path / "size.png")
    assert len(boxes) == number
    texts = [*boxes]
    for i, one in enumerate(texts):
        for other in texts[i + 1 :]:
            assert not boxes[one].overlaps(boxes[other]), f"{one} over {other}"


def test_runs_of_one_size_each_get_a_label(monkeypatch, tmp_path):
    entries = [leaderboard.Entry(f"run {i}", "as it is", 1_400_000, 0.8 + i / 1000) for i in range(12)]
    assert len(label_boxes(monkeypatch, entries, tmp_path / "size.png")) == 12
