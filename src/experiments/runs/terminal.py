"""What the terminal is spared."""

from __future__ import annotations

import logging

OURS = ("experiments", "hydra", "hydra_plugins", "__main__")


class OursOrWarnings(logging.Filter):
    """Let pass what we say, and what libraries say if it is a warning or worse."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record goes to the terminal."""
        return record.levelno >= logging.WARNING or record.name.partition(".")[0].lower() in OURS
