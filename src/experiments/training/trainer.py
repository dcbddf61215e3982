"""The trainer: what Sentence Transformers' own lacks for runs that are killed, diverge, or hold many pixels."""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from sentence_transformers.base.model import BaseModel
from sentence_transformers.base.modules import Module, Router
from sentence_transformers.base.trainer import BaseTrainer
from sentence_transformers.base.training_args import BaseTrainingArguments
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss
from sentence_transformers.sentence_transformer.trainer import SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments
from sentence_transformers.util import fullname
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, ProgressCallback
from transformers.trainer_utils import get_last_checkpoint, sort_checkpoints

from experiments.models.loading import has_bfloat16
from experiments.training import mini_batch
from experiments.training.losses import CachedMultipleNegativesRankingLoss
from experiments.training.progress import Progress
from experiments.training.sampler import NoDuplicatesByBytes
from experiments.training.shared_memory import fit_workers
from experiments.training.stochastic_adamw import StochasticAdamW

logger = logging.getLogger(__name__)

BatchSampler = Literal[
    "no_duplicates_by_bytes", "no_duplicates", "no_duplicates_hashed", "batch_sampler", "group_by_label"
]


class TrainingDivergedError(RuntimeError):
    """The loss or a weight is no longer a finite number."""


@dataclass
class RunArguments(BaseTrainingArguments):
    """Arguments of our own beside the library's, for every kind of model.

    Args:
        resume: What the entry point resumes: None, `auto` or a run's directory.
        card_examples: Show training and evaluation rows, with their pages, on the model card (`auto`, which the entry
            point resolves by the data, is no).
        eval_loss: Compute the loss on the evaluation rows too, at each evaluation.
        bf16: `auto` is where the GPU has it.
        optim: `auto` is `StochasticAdamW` for bfloat16 weights, whose small updates AdamW would round away, and the
            library's AdamW for all others.
        batch_sampler: How rows become batches, by a name of the library or as `NoDuplicatesByBytes` does.
        dataloader_persistent_workers: `auto` keeps the workers, if there are any, from one evaluation to the next.
    """

    trainer_class: ClassVar[Any]  # trains with these arguments

    resume: str | None = None
    card_examples: Literal["auto"] | bool = "auto"
    eval_loss: bool = True
    bf16: Literal["auto"] | bool = "auto"  # type: ignore[assignment]
    optim: str = "auto"
    batch_sampler: BatchSampler = "no_duplicates_by_bytes"
    report_to: str = "none"  # tracking has a callback of its own
    dataloader_persistent_workers: Literal["auto"] | bool = "auto"  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """Resolve what is ours before the library checks the rest."""
        if self.bf16 == "auto":
            self.bf16 = has_bfloat16()
        if self.batch_sampler == "no_duplicates_by_bytes":
            self.batch_sampler = NoDuplicatesByBytes  # type: ignore[assignment]
        self.dataloader_pin_memory = self.dataloader_pin_memory and torch.cuda.is_available()
        if self.dataloader_persistent_workers == "auto":
            self.dataloader_persistent_workers = self.dataloader_num_workers > 0
        self.optim_is_open = self.optim == "auto"
        if self.optim_is_open:
            self.optim = self.default_optim
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        super().__post_init__()
        if self.n_gpu > 1:  # the library would copy the model to each and scatter the batch, which breaks pages apart
            logger.info("One of %d GPUs is used; for all: torchrun --nproc_per_node %d -m …", self.n_gpu, self.n_gpu)
            self._n_gpu = 1


@dataclass
class TrainingArguments(RunArguments, SentenceTransformerTrainingArguments):
    """The library's arguments to train an embedder, and our own."""


