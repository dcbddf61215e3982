"""The terminal has one owner: our lines, and below them one line that is redrawn in place.

What libraries print goes to the log instead. Where standard output is no terminal nothing is redrawn.
"""

from __future__ import annotations

import io
import logging
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import IO, Any, TextIO

# As tqdm draws it: what is done, a bar, how much of how much, for how long, how long still.
_BAR = re.compile(r"([^\r\n|\]]*?):? *\d+%\|[^|]*\| *([\d.]+\w?/[\d.]+\w?) \[([\d:]+)<([\d:]+|\?)")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_BAR_LASTS_S, _BAR_IS_OVER_S = 2.0, 3.0  # told if it has been there for so long; gone if it hasn't moved for so long

_drawn = ""  # what stands in the terminal's last line


def is_live(stream: IO[str]) -> bool:
    """Return whether a line can be redrawn there."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def fits(text: str) -> bool:
    """Return whether a text can be drawn without being cut."""
    return len(text) < shutil.get_terminal_size().columns


def draw(text: str, stream: IO[str] | None = None) -> None:
    """Redraw the last line of the terminal, cut to its width; nothing takes it away."""
    global _drawn
    stream, text = stream or sys.stdout, text[: shutil.get_terminal_size().columns - 1]
    if text != _drawn and is_live(stream):
        stream.write(f"\r\x1b[K{text}")
        stream.flush()
        _drawn = text


def begin(text: str) -> None:
    """Say what begins, before it is known whether it is refused: on a terminal in the line that is redrawn."""
    if is_live(sys.stdout):
        draw(text)
    else:
        say(f"{text}\n")


def say(text: str) -> None:
    """Write to standard output; to nothing, once nobody reads it any more, as behind `| head`: the work goes on."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Console(logging.StreamHandler):
    """Hydra's handler of the terminal: each record is written above the line that is redrawn."""

    last = 0.0  # when it wrote, on the monotonic clock

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, whose lock the handler holds."""
        below = _drawn
        draw("", self.stream)
        super().emit(record)
        draw(below, self.stream)
        self.last = time.monotonic()

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing where nobody reads any more: the run goes on, and its log."""
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)

    def draw(self, text: str) -> None:
        """Redraw the line, from any thread."""
        self.acquire()
        try:
            draw(text, self.stream)
        finally:
            self.release()


class Captured(io.TextIOBase):
    """What is printed: each line goes to the log file, and of progress bars the last state is kept."""

    def __init__(self, name: str, instead_of: TextIO, live: bool) -> None:
        self._logger, self._instead_of, self._live = logging.getLogger(name), instead_of, live
        self._line, self._moved = "", 0.0
        self._bar: tuple[str, ...] | None = None
        self._busy = threading.local()

    def write(self, text: str) -> int:
        """Log the lines that are complete now."""
        if getattr(self._busy, "now", False):  # logging itself has something to say
            return self._instead_of.write(text)
        self._busy.now = True
        try:
            if found := _bars(text):
                self._bar, self._moved = found[-1], time.monotonic()
            *lines, rest = (self._line + text).split("\n")
            self._line = rest.rpartition("\r")[2]
            for line in lines:
                line = _CONTROL.sub("", line.rstrip("\r").rpartition("\r")[2]).rstrip()
                if line and not _bars(line):
                    self._logger.info("%s", line)
        finally:
            self._busy.now = False
        return len(text)

    def bar(self) -> str:
        """Return the bar that has moved for a while as words: `Embedding document 64/500, 0:10 to go`."""
        if self._bar is None or time.monotonic() - self._moved > _BAR_IS_OVER_S:
            return ""
        what, count, since, left = self._bar
        done, _, total = count.partition("/")
        if _seconds(since) < _BAR_LASTS_S or done == total:
            return ""
        to_go = f", {clock(_seconds(left))} to go" if left not in ("?", "00:00") else ""
        return f"{what.strip()} {count}".strip() + to_go

    def isatty(self) -> bool:
        """Return whether bars are worth drawing."""
        return self._live

    def fileno(self) -> int:
        """Return the real one, for processes that are started."""
        return self._instead_of.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Return what characters a bar may have."""
        return self._instead_of.encoding

    def __getattr__(self, name: str) -> Any:
        return getattr(self._instead_of, name)


@contextmanager
def owned() -> Iterator[Captured]:
    """Send what Python prints and warns of to the log while the body runs; yielded is where bars are drawn."""
    live = is_live(sys.stdout)
    out, error = Captured("stdout", sys.stdout, live), Captured("stderr", sys.stderr, live)
    logging.captureWarnings(True)
    try:
        with redirect_stdout(out), redirect_stderr(error):
            yield error
    finally:
        logging.captureWarnings(False)


def _bars(text: str) -> list[tuple[str, ...]]:
    """Return the bars in a text; it is searched around their marks alone, since in long lines that takes minutes."""
    lines = [line for line in re.split(r"[\r\n]", text) if "%|" in line]
    near = [line[max(0, line.rindex("%|") - 500) : line.rindex("%|") + 1000] for line in lines]
    return [bar for each in near for bar in _BAR.findall(each)]


def clock(seconds: float) -> str:
    """Return a duration as a clock shows it: 1:05, 2:01:05."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _seconds(text: str) -> float:
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds
