"""What the drawn sets share: all combinations of a set's attributes, and a folder that is drawn once."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from experiments.runs.files import write_once

Shown = TypeVar("Shown", bound=tuple[str, ...])


def combinations(make: Callable[..., Shown], attributes: Iterable[Sequence[str]], seed: int) -> list[Shown]:
    """Return what every combination of the attributes' values makes, in the order of a hash."""
    made = [make(*values) for values in itertools.product(*attributes)]
    return sorted(made, key=lambda shown: hashlib.sha256(f"{seed}/{'/'.join(shown)}".encode()).digest())


def drawn_once(cache_dir: str, name: str, arguments: str, draw: Callable[[Path], object]) -> str:
    """Return the folder that `draw` writes for these arguments, from the cache if it is there.

    Its name has a hash of the files that draw, so that no cache outlives what made it.
    """
    files = sorted(Path(__file__).parent.glob("*.py"))
    version = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]
    folder = Path(cache_dir).expanduser() / f"{name}-{version}-{arguments}"
    if not folder.exists():
        write_once(folder, draw)
    return str(folder)
