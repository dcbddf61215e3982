"""The leaderboard over finished runs: its tables, its figures, and the article's values beside it."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from matplotlib.text import Text
from PIL import Image

from experiments import report
from experiments.evaluation.query_values import Part
from experiments.reports import answer, figures, leaderboard, leaderboard_figures
from experiments.reports.answer import Contender
from experiments.runs.files import load_json, save_json
from experiments.runs.run import load_finished, load_run
from finished import EVALUATION, finished_run, keep_queries

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
    chance = {"all": {"cosine_ndcg@10": 0.009}}
    keep_queries(finished_run(folder / "trained", model=model("qwen3vl_tiny"), chance=chance))
    finished_run(folder / "clip", base={96: 0.5, 48: 0.45}, final=None, model=model("clip_tiny", 400_000))
    keep_queries(finished_run(folder / "llava", base={64: 0.7}, final=None, model=model("owner/llava", 620_000)), 1)
    return folder, write(folder, published=True)


def write(folder, published=False, **options):
    return report.write_report([folder], folder / "out", published, **options)[0]


def test_one_table_has_each_model_as_it_is_and_finetuned_best_first_and_chance(three_runs):
    rows = cells(three_runs[1])
    assert [row[:4] for row in rows[1:]] == [
        ["qwen3vl_tiny", "finetuned", "1.4 M", "0.874 [0.844, 0.904]"],
        ["owner/llava", "as it is", "620 k", "0.700 [0.670, 0.730]"],
        ["clip_tiny", "as it is", "400 k", "0.500 [0.470, 0.530]"],
        ["qwen3vl_tiny before training", "as it is", "1.4 M", "0.016 [0.000, 0.046]"],
        ["chance", "–", "–", "0.009"],
    ]


def test_answer_stands_within_the_first_five_lines_and_holds_each_run_against_the_best(three_runs):
    title, _, answer, _, header, *_ = (three_runs[0] / "out" / "report.md").read_text().splitlines()
    assert title == "# nDCG@10 on report-pages-hard: 100 queries, 500 documents"
    assert answer == (
        "**Best: qwen3vl_tiny, nDCG@10 0.874 [0.844, 0.904]. Worse: owner/llava, qwen3vl_tiny before training.**"
    )
    assert header.endswith("| minus reference [95% interval] |      p |   verdict |")
    rows = {row[0]: row[4:] for row in cells(three_runs[1])}
    assert rows["qwen3vl_tiny"] == ["–", "–", "reference"]
    assert rows["owner/llava"][0].startswith("-0.174 [-0.1") and rows["owner/llava"][1:] == ["<0.001", "worse"]
    assert rows["clip_tiny"] == ["–"] * 3  # whose values weren't kept, which is said
    assert "the values of its queries weren't kept; evaluate its model again" in three_runs[1]


def test_the_report_of_a_single_run_leaves_that_runs_own_page_as_it_is(tmp_path):
    run_dir = keep_queries(finished_run(tmp_path / "run"))
    (run_dir / "report.md").write_text("its own")
    _, written = report.write_report([run_dir], run_dir)
    assert (run_dir / "report.md").read_text() == "its own"
    assert written[0] == run_dir / "leaderboard.md" and written[0].read_text().startswith("# nDCG@10")


def test_reference_may_be_named_and_is_refused_if_it_is_none_of_the_runs(three_runs, tmp_path, capsys):
    folder, _ = three_runs
    text = report.write_report([folder], tmp_path, reference=str(folder / "llava"))[0]
    assert "**Held against: owner/llava, nDCG@10 0.700 [0.670, 0.730]. Better: qwen3vl_tiny. Worse: " in text
    assert report.main([str(folder), "--out", str(tmp_path), "--reference", "owner/lava"]) == 2
    said = capsys.readouterr().err
    assert said == "error: --reference owner/lava is none of these runs; did you mean 'owner/llava'?\n"


def test_a_run_that_lies_not_above_chance_is_named(tmp_path):
    chance = {"all": {"cosine_ndcg@10": 0.05}}
    keep_queries(finished_run(tmp_path / "run", final={96: 0.06}, chance=chance))
    assert "Not above chance (0.050): qwen3vl_tiny.**" in write(tmp_path)


def test_chance_is_told_where_an_older_record_does_not_tell_it_and_not_where_they_differ(tmp_path):
    keep_queries(finished_run(tmp_path / "old", final={96: 0.9}, config={"loss": {"scale": 1}}))
    new = keep_queries(finished_run(tmp_path / "new", chance={"all": {"cosine_ndcg@10": 0.05}}))
    assert cells(write(tmp_path))[-1][:3] == ["chance", "–", "0.050"]
    other = load_json(new / "metrics.json") | {"chance": {"all": {"cosine_ndcg@10": 0.04}}}
    save_json(finished_run(tmp_path / "other") / "metrics.json", other)
    assert cells(write(tmp_path))[-1][0] != "chance"


def test_many_runs_are_counted_and_not_listed_in_the_answer(tmp_path):
    chance = {"all": {"cosine_ndcg@10": 0.9}}
    for number in range(5):
        config, final = {"loss": {"scale": number}}, {96: 0.8 if number < 4 else 0.805}
        keep_queries(finished_run(tmp_path / str(number), config=config, final=final, chance=chance), number)
    text = write(tmp_path)
    said = "Not shown to be worse: 4 of 5. Worse: qwen3vl_tiny before training. Not above chance (0.900): all 5.**"
    assert said in text
    assert "p: times the 4 runs held against the best, which is so by luck too" in text


def test_of_equal_runs_few_are_called_worse_than_the_one_that_luck_put_first():
    said = {True: [], False: []}
    for seed in range(4):
        generator = np.random.default_rng(seed)
        parts = [Part([str(number) for number in range(60)], {"m": generator.random(60)}) for _ in range(20)]
        runs = [Contender(str(n), "", part.values["m"].mean(), [Path(str(n))], [part]) for n, part in enumerate(parts)]
        for is_chosen, outcomes in said.items():
            found = answer.differences(runs, answer.find_reference(runs), "m", is_chosen=is_chosen)
            outcomes += [each.outcome for each in found if each]
    assert said[False].count("worse") > 0.1 * len(said[False])  # a reference that was chosen needs more
    assert said[True].count("worse") < 0.05 * len(said[True])


def test_shares_of_the_full_dimension_have_their_intervals(tmp_path):
    folder = finished_run(tmp_path / "run")
    metrics = load_json(folder / "metrics.json")
    for section in (metrics["base"], metrics["final"]):
        section["dimensions"]["48"]["cosine_ndcg@10_share_ci95"] = [0.97, 1.004]
    metrics["base"]["dimensions"]["96"]["cosine_ndcg@10_share_ci95"] = None  # not above chance
    save_json(folder / "metrics.json", metrics)
    finished_run(tmp_path / "other", model=model("other"), final={96: 0.8, 48: 0.7})
    text = write(tmp_path, everything=True)
    row = cells(text, "### Dimensions of qwen3vl_tiny")[2]
    assert row[2:] == ["–", "0.865 [0.835, 0.895]", "98.9% [97.0%, 100.4%]"]
    table = cells(text, "of every run by dimension")
    assert table[1][:3] == ["qwen3vl_tiny", "0.874 (100.0%)", "0.865 (98.9% [97.0%, 100.4%])"]


def test_costs_and_dimensions_stand_behind_all_with_shares_of_the_full_dimension_of_the_best_trained_run(three_runs):
    assert "% of full" not in three_runs[1] and f"report {three_runs[0]} --out " in three_runs[1]
    assert three_runs[1].endswith("/out --published --all`")
    text = write(three_runs[0], everything=True)
    costs = cells(text, "### What each run cost")
    assert costs[0] == ["model", "dimensions", "time", "energy", "run"] and costs[1][:2] == ["qwen3vl_tiny", "96"]
    rows = cells(text, "### Dimensions of qwen3vl_tiny")
    assert rows[0] == ["dimensions", "base [95% interval]", "% of full", "finetuned [95% interval]", "% of full"]
    assert rows[2] == ["48", "0.015 [0.000, 0.045]", "93.8%", "0.865 [0.835, 0.895]", "98.9%"]
    rows = cells(text, "of every run by dimension")
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
        ("mini_batch_size=4", "finetuned"),
        ("mini_batch_size=1", "finetuned"),
        ("tiny before training", "as it is"),
    ]


def test_bases_of_a_sweep_are_told_apart_by_what_they_depend_on(tmp_path):
    for size, pixels in ((1, 4096), (4, 16384)):
        config = {"loss": {"mini_batch_size": size}, "model": {"max_pixels": pixels}}
        finished_run(tmp_path / str(size), config=config, model=model("tiny"), base={96: size / 100})
    labels = [entry.label for entry in leaderboard.entries(load_finished([tmp_path])) if entry.kind == "as it is"]
    assert labels == [f"tiny max_pixels={pixels} before training" for pixels in (16384, 4096)]


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
    assert cells(write(tmp_path))[1][:3] == ["reranker", "finetuned", "0.900 [0.300, 0.950]"]
    assert not (tmp_path / "out" / "figures" / "dimensions_against_ndcg.png").exists()


# The article's values


def test_published_values_stand_beside_runs_on_the_same_data_marked_as_published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vdr")
    dims = leaderboard.load_published()["dimensions"]
    base, final = ({dim: row[k] - 0.01 for dim, row in dims.items()} for k in (0, 1))
    evaluation = {"evaluation": ARTICLE_EVALUATION, "model": model("Qwen/Qwen3-VL-Embedding-2B", 2_127_532_032)}
    finished_run(folder / "run", base=base, final=final, config={"data": ARTICLE_DATA}, **evaluation)
    text = write(folder, published=True, everything=True)
    rows = [row for row in cells(text)[1:] if row[1] == "published"]
    assert len(rows) == 20 and all(row[4:] == ["–"] * 3 and "[" not in row[3] for row in rows)
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
    (line,) = [line for line in three_runs[1].splitlines() if "ublished values" in line]
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
    """Draw, and return the texts of the labels in the figure with their boxes, and the box of the axes."""
    from matplotlib.text import Annotation

    placed = []
    original = leaderboard_figures.place_labels
    monkeypatch.setattr(leaderboard_figures, "place_labels", lambda *drawn: original(*drawn) or placed.append(drawn))
    leaderboard_figures.size_against_quality(entries, "cosine_ndcg@10", "title", path)
    ((figure, axes, _),) = placed
    renderer = figure.canvas.get_renderer()
    labels = [child for child in axes.get_children() if isinstance(child, Annotation) and child.get_text()]
    return [(each.get_text(), Text.get_window_extent(each, renderer)) for each in labels], axes.get_window_extent()


@pytest.mark.parametrize("number", [3, 7, 20])
def test_labels_overlap_nowhere_and_of_many_points_a_list_beside_the_plot_gives_the_numbers(
    monkeypatch, tmp_path, number
):
    published = leaderboard.published_entries(leaderboard.load_published())[:number]
    entries = [
        entry._replace(kind="as it is", interval=(entry.value - 0.03, entry.value + 0.03)) for entry in published
    ]
    boxes, frame = label_boxes(monkeypatch, entries, tmp_path / "size.png")
    names = [text for text, _ in boxes if not text.isdigit()]
    assert names == [entry.label.rpartition("/")[2] for entry in sorted(entries, key=lambda entry: -entry.value)]
    for i, (one, box) in enumerate(boxes):
        for other, other_box in boxes[i + 1 :]:
            assert not box.overlaps(other_box), f"{one} over {other}"
    inside = [text for text, box in boxes if box.x0 < frame.x1]
    assert inside == (names if number == 3 else [str(each) for each in range(1, number + 1)])


def test_points_that_lie_close_together_each_have_a_number(monkeypatch, tmp_path):
    entries = [leaderboard.Entry(f"run {i}", "as it is", 1_400_000, 0.8 + i / 1000) for i in range(20)]
    boxes, _ = label_boxes(monkeypatch, entries, tmp_path / "size.png")
    assert [text for text, _ in boxes].count("20") == 2  # in the plot and in the list


def test_models_of_one_size_are_drawn_in_lines_and_not_over_each_other(tmp_path):
    finished_run(tmp_path / "run")
    write(tmp_path)
    assert (tmp_path / "out" / "figures" / "quality.png").stat().st_size > 10_000
    assert not (tmp_path / "out" / "figures" / "size_against_ndcg.png").exists()
    text = report.write_report([finished_run(tmp_path / "alone", base={96: 0.5}, final=None)], tmp_path / "one")[0]
    assert (
        "**Best: qwen3vl_tiny, nDCG@10 0.500" in text and not (tmp_path / "one" / "figures" / "quality.png").exists()
    )


@pytest.mark.parametrize(("by_chance", "is_line"), [(0.3, True), (0.01, False), (None, False)])
def test_chance_is_a_line_where_it_is_near_and_said_at_the_edge_where_it_is_far(tmp_path, by_chance, is_line):
    with figures.drawn(tmp_path / "chance.png", (4, 3)) as (_, axes):
        axes.plot([1, 2], [0.6, 0.7] if not is_line else [0.35, 0.7])
        axes.set_ylim(*axes.get_ylim())
        lines, texts = len(axes.lines), len(axes.texts)
        figures.draw_chance(axes, by_chance)
        assert (len(axes.lines) - lines, len(axes.texts) - texts) == (is_line, by_chance is not None)
        assert is_line or by_chance is None or axes.texts[-1].get_text() == "chance\n0.010 ↓"


def test_a_long_title_is_not_cut_off(tmp_path, monkeypatch):
    run, drawn = load_run(finished_run(tmp_path / "run")), []
    monkeypatch.setattr(figures, "draw_chance", lambda axes, _: drawn.append(axes.figure))
    title = "mini_batch_size=16, max_pixels=16384 on report-pages-hard: 100 queries, 500 documents, 95% intervals"
    figures.dimensions_against_quality(run.metrics, title, tmp_path / "dimensions.png")
    (said,) = drawn[0].findobj(lambda each: isinstance(each, Text) and each.get_text().startswith("mini_batch_size"))
    assert said.get_window_extent().x1 < drawn[0].bbox.x1


def test_training_curve_starts_at_step_0_with_the_base_and_ends_with_the_final_evaluation(tmp_path, monkeypatch):
    history = [{"step": 5, "loss": 3.2}, {"step": 5, "eval_report-pages-hard_cosine_ndcg@10": 0.4}]
    history += [{"step": 5, "eval_report-pages-hard-48d_cosine_ndcg@10": 0.3}, {"step": 9, "loss": 3.0}]
    run = load_run(finished_run(tmp_path / "run", training={"history": history}))
    drawn = []
    monkeypatch.setattr(figures, "draw_chance", lambda axes, _: drawn.append(axes))
    figures.training_curve(run.metrics, tmp_path / "training.png")
    curve = drawn[0].lines[0]
    assert [*zip(curve.get_xdata(), curve.get_ydata(), strict=True)] == [(0, 0.016), (5, 0.4), (9, 0.8743)]
