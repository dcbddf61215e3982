"""Retrieval metrics as pure functions on arrays, equal to what trec_eval computes from the TREC files.

A ranking is by descending float32 score; of equal scores the lower column comes first. trec_eval puts the document
whose id sorts last first, so columns in descending order of id give its ranking (Sentence Transformers does it the
other way round; with ids that carry no relevance neither favours anyone).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

CUTOFFS = (1, 3, 5, 10)  # of accuracy, precision and recall
DEPTH = 100  # documents kept per query: what MAP@100 looks at


def rank(chunks: Iterable[np.ndarray], depth: int = DEPTH) -> tuple[np.ndarray, np.ndarray]:
    """Return each query's best documents, columns and scores, best first, shape (num_queries, depth, or all) each.

    The chunks are similarities without NaN of some documents at a time: float32, shape (num_queries, any) each.
    """
    scores, columns, num_seen = [], [], 0
    for chunk in chunks:
        scores.append(chunk)
        columns.append(np.broadcast_to(np.arange(num_seen, num_seen + chunk.shape[1]), chunk.shape))
        num_seen += chunk.shape[1]
        joined = np.concatenate(scores, axis=1)
        best = _highest(joined, min(depth, joined.shape[1]))
        scores = [np.take_along_axis(joined, best, axis=1)]
        columns = [np.take_along_axis(np.concatenate(columns, axis=1), best, axis=1)]
    return columns[0], scores[0]


def _highest(scores: np.ndarray, depth: int) -> np.ndarray:
    """Return the columns of each row's highest scores, the highest first, and of equal ones the lower column."""
    least = np.partition(scores, -depth, axis=1)[:, [-depth]]
    rows, columns = np.nonzero(scores >= least)  # few are left to sort
    order = np.lexsort((-scores[rows, columns], rows))  # stable
    starts = np.searchsorted(rows, np.arange(len(scores)))
    return columns[order][starts[:, None] + np.arange(depth)]


def per_query_metrics(hits: np.ndarray, num_relevant: np.ndarray) -> dict[str, np.ndarray]:
    """Return every metric of every query, shape (num_queries,) each, under Sentence Transformers' names.

    Hits are whether the document at each rank is relevant, best rank first, shape (num_queries, depth); relevant are
    at least 1 for each query, shape (num_queries,). nDCG has binary gains and a log2 discount (Järvelin and Kekäläinen
    2002). MAP@100 divides by the number of relevant documents, as trec_eval's map_cut_100 does; Sentence Transformers
    divides by at most 100.
    """
    depth = hits.shape[1]
    ranks = np.arange(1, depth + 1)
    found = np.cumsum(hits, axis=1)  # relevant documents down to each rank
    found_at = {k: found[:, min(k, depth) - 1] for k in CUTOFFS}
    discounts = 1 / np.log2(np.arange(2, 12))
    dcg = hits[:, :10] @ discounts[:depth]
    ideal_dcg = np.cumsum(discounts)[np.minimum(num_relevant, 10) - 1]
    first_rank = np.argmax(hits, axis=1) + 1
    return {
        **{f"accuracy@{k}": (found_at[k] > 0).astype(float) for k in CUTOFFS},
        **{f"precision@{k}": found_at[k] / k for k in CUTOFFS},
        **{f"recall@{k}": found_at[k] / num_relevant for k in CUTOFFS},
        "ndcg@10": dcg / ideal_dcg,
        "mrr@10": np.where(hits[:, :10].any(axis=1), 1 / first_rank, 0.0),
        "map@100": (hits * found / ranks)[:, :100].sum(axis=1) / num_relevant,
    }


