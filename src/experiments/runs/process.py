"""What tells a process from all others, and when and how it was started."""

from __future__ import annotations

import os
import shlex
import socket
import sys
from datetime import datetime
from pathlib import Path
from typing import Any


def is_main_process() -> bool:
    """Return whether this process writes: the only one, or the first of those that torchrun started."""
    return int(os.environ.get("RANK", 0)) == 0


def process_start(pid: int) -> int | None:
    """Return when a process began, in clock ticks since boot (0 where there is no /proc); None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # the name may hold spaces
        return None if fields[0] in "ZX" else int(fields[19])
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return 0


def this_process() -> dict[str, Any]:
    """Return what tells this process from all others: number, start, host."""
    return {"pid": os.getpid(), "process_start": process_start(os.getpid()), "host": socket.gethostname()}


def command_line() -> str:
    """Return the shell line that started this process."""
    return shlex.join(["python", *sys.orig_argv[1:]])


def now() -> str:
    """Return the time with its zone, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")
