"""The answer of a run in a sentence and a table: chance, shares with intervals, a reranker beside its retriever."""

import numpy as np
import pytest

from experiments.evaluation.query_values import Part
from experiments.evaluation.results import Evaluation
from experiments.reports.run_answer import comparison_table, retention_sentence, summary_table, title, verdict_sentence
from experiments.reports.run_report import add_comparison, write_run_report
from experiments.runs.files import load_json, save_json
from finished import BASE, FINETUNED, finished_run, section

METRIC = "cosine_ndcg@10"
CHANCE = {"all": {METRIC: 0.0462}}


def test_summary_table_is_aligned_and_ends_in_chance():
    metrics = {"base": section(BASE), "final": section(FINETUNED)}
    table = [
        "dimensions                  base             finetuned  % of full",
        "----------  --------------------  --------------------  ---------",
        "96          0.016 [0.000, 0.046]  0.874 [0.844, 0.904]     100.0%",
        "48          0.015 [0.000, 0.045]  0.865 [0.835, 0.895]      98.9%",
        "24          0.014 [0.000, 0.044]  0.801 [0.771, 0.831]      91.6%",
        "12          0.011 [0.000, 0.041]  0.624 [0.594, 0.654]      71.4%",
    ]
    assert summary_table(metrics).splitlines() == table  # a record of a version before
    last = "chance                     0.046                 0.046          –"
    assert summary_table(metrics | {"chance": CHANCE}).splitlines() == [*table, last]


def evaluated(quality, kept, by_chance=0.05, num_queries=200):
    """Return what an evaluation with queries of a mean quality keeps: each dimension loses a share, but for noise."""
    generator = np.random.default_rng(0)
    full = generator.beta(quality, 1 - quality, num_queries)
    dims = {dim: full * share + generator.normal(0, spread, num_queries) for dim, (share, spread) in kept.items()}
    ids = [str(row) for row in range(num_queries)]
    evaluation = Evaluation({}, {dim: Part(ids, {METRIC: values}) for dim, values in {96: full, **dims}.items()})
    evaluation.add_intervals(METRIC, 1000, 0)
    evaluation.add_chance({"query_to_document": Part(ids, {METRIC: np.full(num_queries, by_chance)})})
    evaluation.add_shares(METRIC, 1000, 0)
    counts = {"name": "pages", "num_queries": num_queries, "num_documents": 90}
    return {"evaluation": counts, "result": evaluation.to_json(), "chance": evaluation.chance}


def test_a_share_has_its_paired_interval_and_a_dimension_is_recommended_only_where_that_shows_it():
    metrics = evaluated(0.6, {48: (1.0, 0.01), 24: (0.97, 0.01), 12: (1.0, 0.4)})
    ends = {dim: metrics["result"]["dimensions"][str(dim)][f"{METRIC}_share_ci95"] for dim in (96, 48, 24, 12)}
    assert ends[96] == [1, 1] and 0.99 < ends[48][0] < 1 < ends[48][1] < 1.01
    assert 0.96 < ends[24][0] < 0.97 < ends[24][1] < 0.98 and ends[12][0] < 0.95
    assert retention_sentence(metrics["result"], METRIC).startswith("48 of 96 dimensions are enough: they keep ")
    assert f"[{ends[48][0]:.1%}, {ends[48][1]:.1%}] at half the bytes." in retention_sentence(
        metrics["result"], METRIC
    )
    assert f"% [{ends[24][0]:.1%}, {ends[24][1]:.1%}]" in summary_table(metrics)
    without = evaluated(0.6, {48: (0.97, 0.01)})
    assert "; no fewer than 96 are shown to keep 99%." in retention_sentence(without["result"], METRIC)


def test_dimension_that_is_no_simple_fraction_is_given_in_percent():
    sentence = retention_sentence(section({1000: 0.5, 300: 0.4}), METRIC)
    assert sentence == "300 of 1000 dimensions keep 80.0% at 30% of the bytes."


def test_nothing_is_said_to_keep_what_is_not_above_chance_and_that_is_said_once(tmp_path):
    metrics = evaluated(0.06, {48: (1.2, 0.01)}, by_chance=0.06)
    said = verdict_sentence(metrics)
    assert said == "Not above chance: a random order has nDCG@10 0.060."
    assert retention_sentence(metrics["result"], METRIC) == ""
    finished_run(tmp_path, base=None, final=None, **metrics)
    text = write_run_report(tmp_path)
    assert text.splitlines()[2] == said and text.lower().count("above chance") == 1 and "dimensions keep" not in text
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert rows[2][2] == rows[3][2] == "–" and rows[4][0] == "chance"
    assert [row[0] for row in rows].count("chance") == 2 and ["metric", "model", "chance"] in rows  # precisions too
    assert verdict_sentence(evaluated(0.6, {48: (1.0, 0.01)})) == ""  # evaluated alone, and above chance


def test_a_random_answer_to_one_or_two_queries_is_never_above_chance():
    for num_queries in (1, 2, 3):
        metrics = evaluated(0.999, {48: (1.0, 0.0)}, num_queries=num_queries)
        assert ("Not above chance" in verdict_sentence(metrics)) == (num_queries < 3)


