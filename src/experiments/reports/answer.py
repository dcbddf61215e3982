"""The answer to which run is better: each against a reference, query by query, in one sentence and one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.config.errors import ConfigError
from experiments.config.hints import nearest
from experiments.evaluation.metrics import Difference, paired_difference
from experiments.evaluation.query_values import Part
from experiments.reports.tables import difference_text, markdown_table, named_or_counted, p_text, score_text
from experiments.runs.metrics_file import answered_by, best_measured, lies_above, main_values, primary_metric

MOST = 400  # comparisons that a p-value is multiplied by: of 10,000 flips it tells no smaller one
AGAINST = ("minus reference [95% interval]", "p", "verdict")  # the columns that an answer ends with


class Contender(NamedTuple):
    """What is compared: one run, or several that differ in their seeds alone."""

    name: str
    score: str  # the mean as it is read, with its interval or spread
    value: float
    paths: Sequence[Path] = ()  # of its runs, by which it may be named
    parts: Sequence[Part] = ()  # the values of the queries, of each run; none where they weren't kept
    cells: Sequence[str] = ()  # of the caller's columns, between name and score
    interval: Sequence[float] | None = None  # 95%, of one run

    def matrix(self, metric: str) -> np.ndarray:
        """Return a metric of every run and query, shape (num_runs, num_queries)."""
        return np.stack([part.values[metric] for part in self.parts])


def find_reference(contenders: Sequence[Contender], typed: str | None = None) -> int:
    """Return which contender the others are held against: the one that was typed, by name or path, or the best.

    Raises:
        ConfigError: If none is called that.
    """
    if typed is None:  # one that can be compared, if there is any
        return max(range(len(contenders)), key=lambda index: (bool(contenders[index].parts), contenders[index].value))
    for index, each in enumerate(contenders):
        places = {name for path in each.paths for name in (str(path.resolve()), path.name)}
        if typed == each.name or {str(Path(typed).resolve()), typed} & places:
            return index
    names = [each.name for each in contenders]
    near = nearest(typed, names)
    said = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(map(repr, names[:20]))}"
    raise ConfigError(f"--reference {typed} is none of these runs; {said}")


def retriever_alone(metrics: dict[str, Any], part: Part) -> Contender | None:
    """Return the order that a run's reranker was given, against which it is judged; None without a retriever."""
    metric, primary = answered_by(metrics), primary_metric(metrics)
    if metric == primary:
        return None
    values, name = main_values(best_measured(metrics)), f"retriever_{primary}"
    interval = values.get(f"{name}_ci95")
    alone = replace(part, values={metric: part.values[name]})
    return Contender("retriever alone", score_text(values[name], interval), values[name], parts=[alone])


def differences(
    contenders: Sequence[Contender], reference: int, metric: str, *, is_chosen: bool = False
) -> list[Difference | None]:
    """Return how far each lies above the reference; None of itself, and where the same queries weren't kept.

    A reference that `is_chosen`, as the best, is so by luck too: of 20 equal runs one in five others would look worse.
    Each p-value is then multiplied by the number of runs held against it (Bonferroni), as Hsu's (1996) comparisons
    with the best do: the run that truly is the best is called worse in at most one of 20 reports.
    """
    found: list[Difference | None] = []
    first = contenders[reference]
    for index, each in enumerate(contenders):
        queries = [part.query_ids for part in (*first.parts, *each.parts)]
        comparable = index != reference and first.parts and each.parts and all(ids == queries[0] for ids in queries)
        found.append(paired_difference(first.matrix(metric), each.matrix(metric)) if comparable else None)
    num = num_held(contenders, found) if is_chosen else 1
    return [each and each._replace(p=min(1.0, each.p * min(num, MOST))) for each in found]


def num_held(contenders: Sequence[Contender], found: Sequence[Difference | None]) -> int:
    """Return how many runs are held against the reference, at least one; no models before training, no retriever."""
    return max(1, sum(bool(each.paths) for each, difference in zip(contenders, found, strict=True) if difference))


def chosen_note(contenders: Sequence[Contender], found: Sequence[Difference | None]) -> str:
    """Return what is said of p-values against a reference that was chosen as the best of several; empty of one."""
    num = num_held(contenders, found)
    if num < 2:
        return ""
    said = f"p: times the {num} runs held against the best, which is so by luck too"
    return f"{said}; the intervals, and what --all adds, are of pairs."


def table(
    headers: Sequence[str],
    contenders: Sequence[Contender],
    found: Sequence[Difference | None],
    reference: int,
    chance: float | None = None,
) -> str:
    """Return a row for each contender, and for chance where it is known; headers are of name, cells and score."""
    rows = []
    for index, (each, difference) in enumerate(zip(contenders, found, strict=True)):
        against = ["–"] * 2 + ["reference" if index == reference else "–"]
        if difference:
            interval = [difference.low, difference.high]
            against = [difference_text(difference.mean, interval), p_text(difference.p), difference.outcome]
        rows.append([each.name, *each.cells, each.score, *against])
    if chance is not None:
        dashes = ["–"] * len(contenders[0].cells)
        rows.append(["chance", *dashes, score_text(chance), *["–"] * len(AGAINST)])
    return markdown_table([*headers, *AGAINST], rows)


def sentence(contenders: Sequence[Contender], found: Sequence[Difference | None], reference: int, metric: str) -> str:
    """Return which is better, by how much and whether that may be chance; the metric as it is read."""
    first = contenders[reference]
    compared = [(each, difference) for each, difference in zip(contenders, found, strict=True) if difference]
    if len(compared) == 1:
        return _of_two(first, *compared[0], metric)
    is_best = first.value == max([first.value, *(each.value for each, _ in compared)])
    said = [f"{'Best' if is_best else 'Held against'}: {first.name}, {metric} {first.score}"]
    shown = "not shown to be worse" if is_best else "not shown to differ"
    for outcome, words in (("better", "better"), ("not shown", shown), ("worse", "worse")):
        names = [each.name for each, difference in compared if difference.outcome == outcome]
        if names and len(names) == len(contenders) - 1:
            said.append(f"The {len(names)} others are {words}")
        elif names:
            said.append(f"{words.capitalize()}: {named_or_counted(names, len(contenders) - 1)}")
    return ". ".join(said) + "."


def _of_two(first: Contender, other: Contender, difference: Difference, metric: str) -> str:
    """Return the sentence on two, the reference and one other: the better one, or the reference, stands first."""
    if not difference.mean and difference.low == difference.high:
        return (
            f"No difference: {first.name} and {other.name} have the same {metric} on every query ({first.value:.3f})."
        )
    mean, interval = -difference.mean, [-difference.high, -difference.low]
    if difference.outcome == "better":
        first, other, mean, interval = other, first, difference.mean, [difference.low, difference.high]
    numbers = f"difference {difference_text(mean, interval)}, p {p_text(difference.p)}"
    numbers = f"{metric} {first.score} and {other.score}, {numbers}"
    if difference.outcome == "not shown":
        return f"No difference is shown between {first.name} and {other.name}: {numbers}."
    return f"{first.name} is better than {other.name}: {numbers}."


def not_above_chance(contenders: Sequence[Contender], by_chance: float | None, num_queries: int) -> str:
    """Return which of the runs don't lie above chance; empty where all do, or nothing tells."""
    if by_chance is None:
        return ""
    runs = [each for each in contenders if each.paths and each.interval is not None]
    names = [each.name for each in runs if not lies_above(each.interval or (), by_chance, num_queries)]
    return f" Not above chance ({by_chance:.3f}): {named_or_counted(names, len(runs))}." if names else ""