class RunTrainer(BaseTrainer):
    """The library's trainer with atomic checkpoints and a stop at a loss that isn't finite."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if kwargs["args"].card_examples is not True:
            take_rows_off_card(self.model.model_card_data)
        fit_workers(self.args, self.data_collator, self.train_dataset, self.eval_dataset)
        self.mini_batch: dict[str, Any] | None = None  # what `loss.mini_batch_size=auto` found
        for bars in (ProgressCallback, PrinterCallback):
            self.remove_callback(bars)
        self.add_callback(Progress(self.evaluator))

    def get_optimizer_cls_and_kwargs(  # type: ignore[override]  # static in transformers, a method in the library
        self, args: Any, model: Any = None
    ) -> tuple[Any, Any]:
        """Return the library's choice, or ours where `optim=auto` meets bfloat16 weights."""
        chosen, options = super().get_optimizer_cls_and_kwargs(args, model)
        if args.optim_is_open and any(map(is_rounded, self.model.parameters())):
            logger.info("bfloat16 weights: AdamW rounds them at random, so that small updates count (trainer.optim)")
            return StochasticAdamW, {key: value for key, value in options.items() if key not in ("fused", "foreach")}
        return chosen, options

    @property
    def cached_loss(self) -> CachedMultipleNegativesRankingLoss | None:
        """Our own loss, if it is that which trains, inside the Matryoshka loss or alone."""
        loss = self.loss.loss if isinstance(self.loss, MatryoshkaLoss) else self.loss
        return loss if isinstance(loss, CachedMultipleNegativesRankingLoss) else None

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Return the library's schedule; say so if all of it is warm-up, whose first step has the learning rate 0."""
        if num_training_steps <= self.args.get_warmup_steps(num_training_steps):
            logger.warning(
                "All %d steps are warm-up, so little or nothing is learnt: train more rows or epochs, "
                "or type trainer.warmup_steps=0",
                num_training_steps,
            )
        return super().create_scheduler(num_training_steps, optimizer)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, Tensor | int | None]:
        """Choose the mini-batch, if that is still open, before the first batch takes memory."""
        if self.cached_loss is not None and self.cached_loss.mini_batch_is_open:
            self.current_gradient_accumulation_steps = num_batches  # set only once the batches are there
            self.choose_mini_batch(self.model_wrapped, self.cached_loss)
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Do a step; at the first loss that is infinite or not a number a TrainingDivergedError stops the training."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not math.isfinite(loss.item()):
            raise TrainingDivergedError(
                f"the loss is {loss.item()} at step {self.state.global_step + 1} of {self.state.max_steps}; "
                f"try a smaller trainer.learning_rate (it is {self.args.learning_rate})"
            )
        return loss

    def choose_mini_batch(self, model: nn.Module, loss: CachedMultipleNegativesRankingLoss) -> None:
        """Set the loss's mini-batch size, before the first step, where all but the batch is as in the steps to come.

        A run that goes on from a checkpoint keeps the size that it began with.
        """
        logged = [entry["mini_batch_size"] for entry in self.state.log_history if "mini_batch_size" in entry]
        if logged:
            self.mini_batch = {"mini_batch_size": logged[0], "reason": "as before the run was resumed"}
        else:
            batches, step = self._costliest_batches(), super().training_step
            longest, num_rows_in_all = max(len(rows) for rows, _ in batches), sum(number for _, number in batches)

            def try_out(size: int, num_rows: int) -> None:
                loss.mini_batch_size = size
                for rows, _ in batches:  # of each data set: which costs the most isn't known
                    batch = self.data_collator(rows[:num_rows])
                    # The data loader holds the next batch too, unless there is none.
                    ahead = num_rows == longest < num_rows_in_all and self.data_collator(rows)
                    step(model, batch)
                    del ahead

            self.mini_batch = mini_batch.choose(model, try_out, longest, loss.memory_limit)
            self.log({"mini_batch_size": self.mini_batch["mini_batch_size"]})
        loss.mini_batch_size, loss.mini_batch_is_open = self.mini_batch["mini_batch_size"], False

    def _costliest_batches(self) -> list[tuple[list[dict[str, Any]], int]]:
        """Return of each data set a batch of the rows that cost the most, and how many rows it has in all."""
        rows: Any = self.train_dataset
        size = self.args.per_device_train_batch_size
        if not isinstance(rows, dict):
            return [(mini_batch.costliest_rows(rows, self.model, size), len(rows))]
        found = {name: mini_batch.costliest_rows(each, self.model, size) for name, each in rows.items()}
        return [([row | {"dataset_name": name} for row in found[name]], len(each)) for name, each in rows.items()]

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:  # type: ignore[override]  # as the library's
        """Load a checkpoint in the widest dtype of the weights: in that of its base an adapter would be rounded."""
        model: Any = self.model
        classes = {fullname(module): type(module) for module in model.modules() if isinstance(module, Module)}
        dtype = reduce(torch.promote_types, (parameter.dtype for parameter in model.parameters()))
        options: Any = {"trust_remote_code": model.trust_remote_code, "model_kwargs": {"dtype": dtype}}
        saved = type(model)._load_with_module_classes(checkpoint_path, classes, device="cpu", **options)
        model.load_state_dict(saved.state_dict())

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write the checkpoint under another name and rename it, so that it is complete or absent."""
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.model.parameters()):
            raise TrainingDivergedError(f"a weight is no longer finite after step {self.state.global_step}")
        folder, limit = Path(self.args.output_dir or "."), self.args.save_total_limit
        staging, name = folder / ".partial", f"checkpoint-{self.state.global_step}"
        if self.is_world_process_zero():
            shutil.rmtree(staging, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.args.output_dir, self.args.save_total_limit = str(staging), None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.output_dir, self.args.save_total_limit = str(folder), limit
        self.accelerator.wait_for_everyone()
        if self.state.best_global_step == self.state.global_step:
            self.state.best_model_checkpoint = str(folder / name)
        if self.is_world_process_zero():
            self.state.save_to_json(str(staging / name / "trainer_state.json"))
            if (folder / name).exists():  # a resumed run writes the same one again
                shutil.rmtree(folder / name)
            os.replace(staging / name, folder / name)
            staging.rmdir()
            delete_oldest(folder, limit, self.state.best_model_checkpoint)
        self.accelerator.wait_for_everyone()


class Trainer(RunTrainer, SentenceTransformerTrainer):
    """The trainer of an embedder: moves pixels to the device as late as the loss allows, tells a Router its tasks.

    Of several data sets each has the model's prompt of its name, if there is one, before its queries.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        model, arguments, rows = kwargs["model"], kwargs["args"], kwargs["train_dataset"]
        columns = {name: each.column_names for name, each in rows.items()} if isinstance(rows, dict) else {}
        if isinstance(model[0], Router) and not arguments.router_mapping:
            by_name = {name: tasks(each) for name, each in columns.items()}
            arguments.router_mapping = by_name or tasks(rows.column_names)
        if arguments.prompts is None and (prompts := prompts_of(model, columns)):
            arguments.prompts = {name: {columns[name][0]: prompt} for name, prompt in prompts.items()}
        super().__init__(*args, **kwargs)

    def get_train_dataloader(self) -> DataLoader:
        """Return the library's, whose batches stay in main memory until `_prepare_inputs` moves them."""
        dataloader = super().get_train_dataloader()
        dataloader.device = None
        return dataloader

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Return the library's, whose batches stay in main memory, too."""
        dataloader = super().get_eval_dataloader(eval_dataset)
        dataloader.device = None
        return dataloader

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Move the batch to the device, but its pixels only where the loss doesn't move them by mini-batch."""
        if self.cached_loss is None:
            return super()._prepare_inputs(inputs)
        pixels = {key: value for key, value in inputs.items() if "pixel_values" in key}
        rest = {key: value for key, value in inputs.items() if key not in pixels}
        prepared = (super()._prepare_inputs(rest) if rest else {}) | pixels
        return {key: prepared[key] for key in inputs}  # the order of the columns is the loss's order