def test_weights_that_did_not_change_are_said_to_before_anything_else():
    metrics = evaluated(0.6, {48: (1.0, 0.01)})
    metrics |= {
        "base": metrics["result"],
        "final": metrics.pop("result"),
        "training": {"unchanged": "they are frozen"},
    }
    numbers = {"difference": 0.0, "interval": [0.0, 0.0], "p": 1.0, "num_queries": 200}
    metrics["verdict"] = {"outcome": "not shown", "metric": METRIC, "against": "base"} | numbers
    assert verdict_sentence(metrics) == "The weights did not change: they are frozen."
    for unchanged, start in (("", "The weights did not change."), (None, "No improvement")):
        metrics["training"]["unchanged"] = unchanged
        assert verdict_sentence(metrics).startswith(start)


@pytest.fixture
def reranked(tmp_path):
    """A finished run of a reranker, worse than its retriever, whose second checkpoint was better."""
    names = ("ndcg@10", "end_to_end_ndcg@10", "retriever_ndcg@10")

    def measured(*values):
        found = dict(zip(names, values, strict=True))
        return found | {f"{name}_ci95": [value - 0.05, value + 0.05] for name, value in found.items()}

    base, final = measured(0.3, 0.2, 0.6), measured(0.5, 0.4, 0.6)
    metrics = {
        tag: {"directions": {"all": each, "image_to_text": each}} for tag, each in (("base", base), ("final", final))
    }
    by_chance = dict(zip(names, (0.21, 0.11, 0.01), strict=True))
    verdict = {"outcome": "worse", "difference": -0.2, "interval": [-0.3, -0.1], "p": 0.001, "num_queries": 100}
    verdict |= {"metric": "end_to_end_ndcg@10", "against": "retriever", "best": {"step": 2, "value": 0.7}}
    metrics |= {"chance": {"all": by_chance, "image_to_text": by_chance | {"ndcg@10": 0.31}}, "verdict": verdict}
    metrics["primary_metric"] = "ndcg@10"
    finished_run(tmp_path, base=None, final=None)
    save_json(tmp_path / "metrics.json", load_json(tmp_path / "metrics.json") | metrics)
    save_json(tmp_path / "final" / "config_sentence_transformers.json", {"model_type": "CrossEncoder"})
    (tmp_path / "checkpoints" / "checkpoint-2").mkdir(parents=True)
    return load_json(tmp_path / "metrics.json")


def test_a_reranker_stands_beside_its_retriever_end_to_end_first(reranked, tmp_path):
    assert title(reranked) == "nDCG@10 end to end [95% interval]"
    expected = [
        "direction           retriever alone                  base             finetuned",
        "-------------  --------------------  --------------------  --------------------",
        "all            0.600 [0.550, 0.650]  0.200 [0.150, 0.250]  0.400 [0.350, 0.450]",
        "image_to_text  0.600 [0.550, 0.650]  0.200 [0.150, 0.250]  0.400 [0.350, 0.450]",
        "chance                        0.010                 0.110                 0.110",
    ]
    assert summary_table(reranked).splitlines() == expected
    text = write_run_report(tmp_path)
    assert text.splitlines()[2].startswith(
        "Reranking is worse than the retriever alone: nDCG@10 end to end 0.600 → 0.4"
    )
    assert text.index("retriever alone |") < text.index("always among the candidates")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    for row in (["chance", "0.210", "0.210"], ["chance, image_to_text", "0.310", "0.310"]):
        assert row in rows
    card = tmp_path / "card.md"
    card.write_text("# Model\n")
    add_comparison(card, reranked)
    assert (
        f"\n\n{verdict_sentence(reranked)}\n\n{title(reranked)}:\n\n{comparison_table(reranked)}\n" in card.read_text()
    )


def test_a_reranker_that_is_given_every_document_has_its_values_once(reranked, tmp_path):
    for tag in ("base", "final"):
        for values in reranked[tag]["directions"].values():
            values["ndcg@10"] = values["end_to_end_ndcg@10"]
    assert "Every document is a candidate" not in write_run_report(tmp_path)
    save_json(tmp_path / "metrics.json", reranked)
    text = write_run_report(tmp_path)
    assert text.count("Every document is a candidate: the reranker by itself has the same values.") == 1
    assert "## Directions" not in text and "| end_to_end_ndcg@10" not in text and "| ndcg@10 " in text


def test_the_checkpoint_that_was_better_is_named_with_the_line_that_evaluates_it(reranked, tmp_path, monkeypatch):
    assert verdict_sentence(reranked).endswith("; step 2 was better (0.700).")
    monkeypatch.chdir(tmp_path.parent)
    line = f"experiments.evaluate model=reranker model.name={tmp_path.name}/checkpoints/checkpoint-2"
    assert line in write_run_report(tmp_path)
    (tmp_path / "checkpoints" / "checkpoint-2").rmdir()  # the oldest are deleted
    assert "was better\npython" not in write_run_report(tmp_path)
