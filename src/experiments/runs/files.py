"""Folders that are complete or absent."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_once(folder: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a folder elsewhere, and put it in its place; of two processes at once the first one's stays.

    Args:
        folder: What is to be there.
        write: Called with a path of the same name where nothing is yet; what it writes beside that goes again.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        written = Path(scratch) / folder.name
        write(written)
        try:
            os.replace(written, folder)
        except OSError:
            if not folder.is_dir():
                raise
