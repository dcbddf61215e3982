import json
import os
import subprocess
import sys
from pathlib import Path

from sentence_transformers import SentenceTransformer

import nvidia_host

SMALL = """data.num_train_rows=64 data.num_eval_rows=12 trainer.num_train_epochs=1
trainer.per_device_train_batch_size=16
trainer.eval_strategy=no trainer.save_strategy=no evaluator.num_bootstrap=20 tracking=none""".split()

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def torchrun(folder, *arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*TORCHRUN, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_build_one_model_train_it_and_leave_one_run(tmp_path):
    torchrun(tmp_path, "-m", "experiments.train", *SMALL, "loss.gather_across_devices=true", "run_name=pair")
    (run,) = [path.parent for path in (tmp_path / "outputs").glob("*/*/run.json")]
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["training"]["steps"] == 2  # of 2 x 16 rows each
    assert metrics["final"]["dimensions"]["96"] != metrics["base"]["dimensions"]["96"]
    assert SentenceTransformer(str(run / "final")).get_embedding_dimension() == 96


def test_processes_wait_for_each_other_as_long_as_ddp_timeout_says(tmp_path):
    torchrun(tmp_path, str(Path(__file__).parent / "late_process.py"), "trainer.ddp_timeout=15")
    assert "15000ms" in (tmp_path / "said").read_text()


def test_processes_of_divided_gpus_are_refused_before_they_meet(tmp_path):
    path = f"{nvidia_host.install(tmp_path)}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "WORLD_SIZE": "2", "RANK": "0"}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    command = [sys.executable, "-m", "experiments.train"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "torchrun can't join MIG instances" in done.stderr
    assert not [*tmp_path.glob("outputs/*/*")]
