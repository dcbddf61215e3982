"""What is said: our own lines to the terminal, everything to the run's log."""

from __future__ import annotations

import logging
from pathlib import Path

_OURS = ("experiments", "hydra", "hydra_plugins", "__main__")


class OursOrErrors(logging.Filter):
    """Let pass what we say, and what libraries say if it is an error: their notices are in the log alone."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record goes to the terminal."""
        return record.levelno >= logging.ERROR or record.name.partition(".")[0] in _OURS


class Plain(logging.Formatter):
    """A record as a person reads it: its level is told from a warning on."""

    def format(self, record: logging.LogRecord) -> str:
        """Return `message` or `warning: message`."""
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return level + super().format(record)


def log_files() -> list[logging.FileHandler]:
    """Return the files that this process logs to."""
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.FileHandler)]


def move_log(folder: Path) -> None:
    """Go on in the log of the run that is resumed."""
    root = logging.getLogger()
    for handler in log_files():
        moved = logging.FileHandler(folder / Path(handler.baseFilename).name)
        moved.setFormatter(handler.formatter)
        moved.setLevel(handler.level)
        root.removeHandler(handler)
        handler.close()
        root.addHandler(moved)
