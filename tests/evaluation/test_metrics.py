import math

import numpy as np
import pytest
import pytrec_eval

from experiments.evaluation.metrics import (
    bootstrap_interval,
    chance,
    per_query_metrics,
    rank,
    reranking_chance,
    reranking_metrics,
)

# Rows are queries, columns documents; ties go to the lower column.
SCORES = np.array(
    [
        [0.9, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7],  # order 0 7 6 5 4 3 2 1
        [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5],  # order 0 1 2 3 4 5 6 7
        [0.1, 0.8, 0.7, 0.8, 0.6, 0.0, -0.0, -0.9],  # order 1 3 2 4 0 5 6 7
        [-0.1, -0.2, -0.3, -0.4, -0.5, -0.6, -0.7, -0.8],  # order 0 1 2 3 4 5 6 7
    ],
    dtype=np.float32,
)
RELEVANT = [{0}, {3}, {3, 4}, {6, 7}]


def metrics_of(scores, relevant):
    columns, _ = rank([scores])
    hits = np.array([[column in wanted for column in row] for row, wanted in zip(columns, relevant, strict=True)])
    return per_query_metrics(hits, np.array([len(wanted) for wanted in relevant]))


def test_rank_sorts_by_score_and_breaks_ties_by_the_lower_column():
    columns, scores = rank([SCORES])
    assert columns.tolist() == [
        [0, 7, 6, 5, 4, 3, 2, 1],
        [0, 1, 2, 3, 4, 5, 6, 7],
        [1, 3, 2, 4, 0, 5, 6, 7],
        [0, 1, 2, 3, 4, 5, 6, 7],
    ]
    assert scores.dtype == np.float32
    assert np.array_equal(scores, np.take_along_axis(SCORES, columns, axis=1))


def test_metrics_of_a_4_by_8_matrix_are_those_worked_out_by_hand():
    # Relevant documents stand at ranks 1; 4; 2 and 4; 7 and 8.
    metrics = metrics_of(SCORES, RELEVANT)
    expected = {
        "accuracy@1": [1, 0, 0, 0],
        "accuracy@3": [1, 0, 1, 0],
        "accuracy@5": [1, 1, 1, 0],
        "accuracy@10": [1, 1, 1, 1],
        "precision@1": [1, 0, 0, 0],
        "precision@3": [1 / 3, 0, 1 / 3, 0],
        "precision@5": [1 / 5, 1 / 5, 2 / 5, 0],
        "precision@10": [1 / 10, 1 / 10, 2 / 10, 2 / 10],
        "recall@1": [1, 0, 0, 0],
        "recall@3": [1, 0, 1 / 2, 0],
        "recall@5": [1, 1, 1, 0],
        "recall@10": [1, 1, 1, 1],
        "ndcg@10": [
            1,
            1 / math.log2(5),
            (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3)),
            (1 / math.log2(8) + 1 / math.log2(9)) / (1 + 1 / math.log2(3)),
        ],
        "mrr@10": [1, 1 / 4, 1 / 2, 1 / 7],
        "map@100": [1, 1 / 4, (1 / 2 + 2 / 4) / 2, (1 / 7 + 2 / 8) / 2],
    }
    assert list(metrics) == list(expected)
    for name, values in expected.items():
        assert metrics[name] == pytest.approx(values, abs=1e-15), name


def test_map_divides_by_all_relevant_documents_even_those_not_ranked():
    hits = np.zeros((1, 100), dtype=bool)
    hits[0, 0] = True
    assert per_query_metrics(hits, np.array([150]))["map@100"][0] == 1 / 150


def test_mrr_at_10_ignores_rank_11():
    hits = np.zeros((1, 100), dtype=bool)
    hits[0, 10] = True
    metrics = per_query_metrics(hits, np.array([1]))
    assert metrics["mrr@10"][0] == metrics["ndcg@10"][0] == metrics["accuracy@10"][0] == 0
    assert metrics["map@100"][0] == 1 / 11


