"""A job that leaves what its process group's timeout is after the training arguments are made; started by torchrun."""

import os
from pathlib import Path

from experiments import stages
from experiments.cli import launch


def task(config, output_dir, *, name, choices):
    import torch

    stages.make_arguments(config, output_dir, data=None)
    group = torch.distributed.distributed_c10d._get_default_group()
    seconds = group._get_backend(torch.device("cpu")).options._timeout.total_seconds()
    Path(f"{os.environ['RANK']}.timeout").write_text(str(seconds))


if __name__ == "__main__":
    launch(task)
