import os
import subprocess
import sys

import pytest
import torch
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image
from sentence_transformers.sentence_transformer.modules import Dropout

from experiments.data.resized_pages import resized_rows
from experiments.models.embedders import load_embedder
from experiments.training import mini_batch
from experiments.training.losses import CachedMultipleNegativesRankingLoss, matryoshka
from experiments.training.trainer import Trainer, TrainingArguments

MIB = 2**20


def rows(number):
    pages = [Image.new("RGB", (64 + 32 * (row % 5), 64 + 32 * (row % 3)), (9 * row, 0, 99)) for row in range(number)]
    texts = [f"page {row} " + "of many " * (row % 4) for row in range(number)]
    return Dataset.from_dict({"query": texts, "page": pages}).cast_column("page", ImageFeature())


def trained(model_folder, output_dir, max_steps=2, resume=None, **options):
    """Train for some steps of eight rows; dropout makes the random state matter."""
    torch.manual_seed(0)
    model = load_embedder(str(model_folder), min_pixels=784, max_pixels=16384)
    model.insert(2, Dropout(0.1))
    loss = matryoshka(96, default_dims=[96, 24]).wrap(model, CachedMultipleNegativesRankingLoss(model, **options))
    arguments = TrainingArguments(
        output_dir=str(output_dir), max_steps=max_steps, per_device_train_batch_size=8, save_steps=1, disable_tqdm=True
    )
    dataset = resized_rows(rows(24), model.processor.image_processor)
    trainer = Trainer(model=model, args=arguments, train_dataset=dataset, loss=loss)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_training_goes_on_as_if_the_size_had_been_typed_and_a_resumed_run_keeps_it(tiny_folder, tmp_path):
    auto = trained(tiny_folder, tmp_path / "auto", mini_batch_size="auto", memory_limit="64GiB")
    assert auto.mini_batch["mini_batch_size"] == auto.cached_loss.mini_batch_size == 8
    assert auto.mini_batch["reason"] == "the whole batch fits"
    typed = trained(tiny_folder, tmp_path / "typed", mini_batch_size=8)
    checkpoint = str(tmp_path / "auto" / "checkpoint-1")
    options = {"mini_batch_size": "auto", "memory_limit": "1MiB"}  # in which nothing fits
    resumed = trained(tiny_folder, tmp_path / "resumed", resume=checkpoint, **options)
    assert resumed.mini_batch["mini_batch_size"] == 8
    for other in (auto, resumed):
        for ours, theirs in zip(other.model.parameters(), typed.model.parameters(), strict=True):
            assert torch.equal(ours, theirs)


def allocate(mib_of_input, mib_of_row):
    """Return a step that needs memory for each input of the mini-batch and for each row of the batch."""

    def step(size, num_rows):
        return [torch.ones(MIB // 4 * mib) for mib in (mib_of_input * size, mib_of_row * num_rows) if mib]

    return step


def chosen(step, free_mib, batch_size=64):
    limit = mini_batch.in_use() + free_mib * MIB
    return mini_batch.choose(torch.nn.Linear(2, 2), step, batch_size, limit)["mini_batch_size"]


def test_the_largest_that_fits_is_found_with_a_margin():
    assert chosen(allocate(64, 0), 600) == 8  # 512 MiB and a tenth; 16 would need 1,024
    assert chosen(allocate(64, 0), 540) == 4  # 512 would fit, but not with the tenth
    assert chosen(allocate(4, 0), 400, batch_size=48) == 48
    assert chosen(allocate(64, 12), 880, batch_size=32) == 4  # 8 of the worst rows fit, with a batch of 32 they don't
    with pytest.raises(MemoryError, match="not even loss.mini_batch_size=1 fits .*max_pixels"):
        chosen(allocate(100, 0), 60)


def test_random_states_gradients_and_buffers_are_as_before():
    model = torch.nn.BatchNorm1d(3)

    def step(size, num_rows):
        model(torch.rand(4, 3)).sum().backward()

    before = torch.get_rng_state(), model.running_mean.clone()
    mini_batch.choose(model, step, 8, "64GiB")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.equal(model.running_mean, before[1])
    assert model.weight.grad is None


def test_the_worst_batch_holds_the_costliest_inputs_of_each_column(tiny_model):
    dataset = rows(24)
    worst = mini_batch.costliest_rows(resized_rows(dataset, tiny_model.processor.image_processor), tiny_model, 3)
    assert [row["query"].count("of many") for row in worst] == [3, 3, 3]
    assert [row["page"].size for row in worst] == [(128, 128), (192, 64), (160, 96)] or all(
        row["page"].size[0] * row["page"].size[1] >= 15_000 for row in worst
    )
    assert len(mini_batch.costliest_rows(dataset, tiny_model, 99)) == 24


EDGE = """
import sys
from datasets import Dataset
from experiments.config.values import parse_bytes
from experiments.runs import memory
from experiments.training.losses import CachedMultipleNegativesRankingLoss
from experiments.models.embedders import load_embedder
from experiments.training.trainer import Trainer, TrainingArguments

def step(model, size):
    text = "a page with many words in it, " * 40
    texts = [f"{row} {text}" for row in range(32)]
    trainer = Trainer(
        model=model,
        args=TrainingArguments(output_dir=sys.argv[2], max_steps=1, save_strategy="no", disable_tqdm=True,
                               per_device_train_batch_size=32),
        train_dataset=Dataset.from_dict({"query": texts, "document": texts[::-1]}),
        loss=CachedMultipleNegativesRankingLoss(model, mini_batch_size=size),
    )
    try:
        trainer.train()
    except Exception as error:
        if not memory.is_out_of_memory(error):
            raise
        return "OOM"
    return trainer.cached_loss.mini_batch_size

models = [load_embedder(sys.argv[1]) for _ in range(2)]
memory.limit_memory(parse_bytes(sys.argv[3]))
size = step(models[0], "auto")
print("found", size, step(models[1], 4 * size))
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="limits the process's memory, which is not the GPU's")
def test_auto_stays_inside_the_edge_of_a_limited_process(tiny_folder, tmp_path):
    command = [sys.executable, "-c", EDGE, str(tiny_folder), str(tmp_path), "100MiB"]
    output = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    found = [line.split()[1:] for line in output.stdout.splitlines() if line.startswith("found")]
    assert found, output.stderr[-2000:]
    ((auto, four_times),) = found
    assert 1 <= int(auto) <= 8, output.stderr[-2000:]
    assert four_times == "OOM"
