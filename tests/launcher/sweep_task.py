"""A light job for the tests of the launcher: what it does depends on the seed; started with python -m sweep_task."""

import os
import signal
import sys
import time

from experiments.cli import launch
from experiments.runs.files import save_json
from experiments.runs.record import keep_record


def task(config, output_dir, *, name, choices):
    seed = config["seed"]
    with keep_record(output_dir, config, name=name) as record:
        record.update(choices=choices)
        with (output_dir / "starts").open("a") as file:
            file.write(f"{os.getpid()}\n")
        (output_dir / "gpu").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
        if seed == 1:
            raise RuntimeError("seed 1 raises")
        if seed == 2:
            sys.exit(3)
        if seed == 3:
            os._exit(5)
        if seed == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        if seed == 5:
            sys.exit(0)
        if seed == 6:
            os.kill(os.getpid(), signal.SIGSEGV)
        if seed >= 1000:
            time.sleep(seed / 1000)
        pages = bytearray(config["evaluator"]["batch_size"] * 2**20)  # a MiB for each input
        value = {"cosine_ndcg@10": 1 / (1 + seed), "cosine_ndcg@10_ci95": [0.0, 1.0]}
        metrics = {
            "primary_metric": "cosine_ndcg@10",
            "base": {"dimensions": {"96": value, "48": {"cosine_ndcg@10": len(pages) / 2**30}}},
        }
        save_json(output_dir / "metrics.json", metrics)


if __name__ == "__main__":
    launch(task)