TrainingArguments.trainer_class = Trainer


def take_rows_off_card(card: Any) -> None:
    """Take off a model card what the library has put there of the data's content; sizes and statistics stay."""
    card.widget, card.usage_examples = [], None
    for described in (*card.train_datasets, *card.eval_datasets):
        for key in ("examples", "examples_table", "_example_columns"):
            described.pop(key, None)


def is_rounded(parameter: nn.Parameter) -> bool:
    """Return whether a weight is trained that bfloat16 rounds."""
    return parameter.requires_grad and parameter.dtype == torch.bfloat16


def tasks(columns: list[str]) -> dict[str, str]:
    """Return the task that each column has in the evaluation too: the first asks, the others are documents."""
    return dict.fromkeys(columns, "document") | {columns[0]: "query"}


def prompts_of(model: BaseModel, names: Iterable[str]) -> dict[str, str]:
    """Return those of the model's prompts that are named as a data set."""
    return {name: prompt for name in names if (prompt := model.prompts.get(name))}


def delete_oldest(folder: Path, limit: int | None, best: str | None) -> None:
    """Delete the oldest checkpoints above the limit, not the best; renamed first, so that none is half there."""
    checkpoints = sort_checkpoints(str(folder))
    excess = len(checkpoints) - (limit or len(checkpoints))
    for checkpoint in [path for path in checkpoints[:-1] if path != best][: max(0, excess)]:
        os.replace(checkpoint, folder / ".deleted")
        shutil.rmtree(folder / ".deleted")


def last_checkpoint(folder: Path) -> str | None:
    """Return the newest checkpoint in `folder`, or None, and clear away what a kill left half written or deleted."""
    for leftover in (".partial", ".deleted"):
        shutil.rmtree(folder / leftover, ignore_errors=True)
    return get_last_checkpoint(str(folder)) if folder.is_dir() else None