def test_metrics_equal_pytrec_eval_on_1000_random_rankings_with_ties():
    rng = np.random.default_rng(0)
    ids = sorted((f"{number:08x}" for number in rng.choice(2**32, size=150, replace=False)), reverse=True)
    # Integer scores tie often; the last half of the queries have scores that hardly ever do.
    scores = np.concatenate([rng.integers(-6, 6, (500, 150)), rng.normal(size=(500, 150))]).astype(np.float32)
    relevant = [set(rng.choice(150, size=rng.choice([1, 2, 12, 120]), replace=False).tolist()) for _ in scores]
    ours = metrics_of(scores, relevant)

    qrels = {str(q): {ids[column]: 1 for column in wanted} for q, wanted in enumerate(relevant)}
    run = {str(q): dict(zip(ids, row, strict=True)) for q, row in enumerate(scores.tolist())}
    measures = {"success_1,3,5,10", "P_1,3,5,10", "recall_1,3,5,10", "ndcg_cut_10", "recip_rank", "map_cut_100"}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)

    names = {"accuracy": "success", "precision": "P", "ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall"}
    for name, values in ours.items():
        kind, cutoff = name.split("@")
        if kind == "mrr":  # trec_eval's has no cut-off
            reciprocal_ranks = np.array([theirs[str(q)]["recip_rank"] for q in range(1000)])
            expected = np.where(reciprocal_ranks >= 0.1, reciprocal_ranks, 0)
        else:
            expected = np.array([theirs[str(q)][f"{names[kind]}_{cutoff}"] for q in range(1000)])
        assert np.abs(values - expected).max() < 1e-12, name


@pytest.mark.parametrize("chunk_size", [1, 7, 64, 1000])
def test_ranking_in_chunks_equals_ranking_all_scores_at_once(chunk_size):
    rng = np.random.default_rng(1)
    queries = rng.integers(-2, 3, (20, 8)).astype(np.float32)  # integers: dot products are exact and tie
    documents = rng.integers(-2, 3, (333, 8)).astype(np.float32)
    chunks = (queries @ documents[start : start + chunk_size].T for start in range(0, 333, chunk_size))
    columns, scores = rank(chunks, depth=100)
    all_scores = queries @ documents.T
    assert np.array_equal(columns, np.argsort(-all_scores, axis=1, kind="stable")[:, :100])
    assert np.array_equal(scores, np.take_along_axis(all_scores, columns, axis=1))


def test_bootstrap_interval_covers_the_true_mean_in_about_95_of_100_samples():
    rng = np.random.default_rng(2)
    covered = []
    for seed in range(200):
        low, high = bootstrap_interval(rng.binomial(1, 0.7, size=100).astype(float), num_resamples=400, seed=seed)
        covered.append(low <= 0.7 <= high)
    assert 0.90 <= np.mean(covered) <= 0.99


def test_bootstrap_interval_repeats_with_its_seed_and_has_no_width_without_spread():
    values = np.random.default_rng(3).uniform(size=50)
    assert bootstrap_interval(values, seed=4) == bootstrap_interval(values, seed=4)
    assert bootstrap_interval(values, seed=4) != bootstrap_interval(values, seed=5)
    assert bootstrap_interval(np.full(50, 0.25)) == (0.25, 0.25)


@pytest.mark.parametrize(
    ("num_documents", "num_present", "num_relevant"),
    [(40, 1, 1), (150, 12, 12), (7, 2, 2), (30, 2, 5), (20, 0, 1), (5, 0, 2), (1, 1, 1)],
)
def test_chance_is_the_mean_over_shuffled_documents(num_documents, num_present, num_relevant):
    generator, num = np.random.default_rng(0), 4000
    places = generator.random((num, num_documents)).argsort(axis=1)  # a random order for each shuffle
    hits, wanted = places < num_present, np.array([num_relevant])
    counts = np.array([num_documents]), np.array([num_present]), wanted
    ids = {str(each) for each in range(num_present)} | {f"missed {each}" for each in range(num_relevant - num_present)}
    for shuffled, expected in (
        (per_query_metrics(hits[:, :100], np.full(num, num_relevant)), chance(*counts)),
        (reranking_metrics(list(places[:500].astype(str)), [ids] * 500), reranking_chance(*counts)),
    ):
        assert list(shuffled) == list(expected)
        for name, values in shuffled.items():
            error = values.std() / np.sqrt(len(values))
            assert abs(values.mean() - expected[name][0]) <= 4 * error + 1e-12, name
