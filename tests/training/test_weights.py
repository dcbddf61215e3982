"""A training whose weights are as before is found out, and why."""

import pytest
import torch
from datasets import Dataset
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from experiments.stages import fit
from experiments.training.trainer import Trainer, TrainingArguments
from experiments.training.weights import checksum, checksums


def fitted(model, folder, **options):
    rows = Dataset.from_dict({"anchor": ["red", "green", "blue", "gray"], "positive": ["a", "b", "c", "d"]})
    arguments = {"per_device_train_batch_size": 2, "num_train_epochs": 1, "save_strategy": "no", "disable_tqdm": True}
    args = TrainingArguments(output_dir=str(folder), logging_steps=1, **arguments | {"learning_rate": 1e-4} | options)
    return fit(Trainer(model=model, args=args, train_dataset=rows, loss=MultipleNegativesRankingLoss(model)))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, None),
        ({"learning_rate": 0.0}, "the learning rate is 0"),
        ({"max_steps": 1, "warmup_steps": 0.1}, "all steps are warm-up, the first of which has the learning rate 0"),
    ],
)
def test_a_training_that_leaves_the_weights_as_they_were_is_told_with_the_reason(tiny_model, tmp_path, options, why):
    before = {name: weight.detach().clone() for name, weight in tiny_model.named_parameters()}
    assert fitted(tiny_model, tmp_path, **options) == why
    same = [torch.equal(before[name], weight) for name, weight in tiny_model.named_parameters()]
    assert all(same) == (why is not None)


def test_weights_that_are_not_trained_are_not_read(tiny_model):
    every = checksums(tiny_model)
    tiny_model.requires_grad_(False)
    name, weight = next(iter(tiny_model.named_parameters()))
    weight.requires_grad_(True)
    assert checksums(tiny_model) == {name: every[name]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_least_change_of_one_weight_changes_the_sum(dtype):
    weight = torch.randn(300, 7, dtype=dtype)
    changed = weight.clone()
    changed[17, 3] = torch.nextafter(changed[17, 3], torch.tensor(9.0, dtype=dtype))
    assert checksum(changed) != checksum(weight) == checksum(weight.T)
