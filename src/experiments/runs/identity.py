"""What makes two jobs of a sweep the same: config, files, versions and code."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from experiments.config.keys import Role, digest, effective, values_of
from experiments.runs.provenance import code_hash, versions

COMPUTES = (  # what `code_hash` reads
    *("config", "data", "models", "training", "evaluation"),
    *("stages.py", "train.py", "evaluate.py"),
)
_LIBRARIES = (  # that compute
    *("sentence-transformers", "transformers", "torch", "torchvision", "accelerate", "datasets", "peft"),
    *("tokenizers", "numpy", "pillow"),
)


def job_identity(config: dict[str, Any], task: str = "train") -> str:
    """Return the SHA-256 of all that can change the result of a job, which is to "train" or to "evaluate".

    That is its resolved config without paths of caches, logging, tracking and numbers of workers; the files that it
    names (path, size, time of change); the versions of the libraries that compute; and the code that computes.
    """
    files = {key: file_stamps(name) for key, name in values_of(config, Role.FILES).items() if isinstance(name, str)}
    return digest([task, effective(config), files, versions(*_LIBRARIES), code_hash(*COMPUTES)])


@functools.cache
def file_stamps(name: str) -> list[tuple[str, int, int]] | None:
    """Return path, size and time of change of a file, or of every file below a folder; None for a name on the Hub."""
    path = Path(name).expanduser()
    if not path.exists():
        return None
    files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]
    found = [(str(file.resolve()), file.stat()) for file in files]
    return [(resolved, status.st_size, status.st_mtime_ns) for resolved, status in found]
