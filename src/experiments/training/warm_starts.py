"""A warm start for recipes whose few trained weights can't learn from random ones: the tiny model, trained briefly."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import torch
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from experiments import tiny
from experiments.data import report_pages
from experiments.models import built, qwen3vl_tiny
from experiments.resized import image_processor, resized_rows
from experiments.training import Trainer, TrainingArguments

logger = logging.getLogger(__name__)


def qwen3vl(
    seed: int = 42, num_train_rows: int = 1024, num_train_epochs: float = 2.0, cache_dir: str = "outputs/.cache"
) -> str:
    """Train the tiny Qwen3-VL briefly, unless the cache has it, and return its folder.

    It sees the training rows of the default drawn report pages alone, none that are evaluated.

    Args:
        seed: Of the weights and the batches.
        num_train_rows: Of the drawn pages.
        num_train_epochs: Passes over them.
        cache_dir: Where pages and model are kept.
    """
    sources = b"".join(Path(str(file)).read_bytes() for file in (__file__, tiny.__file__))
    version = hashlib.sha256(sources).hexdigest()[:8]
    name = f"qwen3vl-warm-{version}-{num_train_rows}x{num_train_epochs}-seed{seed}"
    cache = Path(cache_dir).expanduser()

    def build(folder: Path) -> None:
        logger.info(
            "Warm start: %s epochs over %s drawn pages, kept in %s", num_train_epochs, num_train_rows, cache / name
        )
        data = report_pages.load(num_train_rows=num_train_rows, cache_dir=cache_dir)
        with torch.random.fork_rng():  # what is drawn later doesn't depend on whether the cache had it
            model = qwen3vl_tiny(seed=seed, dtype="float32")
            args = TrainingArguments(
                output_dir=str(folder.with_name("checkpoints")),
                num_train_epochs=num_train_epochs,
                per_device_train_batch_size=64,
                learning_rate=2e-3,
                warmup_steps=0.1,
                save_strategy="no",
                seed=seed,
            )
            rows = resized_rows(data.train, image_processor(model))
            Trainer(model=model, args=args, train_dataset=rows, loss=MultipleNegativesRankingLoss(model)).train()
        model.save_pretrained(str(folder), create_model_card=False)

    with built(build, name, str(cache), alone="model=qwen3vl_warm_tiny") as folder:
        return str(folder.resolve())
