"""How far a run is, in one line: stage, step, scores, the time left.

Whoever works says what it does by `stage` and `steps`. On a terminal the line is redrawn each second; elsewhere,
and in the log, it is written with each stage, with what the trainer logs, and after half a minute without another.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from experiments.runs.files import save_json
from experiments.runs.process import is_main_process, repeated
from experiments.runs.terminal import Captured, Console, clock, is_live, owned

_REDRAWN_S, _WRITTEN_S = 1.0, 30.0
_TELLS_TIME_S = 5.0  # a stage that lasts longer shows how long it has, if it isn't known how long it will

logger = logging.getLogger(__name__)
_to_file = logging.getLogger("progress")  # a name whose records the terminal doesn't get


class Line:
    """The line of the run that goes on."""

    def __init__(self, bars: Captured | None = None) -> None:
        self.stage, self.what, self.bars = "", "", bars
        self.begun = time.monotonic()
        self.deadline: float | None = None  # of the run, on the monotonic clock
        self.seconds: dict[str, float] = {}  # that each stage before took
        self.consoles = [each for each in logging.getLogger().handlers if isinstance(each, Console)]
        self.is_live = any(is_live(each.stream) for each in self.consoles)

    @property
    def left(self) -> float | None:
        """Seconds until the run ends, None if that isn't known."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def text(self) -> str:
        """Return the line: `training  step 40/96  loss 1.23  nDCG@10 0.610 (step 32)  1:05 left`."""
        bar, since = self.bars.bar() if self.bars else "", time.monotonic() - self.begun
        if left := self.left:
            time_told = f"{clock(left)} left" if left >= 1 else ""
        else:
            time_told = f"{clock(since)} so far" if since > _TELLS_TIME_S and not bar else ""
        return "  ".join(filter(None, [self.stage, self.what, bar, time_told]))

    def enter(self, stage: str) -> None:
        """Begin a stage."""
        self.seconds[self.stage] = time.monotonic() - self.begun
        self.stage, self.what, self.begun = stage, "", time.monotonic()
        self.draw()
        self.write()

    def write(self, more: str = "") -> None:
        """Write the line to the log, and on what is no terminal."""
        if is_main_process():
            (_to_file if self.is_live else logger).info("%s", "  ".join(filter(None, [self.text(), more])))

    def tick(self) -> None:
        """Redraw the line, or write it if it is time to."""
        if _file is not None:
            with suppress(OSError):  # it is there for a moment only
                save_json(_file, {"line": self.text(), "steps": self.what, "left_s": self.left})
        self.draw()
        if not self.is_live and any(time.monotonic() - each.last > _WRITTEN_S for each in self.consoles):
            self.write()

    def draw(self) -> None:
        """Redraw the line on a terminal."""
        for console in self.consoles:
            console.draw(self.text())


_line = Line()  # without anything that it is shown on
_file: Path | None = None


def keep_in(file: Path) -> None:
    """Keep the line in a file, too, for the sweep whose job this is."""
    global _file
    _file = file


@contextmanager
def shown() -> Iterator[None]:
    """Show the run's line while the body runs, and keep off the terminal what others print."""
    global _line
    with owned() as bars:
        line = _line = Line(bars)
        if not is_main_process():
            _line.consoles = []
        stage("loading libraries")
        try:
            with repeated(line.tick, _REDRAWN_S, "progress"):
                yield
        finally:
            for console in _line.consoles:
                console.draw("")
            _line = Line()


def stage(name: str) -> None:
    """Say which stage of the run begins."""
    _line.enter(name)


def steps(what: str, left_s: float | None = None) -> None:
    """Say how far the stage is, and how many seconds the run will still take."""
    _line.what = what
    if left_s is not None:
        _line.deadline = time.monotonic() + left_s


def write(more: str = "") -> None:
    """Put the line, and more, into the log, and on what is no terminal."""
    _line.write(more)


def seconds_of(stage: str) -> float:
    """Return how long a stage took that is over; 0 if there was none."""
    return _line.seconds.get(stage, 0.0)
