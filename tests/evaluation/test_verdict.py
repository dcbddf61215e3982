"""The verdict on a training: better, worse or not shown, on values of each query."""

import numpy as np
import pytest

from experiments.config.errors import ConfigError
from experiments.evaluation.metrics import paired_difference
from experiments.evaluation.query_values import Part, save_query_values
from experiments.evaluation.verdict import judge
from experiments.reports.run_answer import verdict_sentence
from experiments.runs.run import Run

METRIC = "cosine_ndcg@10"


def judged(folder, base, final, history=(), metric=METRIC, section="dimensions"):
    """Write what an evaluation leaves and return the metrics with the verdict; values by metric, or of the metric."""
    metrics = {"primary_metric": metric, "evaluation": {"name": "pages"}, "training": {"history": [*history]}}
    for tag, values in (("base", base), ("final", final)):
        values = values if isinstance(values, dict) else {metric: values}
        values = {name: np.array(each, dtype=float) for name, each in values.items()}
        part = Part([f"q{row}" for row in range(len(values[metric]))], values)
        folder.mkdir(exist_ok=True)
        save_query_values(folder / f"{tag}.npz", {section: {"96": part, "48": part}})
        metrics[tag] = {section: {"96": part.to_json(), "48": part.to_json()}}
    return metrics | {"verdict": judge(Run(folder.parent, {}, metrics))}


LOW, HIGH = [0.2, 0.3, 0.1, 0.4] * 10, [0.5, 0.9, 0.3, 0.4] * 10
MIXED = [0.5, 0.0, 0.3, 0.2] * 10


@pytest.mark.parametrize(
    ("base", "final", "outcome", "said"),
    [
        (LOW, HIGH, "better", "Finetuning helped: nDCG@10 0.250 → 0.525, +0.275 ["),
        (HIGH, LOW, "worse", "Finetuning made the model worse: nDCG@10 0.525 → 0.250, -0.275 ["),
        (LOW, MIXED, "not shown", "No improvement is shown: nDCG@10 0.250 → 0.250, +0.000 ["),
        (LOW, LOW, "not shown", "p 1.000, 40 queries; more queries would tell smaller differences."),
        (
            [1.0] * 40,
            [1.0] * 40,
            "not shown",
            "Nothing can be improved here: the base model answers every query already (nDCG@10 1.000 → 1.000, "
            "40 queries); harder queries, or more pages to search (data.corpus=FILE), could show more.",
        ),
        (
            [0.1],
            [0.9],
            "not shown",
            "1 query can't show whether training helped (nDCG@10 0.100 → 0.900); give 6 or more.",
        ),
        ([0.0] * 5, [1.0] * 5, "not shown", "5 queries can't show whether training helped"),
        ([0.0] * 6, [1.0] * 6, "better", ", 6 queries."),
    ],
)
def test_a_model_is_better_or_worse_only_where_interval_and_test_say_so(tmp_path, base, final, outcome, said):
    metrics = judged(tmp_path / "rankings", base, final)
    verdict, sentence = metrics["verdict"], verdict_sentence(metrics)
    assert verdict["outcome"] == outcome and said in sentence
    assert verdict["difference"] == pytest.approx(np.mean(final) - np.mean(base))
    found = paired_difference(np.array([base], dtype=float), np.array([final], dtype=float))  # what `compare` says
    assert (verdict["interval"], verdict["p"]) == ([found.low, found.high], found.p)
    assert ("keep the base model" in sentence) == (outcome == "worse") and "\n" not in sentence


@pytest.mark.parametrize(
    ("evaluated", "said"),
    [
        ({3: 0.41, 6: 0.46, 9: 0.46, 12: 0.25}, "; keep the base model; step 6 was better (0.460)."),
        ({3: 0.61, 12: 0.25}, "40 queries; step 3 was better (0.610)."),  # better than the base, too
        ({3: 0.2502, 6: 0.2}, "40 queries; keep the base model."),  # as good as the final one
    ],
)
def test_a_worse_model_names_the_step_that_was_better(tmp_path, evaluated, said):
    history = [{"step": 1, "loss": 3.0}, *({"step": step, f"eval_pages_{METRIC}": v} for step, v in evaluated.items())]
    assert verdict_sentence(judged(tmp_path / "rankings", HIGH, LOW, history)).endswith(said)
    assert "best" not in judged(tmp_path / "rankings", LOW, HIGH, history)["verdict"]


