"""Which of several settings is better, query by query, and whether that is more than chance.

python -m experiments.compare RUN [RUN ...]     each a run's directory, or one that holds runs; one run: base and final
                              [--reference RUN] [--all] [--out FILE.md]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.config.errors import ConfigError
from experiments.config.hints import dotted_keys, parse_flags, select, show
from experiments.config.keys import Role, digest, effective, plays
from experiments.evaluation.metrics import paired_difference
from experiments.reports import answer, run_answer
from experiments.reports.page import render
from experiments.reports.settings import Setting, by_evaluation, load_runs, settings_of
from experiments.reports.tables import difference_text, listed, markdown_table, p_text, shown
from experiments.runs.metrics_file import answered_by, metric_label, shared_chance
from experiments.runs.names import short_keys
from experiments.runs.run import named_dirs


def compare(paths: Sequence[Path], reference: str | None = None, everything: bool = False) -> str:
    """Return a page that compares each setting with the reference: the one named, or else the best.

    Of runs on several evaluations those of each are compared on a page of their own, and the rest is named. With
    `everything` each pair's other dimensions and metrics follow, and the config keys that differ; paths and errors are
    of `load_runs`, `settings_of` and `answer.find_reference`.
    """
    runs = load_runs(paths)
    groups = by_evaluation(runs)
    if len(groups) in (1, len(runs)):
        return _page(settings_of(runs), reference, everything)
    found = [settings_of(group) for group in groups if len(group) > 1]
    named = [_is_among(settings, reference) for settings in found]
    if not any(named):
        answer.find_reference([each for settings in found for each in _contenders(settings)], reference)  # is refused
    pages = [
        _page(settings, reference if is_named else None, everything)
        for settings, is_named in zip(found, named, strict=True)
    ]
    if alone := [shown(run.path) for group in groups if len(group) == 1 for run in group]:
        pages.append(f"Not compared, since no other run here has the same evaluation: {', '.join(alone)}\n")
    return "\n".join(pages)


def _is_among(settings: Sequence[Setting], reference: str | None) -> bool:
    """Return whether a reference is one of the settings."""
    try:
        answer.find_reference(_contenders(settings), reference)
    except ConfigError:
        return False
    return True


def _contenders(settings: Sequence[Setting]) -> list[answer.Contender]:
    """Return the settings as the answer compares them and, of rerankers, the retriever alone."""
    metrics = settings[0].runs[0].metrics
    alone = answer.retriever_alone(metrics, next(iter(settings[-1].values[0].values())))
    return [*(_contender(setting, answered_by(metrics)) for setting in settings), *([alone] if alone else [])]


def _page(settings: Sequence[Setting], reference: str | None, everything: bool) -> str:
    """Return the page of settings that share an evaluation."""
    metrics, contenders = settings[0].runs[0].metrics, _contenders(settings)
    metric, label, counts = answered_by(metrics), run_answer.label(metrics), [len(each.runs) for each in settings]
    is_one_run = len({run.path for setting in settings for run in setting.runs}) == 1 < len(settings)
    place = answer.find_reference(contenders, reference)
    if is_one_run and reference is None:
        place = 0 if len(contenders) == len(settings) else len(settings)  # the retriever
    is_chosen = reference is None and not is_one_run
    by_chance = shared_chance((run.metrics for setting in settings for run in setting.runs), metric)
    found = answer.differences(contenders, place, metric, is_chosen=is_chosen)
    sentence = run_answer.verdict_sentence(metrics) if is_one_run and reference is None else ""
    if not sentence:
        sentence = answer.sentence(contenders, found, place, label)
        sentence += answer.not_above_chance(contenders, by_chance, metrics["evaluation"]["num_queries"])
    differing, without_effect = _config_keys(settings)
    first = settings[place] if place < len(settings) else settings[0]  # a retriever has no other metrics or dimensions
    others = [setting for setting in settings if setting is not first]
    headers = ["run", f"{label}{'' if max(counts) > 1 else ' [95% interval]'}"]
    return render(
        "comparison",
        settings=settings,
        first=first,
        others=others,
        reference=contenders[place].name,
        metric=label,
        evaluation=metrics["evaluation"],
        num_runs=counts,
        chosen_note=answer.chosen_note(contenders, found) if is_chosen else "",
        num_compared=len(contenders) - 1,
        sentence=sentence,
        answer=answer.table(headers, contenders, found, place, by_chance),
        differ=listed([*short_keys(differing).values()]),
        everything=everything,
        scores=_scores(settings, metric),
        config_keys=(_keys_table(settings, differing), without_effect),
        pairs=[(other, *_pair(first, other, metric)) for other in others if everything],
    )


def _contender(setting: Setting, metric: str) -> answer.Contender:
    """Return a setting as it stands in the answer: at its full dimension, or in all directions."""
    key, paths = setting.keys[0], [run.path for run in setting.runs]
    parts = [each[key] for each in setting.values]
    value, interval = float(setting.matrix(key, metric).mean()), setting.interval(key, metric)
    said = setting.score(key, metric, with_interval=True)
    return answer.Contender(setting.label, said, value, paths, parts, interval=interval)


def _label(metric: str) -> str:
    """Return a metric's name as it is read, and whether it is of a reranker and its retriever together."""
    return metric_label(metric) + " end to end" * metric.startswith("end_to_end_")


def _scores(settings: Sequence[Setting], metric: str) -> str:
    """Return each setting's mean, and its spread over seeds, at each dimension or in each direction."""
    keys, is_dims = [*dict.fromkeys(key for setting in settings for key in setting.keys)], settings[0].has_dimensions
    if is_dims:
        keys.sort(key=int, reverse=True)
    rows = []
    for setting in settings:
        rows.append([setting.label, *(setting.score(key, metric) if key in setting.keys else "–" for key in keys)])
    return markdown_table([_label(metric), *(f"{key} dims" if is_dims else key for key in keys)], rows)


