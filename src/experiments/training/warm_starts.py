"""Warm starts: tiny models trained briefly, where what a recipe trains can't learn from random weights.

They start where a pretrained checkpoint would, and see training rows alone, none that are evaluated.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

from experiments.data.drawn import drawings, report_pages
from experiments.data.resized_pages import image_processor, resized_rows
from experiments.models.embedders import qwen3vl_tiny
from experiments.models.tiny import qwen3_5
from experiments.models.tiny.cache import built
from experiments.runs import progress
from experiments.training.trainer import Trainer, TrainingArguments

Start = Callable[[Path], tuple[SentenceTransformer, Any]]  # a folder to build in -> model and training rows

logger = logging.getLogger(__name__)


def warm_qwen3vl(
    seed: int = 42, num_train_rows: int = 1024, num_train_epochs: float = 2.0, cache_dir: str = "outputs/.cache"
) -> str:
    """Train the tiny Qwen3-VL briefly on the default drawn report pages, unless the cache has it; return its folder.

    Args:
        seed: Of the weights and the batches.
        num_train_rows: Of the drawn pages.
        num_train_epochs: Passes over them.
        cache_dir: Where pages and model are kept.
    """

    def start(folder: Path) -> tuple[SentenceTransformer, Any]:
        data = report_pages.load(num_train_rows=num_train_rows, cache_dir=cache_dir)
        model = qwen3vl_tiny(seed=seed, dtype="float32")
        return model, resized_rows(data.train, image_processor(model))

    name = f"qwen3vl-warm-{num_train_rows}x{num_train_epochs}"
    logged = f"{num_train_epochs} epochs over {num_train_rows} drawn pages"
    arguments = {"num_train_epochs": num_train_epochs, "per_device_train_batch_size": 64, "learning_rate": 2e-3}
    return _warm(name, start, seed, cache_dir, what="model=qwen3vl_warm_tiny", logged=logged, **arguments)


def warm_backbone(
    *, seed: int = 42, num_steps: int = 150, batch_size: int = 32, cache_dir: str = "outputs/.cache"
) -> str:
    """Return the folder of a tiny Qwen3.5 that was trained as an embedder of drawings, once, and then is cached.

    From random weights a reranker doesn't learn to match images with texts.

    Args:
        seed: Of the initial weights and the batches.
        num_steps: Training steps, of half a second each on two cores.
        batch_size: Pairs of a caption and its drawing in a step.
        cache_dir: Folder of the cache.
    """

    def start(folder: Path) -> tuple[SentenceTransformer, Any]:
        qwen3_5.build_qwen3_5(folder, seed=seed)
        rows = drawings.captioned(num_steps * batch_size // 4, 40, 0, cache_dir)["train"]
        transformer = Transformer(str(folder), transformer_task="feature-extraction")
        pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="lasttoken")
        return SentenceTransformer(modules=[transformer, pooling, Normalize()]), rows.select_columns(["text", "image"])

    name, logged = f"qwen3_5-warm-{num_steps}x{batch_size}", f"{num_steps} steps as an embedder of drawings"
    arguments: dict[str, Any] = {"max_steps": num_steps, "per_device_train_batch_size": batch_size}
    arguments |= {"learning_rate": 3e-3, "batch_sampler": "batch_sampler", "logging_steps": 25}
    arguments |= {"use_cpu": True, "bf16": False}
    return _warm(name, start, seed, cache_dir, what="the tiny reranker's backbone", logged=logged, **arguments)


def warm_embedder(
    *, seed: int = 42, num_steps: int = 150, batch_size: int = 32, cache_dir: str = "outputs/.cache"
) -> SentenceTransformer:
    """Load the embedder that `warm_backbone` trains: the retriever whose candidates the reranker puts in order."""
    folder = warm_backbone(seed=seed, num_steps=num_steps, batch_size=batch_size, cache_dir=cache_dir)
    return SentenceTransformer(folder, local_files_only=True)


def _warm(name: str, start: Start, seed: int, cache_dir: str, *, what: str, logged: str, **arguments: Any) -> str:
    """Return the folder of a model that is trained unless the cache has it; nothing else depends on whether it had."""

    def write(folder: Path) -> None:
        logger.info("Warm start: %s, kept in %s", logged, cache_dir)
        progress.stage("warm start")
        with torch.random.fork_rng(), _accelerate_as_it_was():
            model, rows = start(folder)
            checkpoints = str(folder.with_name("checkpoints"))  # none are written
            args = TrainingArguments(checkpoints, warmup_steps=0.1, save_strategy="no", seed=seed, **arguments)
            Trainer(model=model, args=args, train_dataset=rows, loss=MultipleNegativesRankingLoss(model)).train()
        model.save_pretrained(str(folder), create_model_card=False)

    with built(write, name, seed, cache_dir, trained=what) as folder:
        return str(folder)


@contextmanager
def _accelerate_as_it_was() -> Iterator[None]:
    """Put back what a training leaves to the next one of its process: accelerate's state, with its precision."""
    states = [(kind, dict(kind._shared_state)) for kind in (PartialState, AcceleratorState, GradientState)]
    try:
        yield
    finally:
        for kind, before in states:
            kind._shared_state.clear()
            kind._shared_state.update(before)
