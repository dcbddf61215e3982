"""The folders that a command makes, so that one which is refused leaves none, and none goes that was there before."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_missing: list[Path] = []  # before they were made, those above others first


def expect(*folders: Path) -> None:
    """Note which of the folders, and of those above them, aren't there yet."""
    for folder in folders:
        path = folder.expanduser().resolve()
        _missing.extend(each for each in reversed([path, *path.parents]) if not (each in _missing or each.exists()))


def is_new(folder: Path) -> bool:
    """Return whether this command has made a folder that was expected."""
    return folder.resolve() in _missing


def remove_empty() -> None:
    """Remove the folders that were made since, if nothing is in them."""
    for folder in sorted(_missing, key=lambda path: -len(path.parts)):
        with suppress(OSError):  # it never came to be, or something is in it
            folder.rmdir()
