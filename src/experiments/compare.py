"""Which of several settings is better, query by query, and whether that is more than chance.

python -m experiments.compare RUN RUN [RUN ...] [--out FILE.md]     each a run's directory, or one that holds runs
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.config.errors import ConfigError
from experiments.config.hints import dotted_keys, select, show
from experiments.config.keys import Role, digest, effective, plays
from experiments.evaluation.metrics import Difference, paired_difference
from experiments.reports.settings import Setting, load_settings
from experiments.reports.tables import markdown_table, shown
from experiments.runs.metrics_file import metric_label, primary_metric


def compare(paths: Sequence[Path]) -> str:
    """Return a page that compares the first setting with each other one.

    Args:
        paths: Directories of finished runs, or such that hold finished runs. Runs of one config but for its seeds are
            one setting.

    Raises:
        ConfigError: If there are fewer than two runs, one isn't finished, or they can't be ranked together.
    """
    settings = load_settings(paths)
    first, *others = settings
    metrics = first.runs[0].metrics
    metric, evaluation = primary_metric(metrics), metrics["evaluation"]
    counts = f"{evaluation['num_queries']:,} queries, {evaluation['num_documents']:,} documents"
    parts = [f"# {metric_label(metric)} on {evaluation['name']}: {counts}", _runs(settings)]
    parts.append(_scores(settings, metric))
    if others:
        parts.append(_config_keys(settings))
    if len(others) > 1:
        parts.append(_overview(first, others, metric))
    for other in others:
        parts.append(f"## {other.label} - {first.label}")
        parts += _pair(first, other, metric)
    return "\n\n".join([*parts, *_notes(settings)])


def _runs(settings: Sequence[Setting]) -> str:
    lines = []
    for setting in settings:
        runs = ", ".join(f"{shown(run.path)} (seed {run.record['seed']})" for run in setting.runs)
        lines.append(f"- {setting.label}: {runs}")
    return "\n".join(lines)


def _scores(settings: Sequence[Setting], metric: str) -> str:
    """Return each setting's mean, and its spread over seeds, at each dimension or in each direction."""
    keys = [*dict.fromkeys(key for setting in settings for key in setting.keys)]
    is_dims = settings[0].has_dimensions
    if is_dims:
        keys.sort(key=int, reverse=True)
    rows = [
        [setting.label, *(setting.score(key, metric) if key in setting.keys else "–" for key in keys)]
        for setting in settings
    ]
    return markdown_table([metric_label(metric), *(f"{key} dims" if is_dims else key for key in keys)], rows)


def _config_keys(settings: Sequence[Setting]) -> str:
    """Return the config keys that differ between settings, and code, libraries and machine where they do."""
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
    labels = [setting.label for setting in settings]
    parts = ["## Config keys that differ"]
    if found and len(settings) > max(4, len(found)):  # a column for each key, or one for each setting
        table = [[label, *(values[row] for values in found.values())] for row, label in enumerate(labels)]
        parts.append(markdown_table(["", *found], table))
    elif found:
        parts.append(markdown_table(["key", *labels], [[key, *values] for key, values in found.items()]))
    else:
        parts.append("None.")
    return "\n\n".join([*parts, *([f"Without effect: {', '.join(without_effect)}."] if without_effect else [])])


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


def _overview(first: Setting, others: Sequence[Setting], metric: str) -> str:
    """Return all settings against the first, at the full dimension or in all directions, the best on top."""
    ranked = sorted([first, *others], key=lambda setting: -setting.matrix(setting.keys[0], metric).mean())
    rows = []
    for setting in ranked:
        row = [setting.label, setting.score(setting.keys[0], metric)]
        if setting is not first:
            row += _cells(_difference(first, setting, (first.keys[0], setting.keys[0]), metric), first, setting)
        rows.append([*row, *["–"] * (5 - len(row))])
    headers = ["", metric_label(metric), f"minus {first.label} [95% interval]", "p", "better"]
    return f"## All of them\n\n{markdown_table(headers, rows)}"


