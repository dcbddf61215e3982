"""What is said: our own lines to the terminal, everything to the run's log."""

from __future__ import annotations

import logging
import re
from pathlib import Path

_OURS = ("experiments", "hydra", "hydra_plugins", "__main__")
_BAR = re.compile(r"([^\r\n|\]]*?):? *\d+%\|[^|]*\| *(\d+/\d+)")  # as tqdm draws it


class OursOrWarnings(logging.Filter):
    """Let pass what we say, and what libraries say if it is a warning or worse."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record goes to the terminal."""
        return record.levelno >= logging.WARNING or record.name.partition(".")[0].lower() in _OURS


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


def read_step(log: Path) -> str:
    """Return the last progress bar in a log as words, such as "step 12/96"; empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 2000))
            bars = _BAR.findall(file.read().decode(errors="replace"))
    except OSError:
        return ""
    return f"{bars[-1][0].strip() or 'step'} {bars[-1][1]}" if bars else ""