@pytest.mark.parametrize(
    ("end_to_end", "retriever", "outcome", "said"),
    [
        (
            LOW,
            HIGH,
            "worse",
            "Reranking is worse than the retriever alone: nDCG@10 end to end 0.525 → 0.250, -0.275",
        ),
        (HIGH, LOW, "better", "Reranking helps: nDCG@10 end to end 0.250 → 0.525, +0.275 ["),
        (
            LOW,
            MIXED,
            "not shown",
            "No improvement over the retriever alone is shown: nDCG@10 end to end 0.250 → 0.25",
        ),
    ],
)
def test_a_reranker_is_held_against_its_retriever_end_to_end(tmp_path, end_to_end, retriever, outcome, said):
    base, final = (
        {"ndcg@10": with_positives, "end_to_end_ndcg@10": found, "retriever_ndcg@10": retriever}
        for with_positives, found in (([0.0] * 40, [0.0] * 40), ([1.0] * 40, end_to_end))
    )
    history = [{"step": 2, "eval_pages_end_to_end_ndcg@10": 0.9}]
    metrics = judged(tmp_path / "rankings", base, final, history, "ndcg@10", "directions")
    assert metrics["verdict"]["outcome"] == outcome and metrics["verdict"]["against"] == "retriever"
    assert verdict_sentence(metrics).startswith(said)
    assert ("step 2 was better (0.900)" in verdict_sentence(metrics)) == (outcome == "worse")


@pytest.mark.parametrize(
    ("base", "said"),
    [
        (LOW, "; training raised it from 0.250"),
        ([1.0] * 40, "; training lowered it from 1.000"),
        (HIGH, "; training is not shown to have changed it from 0.525"),
    ],
)
def test_of_a_reranker_it_is_said_what_training_itself_did(tmp_path, base, said):
    values = ({"ndcg@10": each, "end_to_end_ndcg@10": each, "retriever_ndcg@10": [0.8] * 40} for each in (base, HIGH))
    sentence = verdict_sentence(judged(tmp_path / "rankings", *values, (), "ndcg@10", "directions"))
    assert sentence.startswith("Reranking is worse than the retriever alone: nDCG@10 end to end 0.800 → 0.525, ")
    assert f", 40 queries{said}; keep the retriever alone." in sentence


def test_values_that_are_missing_are_no_verdict(tmp_path):
    metrics = judged(tmp_path / "rankings", LOW, HIGH)
    (tmp_path / "rankings" / "base.npz").unlink()
    with pytest.raises(ConfigError, match="base.npz can't be read"):
        judge(Run(tmp_path, {}, metrics))


def ndcg(generator, skill, difficulty):
    """Return nDCG@10 of a right page each, whose rank depends on the query, the skill and luck."""
    ranks = np.ceil(np.exp(difficulty - skill + generator.normal(0, 0.8, difficulty.shape))).clip(min=1)
    return np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0.0)


def outcomes(skill, num_draws, num_queries=300):
    """Return the verdicts on two models of some skill, 0 and another, the mean difference and the paired spread."""
    generator = np.random.default_rng(0)
    difficulty = generator.normal(1, 1.5, (num_draws, num_queries))
    base, final = ndcg(generator, 0.0, difficulty), ndcg(generator, skill, difficulty)
    pairs, few = zip(base[:, None], final[:, None], strict=True), {"num_resamples": 500, "num_flips": 400}
    found = [paired_difference(*pair, **few).outcome for pair in pairs]
    return np.array(found), (final - base).mean(), (final - base).std()


def test_models_of_the_same_expected_quality_are_called_different_in_at_most_5_of_100_draws():
    found, mean, spread = outcomes(0.0, 1000)
    assert abs(mean) < 0.002 and 0.2 < spread < 0.35
    assert np.mean(found != "not shown") <= 0.05


def test_a_true_difference_of_a_twentieth_is_found_with_300_queries_in_at_least_80_of_100_draws():
    found, mean, spread = outcomes(0.253, 1000)
    assert 0.045 < mean < 0.055 and 0.2 < spread < 0.35
    assert np.mean(found == "better") >= 0.8 and not (found == "worse").any()
