import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from experiments.data.drawn import report_pages
from experiments.data.resized_pages import resized_rows
from experiments.training import shared_memory
from experiments.training.losses import CachedMultipleNegativesRankingLoss
from experiments.training.trainer import Trainer, TrainingArguments

Usage = namedtuple("Usage", "total used free")
MIB = 2**20
TRAINING = """
import hashlib, sys, torch
sys.path.insert(0, {tests!r})
from training.test_shared_memory import make_trainer
from experiments.models.embedders import load_embedder
for workers in (0, 2):
    torch.manual_seed(0)
    model = load_embedder({model!r}, min_pixels=784, max_pixels=16384)
    trainer = make_trainer(model, {cache!r}, {folder!r}, dataloader_num_workers=workers)
    trainer.train()
    weights = b"".join(weight.detach().numpy().tobytes() for weight in model.parameters())
    print("RAN", workers, trainer.args.dataloader_num_workers, hashlib.sha256(weights).hexdigest())
"""


def make_trainer(model, cache, folder, **options):
    """Batches of 16 rows of two pages of 128² pixels: 12 MiB each."""
    data = report_pages.load(num_train_rows=96, num_eval_rows=8, cache_dir=str(cache))
    arguments = {"save_strategy": "no", "per_device_train_batch_size": 16, "learning_rate": 1e-3, "max_steps": 4}
    return Trainer(
        model=model,
        args=TrainingArguments(str(folder), **arguments | options),
        train_dataset=resized_rows(data.train, model.processor.image_processor),
        eval_dataset=resized_rows(data.eval, model.processor.image_processor),
        loss=CachedMultipleNegativesRankingLoss(model, mini_batch_size=16),
    )


def num_bytes(batch):
    return sum(value.nbytes for value in batch.values() if hasattr(value, "nbytes"))


@pytest.mark.parametrize(
    ("free", "options", "fitting"),
    [
        (90, {}, 2),  # 2 × 2 made ahead, a step's and the next: 6 of 12 MiB, a fifth more
        (57, {"dataloader_prefetch_factor": 2}, 0),
        (90, {"eval_strategy": "steps", "eval_steps": 2}, 1),  # of 8 rows: half as much again
    ],
)
def test_as_many_workers_as_the_shared_memory_has_room_for(
    tiny_model, cache, tmp_path, monkeypatch, caplog, free, options, fitting
):
    usage = Usage(64 * MIB, 2 * MIB, free * MIB)
    monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda path: usage)
    trainer = make_trainer(tiny_model, cache, tmp_path, **{"dataloader_num_workers": 2} | options)
    assert trainer.args.dataloader_num_workers == fitting
    said = [record.getMessage() for record in caplog.records if record.name == shared_memory.__name__]
    assert len(said) == (fitting < 2)
    if said:
        assert said[0].startswith(f"/dev/shm has {free} MiB free, and 2 workers need ")
        assert f"docker run --shm-size=1g …, without this warning trainer.dataloader_num_workers={fitting}" in said[0]
    batch = next(iter(trainer.get_train_dataloader()))
    assert num_bytes(batch) == pytest.approx(12 * MIB, rel=0.05)


def test_what_is_in_flight_grows_with_what_is_made_ahead_and_accumulated():
    assert shared_memory.needed(100, 0, 2, 1) == 0
    assert shared_memory.needed(100, 2, 2, 1) == 720
    assert shared_memory.needed(100, 2, 1, 4) == 840


def test_the_processes_of_a_machine_share_it(tiny_model, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda path: Usage(0, 0, 90 * MIB))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    trainer = make_trainer(tiny_model, cache, tmp_path, dataloader_num_workers=2)
    assert trainer.args.dataloader_num_workers == 0


def test_a_training_in_a_container_of_64_mb_ends_with_the_weights_of_one_without_workers(tiny_folder, cache, tmp_path):
    alone = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"', "sh"]
    try:
        subprocess.run([*alone, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount")
    names = {
        "tests": str(Path(__file__).parents[1]),
        "model": str(tiny_folder),
        "cache": str(cache),
        "folder": str(tmp_path),
    }
    command = [*alone, sys.executable, "-c", TRAINING.format(**names)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    without, with_workers = (line.split()[1:] for line in done.stdout.splitlines() if line.startswith("RAN"))
    assert (without[:2], with_workers[:2]) == (["0", "0"], ["2", "1"])
    assert without[2] == with_workers[2]
