"""How a model is built offline: from a seed, once for all who ask."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers as hf
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from experiments.config.errors import ConfigError
from experiments.config.keys import digest
from experiments.runs.files import write_once
from experiments.runs.process import is_main_process
from experiments.runs.provenance import code_hash


def write_checkpoint(
    folder: Path, kind: type[hf.PreTrainedModel], config: hf.PreTrainedConfig, processor: hf.ProcessorMixin, seed: int
) -> None:
    """Write a model with weights drawn from the seed, and its processor, as they are published."""
    with torch.random.fork_rng(devices=[]):  # torch's random state is put back
        torch.manual_seed(seed)
        model = kind(config)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


@contextmanager
def built(
    write: Callable[[Path], None], name: str, seed: int, cache_dir: str | None = None, *, trained: str = ""
) -> Iterator[Path]:
    """Give a folder that holds what `write` writes; under torchrun the main process writes it for all.

    Args:
        write: Called with a folder that isn't there yet, unless an earlier call has left it.
        name: Of the folder, with all that `write` depends on but the seed and the code, which are added.
        seed: Of the weights.
        cache_dir: Where the folder is kept; None: a temporary one, removed at the end.
        trained: What is trained, if `write` trains, which takes a process that torchrun didn't start.

    Raises:
        ConfigError: If it would have to be trained under torchrun.
    """
    code = code_hash("models/tiny", *(("data/drawn", "training/warm_starts.py") if trained else ()))
    name = f"{name}-{digest([code, hf.__version__])[:8]}-seed{seed}"  # no cache outlives what made it
    many = int(os.environ.get("WORLD_SIZE", 1)) > 1
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path(cache_dir).expanduser().resolve() if cache_dir else None
        folder = (kept or Path(broadcast_object_list([scratch])[0] if many else scratch)) / name
        if trained and many and not folder.exists():
            raise ConfigError(f"{trained} is trained first, in one process: run once without torchrun")
        if is_main_process() and not folder.exists():
            write_once(folder, write)
        if many:
            PartialState().wait_for_everyone()
        yield folder
        if many:
            PartialState().wait_for_everyone()