def order(ids: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return documents and their scores, best first; of equal scores the higher id comes first, as in trec_eval."""
    best = np.lexsort((ids, scores))[::-1]
    return ids[best], scores[best]


def reranking_metrics(rankings: Sequence[np.ndarray], relevant: Sequence[set[str]]) -> dict[str, np.ndarray]:
    """Return nDCG@10, MRR@10, MAP and accuracy@1 of each query, shape (num_queries,) each.

    A ranking holds the ids of a query's documents, best first; they may be few, and lack some of those that are
    relevant, at least one.
    """
    hits = np.zeros((len(rankings), max(10, *map(len, rankings))), dtype=bool)
    for row, ids in enumerate(rankings):
        hits[row, : len(ids)] = [id_ in relevant[row] for id_ in ids.tolist()]
    num_relevant = np.array([len(ids) for ids in relevant])
    values = per_query_metrics(hits, num_relevant)
    precisions = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return {
        "ndcg@10": values["ndcg@10"],
        "mrr@10": values["mrr@10"],
        "map": (hits * precisions).sum(axis=1) / num_relevant,  # over the whole ranking
        "accuracy@1": values["accuracy@1"],
    }


def chance(
    num_documents: np.ndarray, num_present: np.ndarray, num_relevant: np.ndarray, depth: int = DEPTH
) -> dict[str, np.ndarray]:
    """Return what each query's metrics are in expectation when its documents stand in a random order.

    They have the names of `per_query_metrics`, shape (num_queries,) each, as the arguments: the documents that are put
    in order, those of them that are relevant, and all that are relevant, at least 1. MAP looks at `depth` documents.

    The rank of the first relevant document is negative hypergeometric; a document at a rank is relevant with the
    probability num_present / num_documents, and each of those before it with (num_present - 1) / (num_documents - 1).
    """
    n, present = np.maximum(num_documents, 1), num_present
    before = np.arange(10)
    wrong = (n - present)[:, None] - before
    misses = np.where(wrong > 0, wrong / np.maximum(n[:, None] - before, 1), present[:, None] == 0)
    none_yet = np.cumprod(np.column_stack([np.ones(len(n)), misses]), axis=1)  # after 0 to 10 documents
    share, among = present / n, np.maximum(present - 1, 0) / np.maximum(n - 1, 1)
    discounts = np.cumsum(1 / np.log2(np.arange(2, 12)))
    depths = np.minimum(n, depth)
    harmonic = np.cumsum(1 / np.arange(1, depths.max() + 1))[depths - 1]
    return {
        **{f"accuracy@{k}": 1 - none_yet[:, k] for k in CUTOFFS},
        **{f"precision@{k}": share * np.minimum(n, k) / k for k in CUTOFFS},
        **{f"recall@{k}": share * np.minimum(n, k) / num_relevant for k in CUTOFFS},
        "ndcg@10": share * discounts[np.minimum(n, 10) - 1] / discounts[np.minimum(num_relevant, 10) - 1],
        "mrr@10": -np.diff(none_yet, axis=1) @ (1 / (before + 1)),
        "map@100": share * (harmonic * (1 - among) + depths * among) / num_relevant,
    }


def reranking_chance(
    num_documents: np.ndarray, num_present: np.ndarray, num_relevant: np.ndarray
) -> dict[str, np.ndarray]:
    """Return what `reranking_metrics` are in expectation when the candidates stand in a random order; see `chance`."""
    values = chance(num_documents, num_present, num_relevant, depth=max(1, int(num_documents.max())))
    return {
        "map" if name == "map@100" else name: values[name] for name in ("ndcg@10", "mrr@10", "map@100", "accuracy@1")
    }


def bootstrap_interval(values: np.ndarray, num_resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Return the 95% percentile bootstrap interval of the mean (Efron 1979).

    Values are one per query, shape (num_queries,). The queries are resampled with replacement, depending on the seed
    and the number of values only, so that two models are resampled alike.
    """
    low, high = np.percentile(_resampled_means(values, num_resamples, seed), [2.5, 97.5])
    return float(low), float(high)


def share_interval(
    values: np.ndarray, full: np.ndarray, num_resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return the paired 95% bootstrap interval of one mean's share of another, of the same queries, not all 0.

    Shape (num_queries,) each. Both are resampled alike, as by `bootstrap_interval`.
    """
    some, of_full = (_resampled_means(each, num_resamples, seed) for each in (values, full))
    drawn = of_full > 0  # few queries can all be 0 in a resample
    low, high = np.percentile(some[drawn] / of_full[drawn], [2.5, 97.5])
    return float(low), float(high)


def _resampled_means(values: np.ndarray, num_resamples: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    # One resample at a time: all of them together would be (num_resamples, num_queries) numbers.
    return np.array([values[generator.integers(len(values), size=len(values))].mean() for _ in range(num_resamples)])


class Difference(NamedTuple):
    """The mean of one setting minus that of another, its 95% interval, and the p-value of a sign-flip test."""

    mean: float
    low: float
    high: float
    p: float

    @property
    def outcome(self) -> str:
        """`better` or `worse` where the interval excludes 0 and the test agrees, else `not shown`.

        With few queries the interval alone is too narrow; five or fewer never reach p < 0.05.
        """
        is_clear = (self.low > 0 or self.high < 0) and self.p < 0.05
        return "not shown" if not is_clear else "better" if self.low > 0 else "worse"


def paired_difference(
    first: np.ndarray, second: np.ndarray, num_resamples: int = 2000, num_flips: int = 10_000, seed: int = 0
) -> Difference:
    """Return how far the second setting lies above the first, by a metric between 0 and 1 of the same queries.

    Each has the shape (num_runs, num_queries), a run per seed, with the queries in the same order.

    The interval is the paired percentile bootstrap over queries of the means over runs. Where a setting has several
    runs, which differ in their seeds, it is stretched to hold another draw of seeds too: by the variance between runs
    (pooled over both settings) beyond what their queries' scatter explains, and by Student's t for how few runs tell
    it, with Satterthwaite's (1946) degrees of freedom. The test flips the signs of the queries' differences
    (Smucker, Allan and Carterette 2007); it asks about these runs and knows nothing of other seeds.
    """
    generator = np.random.default_rng(seed)
    differences = second.mean(axis=0) - first.mean(axis=0)
    mean, num_queries = float(differences.mean()), len(differences)
    resamples = (generator.integers(num_queries, size=(size, num_queries)) for size in _portions(num_resamples))
    deviations = np.concatenate([differences[rows].mean(axis=1) for rows in resamples]) - mean
    deviations *= _stretch(first, second, num_resamples, generator)
    low, high = np.clip(np.percentile(mean + deviations, [2.5, 97.5]), -1, 1)
    return Difference(mean, float(low), float(high), _sign_flip(differences, num_flips, generator))


def _stretch(first: np.ndarray, second: np.ndarray, num: int, generator: np.random.Generator) -> np.ndarray | float:
    """Return by how much seeds widen the distribution over queries: `num` random factors; 1 where no seed is known."""
    differences = second.mean(axis=0) - first.mean(axis=0)
    over_queries = float(differences.var(ddof=1)) / len(differences) if len(differences) > 1 else 0.0
    freedom = len(first) + len(second) - 2
    if not freedom or not over_queries:
        return 1.0
    between = sum(((values.mean(axis=1) - values.mean()) ** 2).sum() for values in (first, second)) / freedom
    scatter = sum(_scatter(values) for values in (first, second)) / freedom
    per_run = 1 / len(first) + 1 / len(second)
    total = over_queries + max(0.0, between - scatter) * per_run
    total_freedom = total**2 / ((between * per_run) ** 2 / freedom + over_queries**2 / (len(differences) - 1))
    total_freedom = max(total_freedom, freedom)  # no sum is less certain than its least certain part
    return np.sqrt(total / over_queries * total_freedom / generator.chisquare(total_freedom, num))


def _scatter(values: np.ndarray) -> float:
    """Return the part of the squares between runs' means that is due to each query answering seeds in its own way."""
    rest = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    return float((rest**2).sum()) / ((values.shape[1] - 1) * values.shape[1])


def _sign_flip(differences: np.ndarray, num_flips: int, generator: np.random.Generator) -> float:
    """Return the two-sided p-value of differences as likely of either sign (Edgington 1969)."""
    observed, extreme = abs(differences.sum()) * (1 - 1e-12), 0
    for size in _portions(num_flips):
        flips = generator.integers(0, 2, size=(size, len(differences)), dtype=np.int8)
        extreme += int((np.abs(differences.sum() - 2 * (flips @ differences)) >= observed).sum())
    return (extreme + 1) / (num_flips + 1)


def _portions(num: int, most: int = 500) -> list[int]:
    """Split a number of resamples: all at once would be (num, num_queries) numbers in memory."""
    return [min(most, num - start) for start in range(0, num, most)]


def code(embeddings: np.ndarray, *, precision: str, ranges: np.ndarray) -> np.ndarray:
    """Return vectors whose dot product is the similarity at a precision: float32, int8 or binary.

    Embeddings are of unit length, shape (num, dim); ranges: the documents' least and largest values, shape (2, dim).
    """
    from sentence_transformers.util.quantization import quantize_embeddings  # seconds, not for those who only compare

    if precision == "int8":
        return normalize(np.asarray(quantize_embeddings(embeddings, "int8", ranges=ranges), dtype=np.float32))
    if precision == "binary":
        signs = np.unpackbits(quantize_embeddings(embeddings, "ubinary"), axis=1)
        return signs.astype(np.float32) * 2 - 1
    return embeddings


def normalize(embeddings: np.ndarray) -> np.ndarray:
    """Return vectors of unit length, shape (num, dim)."""
    return embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
