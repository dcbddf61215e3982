import json
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import TrainerControl, TrainerState

from experiments.models.embedders import load_embedder
from experiments.models.ready import PatchProjection
from experiments.training.progress import Progress
from experiments.training.trainer import TrainingArguments, delete_oldest, last_checkpoint


def checkpoints(folder, *steps):
    for step in steps:
        (folder / f"checkpoint-{step}").mkdir(parents=True)
        (folder / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps({"global_step": step}))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_oldest_checkpoints_go_but_never_the_best_or_the_newest(tmp_path):
    checkpoints(tmp_path, 5, 10, 15, 100)
    delete_oldest(tmp_path, 2, str(tmp_path / "checkpoint-5"))
    assert names(tmp_path) == ["checkpoint-100", "checkpoint-5"]
    delete_oldest(tmp_path, 1, None)
    assert names(tmp_path) == ["checkpoint-100"]
    delete_oldest(tmp_path, None, None)
    assert names(tmp_path) == ["checkpoint-100"]


def test_what_a_kill_left_half_written_or_deleted_is_cleared_away(tmp_path):
    assert last_checkpoint(tmp_path / "none") is None
    checkpoints(tmp_path, 9, 10)
    (tmp_path / ".partial" / "checkpoint-11").mkdir(parents=True)
    (tmp_path / ".deleted").mkdir()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-9"]


def test_no_workers_can_be_asked_for(tmp_path):
    args = TrainingArguments(output_dir=str(tmp_path), dataloader_num_workers=0)
    assert not args.dataloader_persistent_workers
    assert TrainingArguments(output_dir=str(tmp_path), dataloader_num_workers=2).dataloader_persistent_workers


def test_a_patch_projected_as_a_product_equals_the_convolution():
    torch.manual_seed(0)
    convolution = nn.Conv3d(3, 8, (2, 16, 16), stride=(2, 16, 16))
    patches = torch.randn(5, 3, 2, 16, 16)
    expected = convolution(patches)
    expected.square().sum().backward()
    gradient = convolution.weight.grad.clone()
    convolution.zero_grad()
    convolution.__class__ = PatchProjection
    actual = convolution(patches)
    actual.square().sum().backward()
    assert torch.allclose(actual, expected, atol=1e-5)
    assert torch.allclose(convolution.weight.grad, gradient, rtol=1e-4, atol=1e-3)


def test_a_model_saved_with_fewer_dimensions_is_trained_and_scored_with_all(tiny_model, tmp_path):
    tiny_model.truncate_dim = 24
    tiny_model.save_pretrained(str(tmp_path / "saved"))
    loaded = load_embedder(str(tmp_path / "saved"), embedding_dim=96)
    assert loaded.get_embedding_dimension() == 96


def test_the_time_left_is_that_of_the_steps_and_evaluations_to_come():
    told = Progress(SimpleNamespace(primary_metric="pages_cosine_ndcg@10", metric="cosine_ndcg@10"))
    args, state = SimpleNamespace(eval_strategy="steps"), TrainerState(max_steps=10, eval_steps=4)
    told.on_train_begin(args, state, None)
    for state.global_step in range(1, 8):
        time.sleep(0.05 * (1 + 9 * (state.global_step == 1)))  # the first step is slow, and doesn't count
        is_evaluated = state.global_step == 4
        told.on_step_end(args, state, TrainerControl(should_evaluate=is_evaluated))
        if is_evaluated:
            time.sleep(0.3)
            told.on_evaluate(args, state, None)
    assert told.left(args, state) == pytest.approx(3 * 0.05 + 3 * 0.3, rel=0.2)  # steps 8 and 10, and the final one
