"""A job whose second process never comes to meet the first, which notes what it is told then; started by torchrun."""

import os
import time
from pathlib import Path

from experiments import stages
from experiments.cli import launch


def task(config, output_dir, *, name, choices):
    import torch

    stages.make_arguments(config, output_dir, data=None)
    said = Path("said")
    if os.environ["RANK"] == "0":
        try:
            torch.distributed.barrier()
        except RuntimeError as error:
            said.write_text(str(error))
    deadline = time.monotonic() + 60
    while not said.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os._exit(0)  # no farewell from a group that is broken


if __name__ == "__main__":
    launch(task)
