"""Memory of this process: a limit that is real, its peak, and whether an error means that it ran out."""

from __future__ import annotations

import re
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_OUT_OF_MEMORY = re.compile(
    r"DefaultCPUAllocator: (can't allocate|not enough) memory|out of memory|unable to mmap|Cannot allocate memory"
    r"|bad_alloc|can't start new thread|could not create a primitive|DataLoader worker .* killed by signal: Killed",
    re.IGNORECASE,
)


def limit_memory(budget: int) -> None:
    """Let this process allocate so many bytes more than it has; then its allocators fail.

    On a GPU it is the device's memory that is limited, and to so many bytes in all. To be called after the heavy
    imports: what they take is no business of the budget.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, budget / total))
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_status("VmData") + budget, hard))


def lift_memory_limit() -> None:
    """Take the limit away, so that what is done about running out doesn't run out as well."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an allocator's refusal is behind an error: the error itself, or what it came from."""
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        if (each := waiting.pop()) is None or each in seen:
            continue
        is_refusal = isinstance(each, MemoryError) or type(each).__name__ == "OutOfMemoryError"
        if is_refusal or names_out_of_memory(str(each)):
            return True
        seen.append(each)
        waiting += [each.__cause__, each.__context__]
    return False


def names_out_of_memory(text: str) -> bool:
    """Return whether a message is one of those that allocators leave."""
    return _OUT_OF_MEMORY.search(text) is not None


def peak() -> dict[str, Any]:
    """Return this process's peak of resident memory and, where torch uses a GPU, of the device's, in bytes."""
    torch: Any = sys.modules.get("torch")
    on_gpu = torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized()
    return {
        "peak_memory_bytes": peak_of("self"),
        "peak_device_bytes": torch.cuda.max_memory_reserved() if on_gpu else None,
    }


def peak_of(pid: int | str) -> int | None:
    """Return the peak of resident memory of a process that is still there, in bytes."""
    try:
        return _status("VmHWM", pid)
    except (OSError, ValueError):
        return None  # it is gone, or this system has no /proc


def oom_kills() -> int:
    """Return how many processes of this one's control group the kernel has killed for want of memory."""
    root, paths = Path("/sys/fs/cgroup"), []
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers == "":  # version 2
                folder, name = root, "memory.events"
            elif "memory" in controllers.split(","):
                folder, name = root / "memory", "memory.oom_control"
            else:
                continue
            paths += [folder / group.lstrip("/") / name, folder / name]  # in a container the root is often the group's
    for path in paths:
        with suppress(OSError):
            if count := re.search(r"^oom_kill (\d+)", path.read_text(), re.MULTILINE):
                return int(count[1])
    return 0


def _status(field: str, pid: int | str = "self") -> int:
    """Return a field of /proc/PID/status in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/{pid}/status has no {field}")
