"""What tells a process from all others, when and how it was started, and what it makes of SIGTERM."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any


def is_main_process() -> bool:
    """Return whether this process writes: the only one, or the first of those that torchrun started."""
    return int(os.environ.get("RANK", 0)) == 0


def process_start(pid: int) -> float | None:
    """Return when a process began, in seconds since boot, whatever the clock says; None if it is gone."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        return round(process.create_time() - psutil.boot_time(), 2)
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # or somebody else's by now
        return None


def this_process() -> dict[str, Any]:
    """Return what tells this process from all others: number, start, host."""
    return {"pid": os.getpid(), "process_start": process_start(os.getpid()), "host": socket.gethostname()}


def command_line() -> str:
    """Return the shell line that started this process."""
    return shlex.join(["python", *sys.orig_argv[1:]])


def now() -> str:
    """Return the time with its zone, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


@contextmanager
def repeated(call: Callable[[], object], every_s: float, name: str) -> Iterator[None]:
    """Call something every so many seconds, in a thread of that name, while the body runs."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(every_s):
            call()

    thread = threading.Thread(target=repeat, daemon=True, name=name)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def sigterm_raises(error: BaseException) -> Iterator[None]:
    """Make SIGTERM an exception, as Ctrl-C is one, so that files are closed and jobs ended; unless it is handled."""

    def leave(*_: object) -> None:
        raise error

    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
