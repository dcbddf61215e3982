"""Where a model that is built offline is kept, so that it is built once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from experiments.config.errors import ConfigError
from experiments.runs.files import write_once
from experiments.runs.process import is_main_process

if TYPE_CHECKING:
    pass


@contextmanager
def built(
    build: Callable[[Path], None], name: str, cache_dir: str | None = None, *, alone: str = ""
) -> Iterator[Path]:
    """Give a folder that holds what `build` writes; under torchrun the main process builds it for all.

    Args:
        build: Called with a folder that isn't there yet, unless an earlier call has left it.
        name: Of the folder; it tells all that `build` depends on.
        cache_dir: Where the folder is kept; None: a temporary one, removed at the end.
        alone: What is trained, if `build` trains, which takes a process that torchrun didn't start.

    Raises:
        ConfigError: If it would have to be trained under torchrun.
    """
    many = int(os.environ.get("WORLD_SIZE", 1)) > 1
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(cache_dir or (broadcast_object_list([scratch])[0] if many else scratch)) / name
        if alone and many and not folder.exists():
            raise ConfigError(f"{alone} is trained first, in one process: run once without torchrun")
        if is_main_process() and not folder.exists():
            write_once(folder, build)
        if many:
            PartialState().wait_for_everyone()
        yield folder
        if many:
            PartialState().wait_for_everyone()
