"""TREC files of rankings and relevant documents, from which anyone can recompute a metric."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np


def write_run(folder: Path, name: str, ranked: Iterable[tuple[str, Iterable[tuple[str, np.float32]]]]) -> None:
    """Write a TREC run file, `{name}.trec`.

    Args:
        folder: Where it goes.
        name: Of the run.
        ranked: Each query's id with its documents' ids and scores, best first; a float32 is written with the digits
            that tell it from others.
    """
    lines = (
        f"{query_id} Q0 {document_id} {rank} {score} {name}"
        for query_id, documents in ranked
        for rank, (document_id, score) in enumerate(documents, start=1)
    )
    _write_lines(folder / f"{name}.trec", lines)


def write_qrels(folder: Path, name: str, relevant_docs: Mapping[str, set[str]]) -> None:
    """Write a TREC file of relevant documents, `{name}.trec`."""
    lines = (f"{query_id} 0 {id_} 1" for query_id, ids in relevant_docs.items() for id_ in sorted(ids))
    _write_lines(folder / f"{name}.trec", lines)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text file, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.tmp")
    with unfinished.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    os.replace(unfinished, path)
