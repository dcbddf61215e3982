"""What makes two jobs of a sweep the same: config, files, commits on the Hub, versions and code."""

from __future__ import annotations

import functools
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from experiments.config.errors import ConfigError
from experiments.config.hints import select
from experiments.config.keys import Role, digest, effective, values_of
from experiments.config.model_files import adapter_base, local_folder, named
from experiments.data.named_files import LONGEST_PATH, TABLES, named_files
from experiments.runs.provenance import code_hash, versions

COMPUTES = (  # what `code_hash` reads
    *("config", "data", "models", "training", "evaluation"),
    *("stages.py", "train.py", "evaluate.py"),
)
_LIBRARIES = (  # that compute
    *("sentence-transformers", "transformers", "torch", "torchvision", "accelerate", "datasets", "peft"),
    *("tokenizers", "numpy", "pillow"),
)
_WRITTEN = {"__pycache__", "outputs", "multirun"}
_PUSH = ("hub_model_id", "hub_revision")


def job_identity(
    config: dict[str, Any],
    task: str = "train",
    *,
    commits: dict[str, str] | None = None,
    swept: Collection[str] = (),
) -> str:
    """Return the SHA-256 of all that can change the result of a job.

    That is its resolved config without paths of caches, logging, tracking and numbers of workers; every file that it
    names; the commits of what it names on the Hub; where the model is pushed to, if it is; the versions of the
    libraries that compute; and the code that computes. Numbers of workers count where they are swept themselves: such
    jobs differ in time and memory.

    Args:
        config: The resolved config.
        task: To "train" or to "evaluate".
        commits: See `hub.commits`.
        swept: The keys that have several values in the job's sweep.
    """
    host = {
        key: value
        for key, value in values_of(config, Role.HOST).items()
        if any(each == "experiment" or f"{key}.".startswith(f"{each}.") for each in swept)
    }
    push = [select(config, f"trainer.{key}") for key in _PUSH if select(config, "trainer.push_to_hub")]
    parts = [effective(config), host, push, files(config), commits or {}]
    return digest([task, *parts, versions(*_LIBRARIES), code_hash(*COMPUTES)])


def files(config: dict[str, Any]) -> dict[str, Any]:
    """Return a hash of the stamps of all files that a config names, by the text that names them.

    A text names a file that is there, or a folder: the name of a model or a data set, or any with a slash in it (a
    word such as `train` may be a folder's by chance). With a table come the files that its rows name, with an adapter
    those of its base.
    """
    try:
        sources = {key: local_folder(node[key.rpartition(".")[2]]) for key, node in named(config)}
    except (ConfigError, LookupError):  # the job will be refused
        sources = {}
    found = {}
    for key, text in _texts(effective(config)):
        place = sources.get(key) or (os.path.expanduser(text) if len(text) < LONGEST_PATH else "")
        if os.path.isfile(place) or (os.path.isdir(place) and (key in sources or os.sep in text)):
            found[text] = stamps_hash(str(place), key.startswith("data."))
    return found


@functools.cache  # of what may be a million files, for each of a sweep's jobs
def stamps_hash(name: str, of_data: bool = False) -> str:
    """Return the SHA-256 of `file_stamps`."""
    return digest(file_stamps(name, of_data))


def file_stamps(name: str, of_data: bool = False) -> list[tuple[str, int, int]]:
    """Return path, size and time of change of a file, or of all files below a folder; of data with its rows' files.

    What libraries keep there for themselves (hidden files, `cache-*.arrow` of the datasets library) doesn't count, nor
    what runs leave, by default, where they are started.
    """
    path = Path(name)
    there = {*_below(path)} if path.is_dir() else {str(path.absolute())}
    for table in [*there] if of_data else []:
        if table.lower().endswith(TABLES):
            there |= {*map(os.path.abspath, named_files(Path(table), path if path.is_dir() else path.parent))}
    if (base := adapter_base(path)) is not None and os.path.isdir(base):
        there |= {*_below(Path(base))}
    stats = [(file, os.stat(file)) for file in sorted(there) if os.path.isfile(file)]
    return [(file, status.st_size, status.st_mtime_ns) for file, status in stats]


def _below(folder: Path) -> Iterator[str]:
    """Yield all files below a folder, links followed."""
    seen = set()
    for parent, folders, names in os.walk(folder.absolute(), followlinks=True):
        folders[:] = [each for each in folders if each[0] != "." and each not in _WRITTEN]
        if (real := os.path.realpath(parent)) in seen:  # a link in a circle
            folders.clear()
            continue
        seen.add(real)
        kept = [each for each in names if each[0] != "." and not each.startswith("cache-")]
        yield from (os.path.join(parent, each) for each in kept)


def _texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the texts in a config, each with its key."""
    if isinstance(node, str):
        yield key, node
    elif isinstance(node, dict | list):
        for part, each in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _texts(each, f"{key}.{part}" if key else str(part))
