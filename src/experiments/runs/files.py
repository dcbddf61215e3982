"""Files and folders that are complete or absent, and locks between processes."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.config.json_values import plain

logger = logging.getLogger(__name__)


def write_once(folder: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a folder elsewhere, and put it in its place; of two processes at once the first one's stays.

    `write` is called with a path of the same name where nothing is yet; what it writes beside that goes again.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        written = Path(scratch) / folder.name
        write(written)
        try:
            os.replace(written, folder)
        except OSError:
            if not folder.is_dir():
                raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path to write a file to: a reader, or a crash, sees the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all: NumPy scalars as numbers, paths as text, and NaN and infinity as null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        json.dump(plain(value), file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def load_json(path: Path) -> Any:
    """Return what a JSON file holds, or None where there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        logger.warning("%s can't be read: %s", path, error)
        return None


@contextmanager
def locked(path: Path, if_taken: str = "") -> Iterator[None]:
    """Let one process at a time into the block; the system gives the lock back when a process ends, however it ends.

    The lock's file is there for as long as somebody is in the block; `if_taken` is logged where another process is.
    """
    from filelock import FileLock, Timeout  # it takes a while to import

    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if if_taken:
            logger.info(if_taken)
        lock.acquire()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # those that wait notice that it has gone, and make it anew
        lock.release()
