"""Rankings, TREC files of them and of relevant documents, from which anyone can recompute a metric, and names of ids.

Where several directions share a file, ids have their direction before them: `image_to_text/…`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.data.document_names import DocumentName
from experiments.runs.files import replacing

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class Ranking(NamedTuple):
    """The first documents of each query of a direction, best first: a row for each query."""

    query_ids: list[str]
    document_ids: np.ndarray | Sequence[np.ndarray]  # str; rows may differ in their depth
    scores: np.ndarray | Sequence[np.ndarray]  # float32


def write_run(folder: Path, name: str, rankings: Mapping[str, Ranking]) -> None:
    """Write rankings by direction as a TREC run file, `{name}.trec`; its scores have digits enough for a float32."""
    lines = (
        f"{before}{query_id} Q0 {before}{document_id} {rank} {score} {name}"
        for before, ranking in _with_prefixes(rankings)
        for query_id, ids, scores in zip(*ranking, strict=True)
        for rank, (document_id, score) in enumerate(zip(ids, scores, strict=True), start=1)
    )
    _write_lines(folder / f"{name}.trec", lines)


def write_qrels(folder: Path, name: str, relevant_docs: Mapping[str, Mapping[str, set[str]]]) -> None:
    """Write the relevant documents of each query, by direction, as a TREC file, `{name}.trec`."""
    lines = (
        f"{before}{query_id} 0 {before}{id_} 1"
        for before, by_query in _with_prefixes(relevant_docs)
        for query_id, ids in by_query.items()
        for id_ in sorted(ids)
    )
    _write_lines(folder / f"{name}.trec", lines)


def write_names(folder: Path, name: str, names: Mapping[str, Mapping[str, DocumentName]]) -> None:
    r"""Write where the documents or queries of each direction are from, `{name}.tsv`: a line for each TREC id.

    Tabs, line ends and backslashes in names are written as \t, \n, \r and \\.
    """
    lines = (
        "\t".join(map(_escaped, (f"{before}{id_}", *each)))
        for before, of_direction in _with_prefixes(names)
        for id_, each in of_direction.items()
    )
    _write_lines(folder / f"{name}.tsv", chain(["\t".join(("id", *DocumentName._fields))], lines))


def _escaped(value: object) -> str:
    return "" if value is None else str(value).translate(_ESCAPES)


def _with_prefixes(by_direction: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for direction, found in by_direction.items():
        yield f"{direction}/" if len(by_direction) > 1 else "", found


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