def _config_keys(settings: Sequence[Setting]) -> tuple[dict[str, list[str]], list[str]]:
    """Return what differs by setting: config keys, code, libraries and machine; and keys without effect."""
    records = [setting.runs[0].record for setting in settings]
    configs = [record["config"] for record in records]
    kept = [effective(config) for config in configs]
    found, without_effect = {}, []
    for key in dict.fromkeys(key for config in configs for key in _leaves(config)):
        if not plays(key, Role.SEED) and _differ(values := [select(config, key) for config in configs]):
            if _differ(select(config, key) for config in kept):
                found[key] = [show(value) for value in values]
            else:
                without_effect.append(key)
    for name in ("job", "git", "versions", "hardware"):
        found |= _provenance(name, [record.get(name) for record in records])
    return found, without_effect


def _keys_table(settings: Sequence[Setting], found: dict[str, list[str]]) -> str:
    """Return what differs as a table."""
    labels = [setting.label for setting in settings]
    if len(settings) > max(4, len(found)):  # a column for each key, or one for each setting
        headers, rows = (
            ["", *found],
            [[label, *column] for label, *column in zip(labels, *found.values(), strict=True)],
        )
    else:
        headers, rows = ["key", *labels], [[key, *values] for key, values in found.items()]
    return markdown_table(headers, rows) if found else "None."


def _leaves(config: dict[str, Any]) -> Iterator[str]:
    """Yield every key that holds a value, and what builds each group."""
    for group, node in config.items():
        if isinstance(node, dict) and "_target_" in node:
            yield f"{group}._target_"
    yield from (key for key in dotted_keys(config) if not isinstance(select(config, key), dict))


def _provenance(name: str, values: list[Any]) -> dict[str, list[str]]:
    """Return in what a part of the records differs."""
    if not all(isinstance(value, dict) for value in values):
        return {name: [show(value) for value in values]} if _differ(values) else {}
    columns = {key: [value.get(key) for value in values] for key in values[0]}
    return {f"({name}) {key}": [show(each)[:12] for each in found] for key, found in columns.items() if _differ(found)}


def _differ(values: Iterable[Any]) -> bool:
    return len({digest(value) for value in values}) > 1


def _pair(first: Setting, other: Setting, metric: str) -> tuple[str, str]:
    """Return the verdict on two settings and the table behind it, which is empty where they are equal."""
    common = [(key, key) for key in first.keys if key in other.keys]
    if first.keys[0] != other.keys[0]:  # full dimensions that differ
        common.insert(0, (first.keys[0], other.keys[0]))
    names = [metric, *(name for name in first.metrics if name != metric and name in other.metrics)]
    names = [name for name in names if not name.startswith("retriever_")]  # both were given the same
    if all(np.array_equal(first.matrix(a, name), other.matrix(b, name)) for name in names for a, b in common):
        said = _listed([key for key, _ in common], first)
        return f"**no difference**: every query has the same metrics {said}.", ""
    rows, better = [], {}
    for name in names:
        for at in common if name == metric else common[:1]:
            key, difference = ", ".join(dict.fromkeys(at)), _difference(first, other, at, name)
            if name == metric:
                better[key] = difference[-1]
            scores = [first.score(at[0], name), other.score(at[1], name)]
            rows.append([_label(name), key, *scores, *difference])
    headers = ["metric", "dims" if first.has_dimensions else "direction", first.label, other.label]
    headers += [f"{other.label} - {first.label} [95% interval]", "p", "better"]
    return f"**{_label(metric)}: {_verdict(better, first, other)}.**", markdown_table(headers, rows)


def _difference(first: Setting, other: Setting, keys: tuple[str, str], metric: str) -> list[str]:
    """Return difference and interval, p-value, and the better setting, a dash where that may be chance."""
    found = paired_difference(first.matrix(keys[0], metric), other.matrix(keys[1], metric))
    better = {"better": other.label, "worse": first.label}.get(found.outcome, "–")
    return [difference_text(found.mean, [found.low, found.high]), p_text(found.p), better]


def _verdict(better: dict[str, str], first: Setting, other: Setting) -> str:
    """Say at which dimensions, or in which directions, which setting is better."""
    verdicts = {
        first.label: "{first} is better than {other} {where}",
        other.label: "{other} is better than {first} {where}",
        "–": "neither is shown to be better {where} (the interval holds 0, or p is 0.05 or more)",
    }
    said = []
    for label, verdict in verdicts.items():
        if keys := [key for key, found in better.items() if found == label]:
            said.append(verdict.format(first=first.label, other=other.label, where=_listed(keys, first)))
    return "; ".join(said)


def _listed(keys: Iterable[str], setting: Setting) -> str:
    """Return "at 96, 48 dimensions", or in which directions."""
    names = ", ".join(keys)
    return f"at {names} dimensions" if setting.has_dimensions else f"in direction {names}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison, write it if asked to, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.compare",
        description="Compare runs query by query: what differs in their configs, and by how much in their metrics.",
    )
    runs = "a run's directory, or one that holds runs; one run alone: before and after its training"
    parser.add_argument("dirs", nargs="+", type=Path, metavar="RUN", help=runs)
    parser.add_argument("--reference", metavar="RUN", help="what the others are held against (default: the best)")
    parser.add_argument("--all", action="store_true", help="every dimension, metric and config key too")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="write the page there too")
    try:
        options = parse_flags(parser, arguments)
        text = compare(named_dirs(options.dirs), options.reference, options.all)
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(text, encoding="utf-8")
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(text + (f"\nwritten: {options.out}\n" if options.out else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
