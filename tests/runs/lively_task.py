"""A run that prints what libraries print, or with seed 9 is refused late; started with python -m lively_task."""

import logging
import sys
import time
import warnings

from tqdm.auto import tqdm

from experiments.cli import launch
from experiments.config.errors import ConfigError
from experiments.runs import progress
from experiments.runs.record import keep_record


def task(config, output_dir, *, name, choices):
    with keep_record(output_dir, config, name=name):
        progress.stage("training")
        if config["seed"] == 9:
            raise ConfigError("model.peft.target_modules: no such layer")
        warnings.warn("a library is deprecated", UserWarning, stacklevel=1)
        logging.getLogger("a_library").warning("a library's warning")
        sys.stderr.write("a library's \x1b[31mnotice\x1b[0m\n")
        logging.getLogger("experiments.models").warning("mind this")
        progress.steps("step 1/4  loss 2", 65)
        progress.write()
        for _ in tqdm(range(40), desc="Loading weights"):
            time.sleep(0.1)
        progress.stage("saving")


if __name__ == "__main__":
    launch(task)