def _pair(first: Setting, other: Setting, metric: str) -> list[str]:
    """Return the verdict on two settings and the table behind it."""
    common = [(key, key) for key in first.keys if key in other.keys]
    if first.keys[0] != other.keys[0]:  # full dimensions that differ
        common.insert(0, (first.keys[0], other.keys[0]))
    names = [metric, *(name for name in first.metrics if name != metric and name in other.metrics)]
    if all(np.array_equal(first.matrix(a, name), other.matrix(b, name)) for name in names for a, b in common):
        return [f"**no difference**: every query has the same metrics {_listed((key for key, _ in common), first)}."]
    rows, found = [], {}
    for name in names:
        for at in common if name == metric else common[:1]:
            difference = _difference(first, other, at, name)
            key = ", ".join(dict.fromkeys(at))
            if name == metric:
                found[key] = difference
            scores = [first.score(at[0], name), other.score(at[1], name)]
            rows.append([metric_label(name), key, *scores, *_cells(difference, first, other)])
    headers = ["metric", "dims" if first.has_dimensions else "direction", first.label, other.label]
    headers += [f"{other.label} - {first.label} [95% interval]", "p", "better"]
    return [f"**{_verdict(found, first, other, metric)}**", markdown_table(headers, rows)]


def _listed(keys: Iterable[str], setting: Setting) -> str:
    """Return "at 96, 48 dimensions", or in which directions."""
    names = ", ".join(keys)
    return f"at {names} dimensions" if setting.has_dimensions else f"in direction {names}"


def _difference(first: Setting, other: Setting, keys: tuple[str, str], metric: str) -> Difference:
    return paired_difference(first.matrix(keys[0], metric), other.matrix(keys[1], metric))


def _cells(difference: Difference, first: Setting, other: Setting) -> list[str]:
    """Return difference and interval, p-value, and the better setting where the interval excludes 0."""
    interval = f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
    p = "<0.001" if difference.p < 0.001 else f"{difference.p:.3f}"
    return [interval, p, _better(difference, first, other) or "–"]


def _better(difference: Difference, first: Setting, other: Setting) -> str:
    if not difference.is_clear:
        return ""
    return other.label if difference.low > 0 else first.label


def _verdict(found: dict[str, Difference], first: Setting, other: Setting, metric: str) -> str:
    said = []
    for setting, worse in ((first, other), (other, first)):
        keys = [key for key, difference in found.items() if _better(difference, first, other) == setting.label]
        if keys:
            said.append(f"{setting.label} is better than {worse.label} {_listed(keys, first)}")
    if unclear := [key for key, difference in found.items() if not difference.is_clear]:
        where = _listed(unclear, first)
        said.append(f"neither is shown to be better {where} (the interval holds 0, or p is 0.05 or more)")
    return f"{metric_label(metric)}: {'; '.join(said)}."


def _notes(settings: Sequence[Setting]) -> list[str]:
    """Say how to read the numbers and what to do next."""
    several = any(len(setting.runs) > 1 for setting in settings)
    notes = []
    if several:
        notes.append("±: standard deviation over runs of one setting, which differ in their seeds alone.")
    if len(settings) == 1:
        return [*notes, "There is no other setting to compare with: name runs that differ in more than their seeds."]
    seeds = ", stretched by the spread over seeds" if several else ""
    unaware = "; it knows nothing of other seeds" if several else ""
    notes.append(
        f"Interval: paired bootstrap over queries{seeds}. p: sign-flip test over these runs' queries{unaware}."
    )
    if len(settings) > 2:
        notes.append(f"{len(settings) - 1} settings are compared with A: one in 20 such intervals misses by chance.")
    if several and any(len(setting.runs) < 4 for setting in settings):
        notes.append(
            "Two or three runs hardly tell how far seeds spread, hence wide intervals; more seeds narrow them."
        )
    elif not several:
        notes.append(
            "One run says nothing about other seeds: add -m seed=43,44,45 to its command (see its report.md)."
        )
    return notes


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison, write it if asked to, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.compare",
        description="Compare runs query by query: what differs in their configs, and by how much in their metrics.",
    )
    parser.add_argument("dirs", nargs="+", type=Path, metavar="RUN", help="a run's directory, or one that holds runs")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="write the page there too")
    options = parser.parse_args(arguments)
    try:
        text = compare(options.dirs)
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(text + "\n", encoding="utf-8")
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(text + "\n" + (f"\nwritten: {options.out}\n" if options.out else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
