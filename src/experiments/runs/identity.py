"""What makes two jobs of a sweep the same: config, files, versions and code."""

from __future__ import annotations

import functools
from importlib import metadata
from pathlib import Path
from typing import Any

from experiments.config.keys import Role, digest, effective, values_of
from experiments.runs.provenance import code_hash

COMPUTES = (  # what `code_hash` reads
    *("config", "data", "models", "training", "evaluation"),
    *("stages.py", "train.py", "evaluate.py"),
)
_LIBRARIES = (  # that compute
    *("sentence-transformers", "transformers", "torch", "torchvision", "accelerate", "datasets", "peft"),
    *("tokenizers", "numpy", "pillow"),
)


def job_identity(config: dict[str, Any], task: str = "train") -> str:
    """Return the SHA-256 of all that can change a job's result.

    That is its config without paths of caches, logging, tracking and numbers of workers; the files that it names
    (path, size, time of change); the versions of the libraries that compute; and the code that computes.

    Args:
        config: The resolved config, as plain containers.
        task: "train" or "evaluate".
    """
    files = {key: file_stamps(name) for key, name in values_of(config, Role.FILES).items() if isinstance(name, str)}
    return digest([task, effective(config), files, _versions(), code_hash(*COMPUTES)])


@functools.cache
def file_stamps(name: str) -> Any:
    """Return path, size and time of change of a file, or of every file below a folder; None for a name on the Hub."""
    path = Path(name).expanduser()
    if path.is_file():
        return [_stamp(path)]
    if not path.is_dir():
        return None
    return [_stamp(file) for file in sorted(path.rglob("*")) if file.is_file()]


def _stamp(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


@functools.cache
def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for library in _LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            versions[library] = None
    return versions
