"""What is said: our own lines to the terminal, everything to the run's log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

OURS = ("experiments", "hydra", "hydra_plugins", "__main__")


class OursOrWarnings(logging.Filter):
    """Let pass what we say, and what libraries say if it is a warning or worse."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record goes to the terminal."""
        return record.levelno >= logging.WARNING or record.name.partition(".")[0].lower() in OURS


def log_files() -> Iterator[logging.FileHandler]:
    """Yield the files that this process logs to."""
    yield from (handler for handler in logging.getLogger().handlers if isinstance(handler, logging.FileHandler))


def move_log(folder: Path) -> None:
    """Go on in the log of the run that is resumed."""
    root = logging.getLogger()
    for handler in [*log_files()]:
        moved = logging.FileHandler(folder / Path(handler.baseFilename).name)
        moved.setFormatter(handler.formatter)
        moved.setLevel(handler.level)
        root.removeHandler(handler)
        handler.close()
        root.addHandler(moved)
