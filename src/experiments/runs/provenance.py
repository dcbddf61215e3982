"""Where a result comes from besides config and data: versions, git revision, hardware; the GPUs that jobs may have."""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = (
    *("experiments", "sentence-transformers", "transformers", "torch", "datasets"),
    *("hydra-core", "codecarbon", "trackio"),
)


def provenance() -> dict[str, Any]:
    """Return what the result may depend on besides config and data: versions, git revision, hardware."""
    found = {"python": platform.python_version(), **versions(*_PACKAGES)}
    return {"versions": found, "git": _git(), "platform": platform.platform(), "hardware": hardware()}


@functools.cache
def versions(*packages: str) -> dict[str, str | None]:
    """Return the installed version of each package; None of one that isn't there."""
    return {name: next((found.version for found in metadata.distributions(name=name)), None) for name in packages}


def version_text() -> str:
    """Return what `--version` prints: this package and the libraries that decide most, a line each."""
    found = versions("experiments", "sentence-transformers", "transformers", "torch")
    return "".join(f"{name} {version or '(not installed)'}\n" for name, version in found.items())


def _git() -> dict[str, Any] | None:
    def run(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        return {"revision": run("rev-parse", "HEAD"), "dirty": bool(run("status", "--porcelain", "--", ":/"))}
    except (OSError, subprocess.SubprocessError):
        return None  # no git, or not a checkout


@functools.cache
def code_hash(*rooms: str, package: Path = Path(__file__).parents[1]) -> str:
    """Return the SHA-256 of what code says to the computer: comments, docstrings and layout don't count.

    The rooms are folders or files below the package.
    """
    content = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package)
        if any(place.is_relative_to(room) for room in rooms):
            tree = ast.parse(path.read_text(encoding="utf-8"))  # has neither comments nor layout
            for node in ast.walk(tree):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    if ast.get_docstring(node, clean=False) is not None:
                        node.body.pop(0)
            content.update(f"{place}\0{ast.dump(tree)}\0".encode())
    return content.hexdigest()


def hardware() -> dict[str, Any]:
    """Return CPU, cores, memory and, once torch is imported, GPUs and threads."""
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total
    found: dict[str, Any] = {"cpu": cpu(), "cores": cores, "memory_gib": round(memory / 2**30, 1), "gpu": None}
    torch = sys.modules.get("torch")  # never the reason why it is imported
    if torch is not None:
        found["threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            found["gpu"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return found


def cpu() -> str:
    """Return the processor's name."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def visible_gpus() -> list[str]:
    """Return the GPUs that jobs may have, or their MIG instances, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60).stdout
    instances: dict[str, list[str]] = {}  # of each GPU, which has a line above theirs
    for uuid in re.findall(r"\(UUID: ([^)]+)\)", listed):
        if uuid.startswith("MIG-"):
            [*instances.values()][-1].append(uuid)
        else:
            instances[uuid] = []
    return [name for gpu, parts in instances.items() for name in parts or [gpu]]


def gpus_in_use() -> list[str]:
    """Return the UUIDs of the GPUs or MIG instances that this run computes on, one for each of its processes here."""
    import torch

    if not torch.cuda.is_available():
        return []
    number = min(int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count())
    if instances := [name for name in visible_gpus() if name.startswith("MIG-")]:
        return instances[:number]
    return [f"GPU-{torch.cuda.get_device_properties(index).uuid}" for index in range(number)]
