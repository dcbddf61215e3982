"""A warm start for recipes whose few trained weights can't learn from random ones: the tiny model, trained briefly."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from sentence_transformers.sentence_transformer.trainer import SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments

from experiments.data.drawn import drawings, report_pages
from experiments.data.resized_pages import image_processor, resized_rows
from experiments.models.embedders import qwen3vl_tiny
from experiments.models.tiny import qwen3_5, qwen3vl
from experiments.models.tiny.cache import built
from experiments.training.trainer import Trainer, TrainingArguments

logger = logging.getLogger(__name__)


def warm_qwen3vl(
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
    sources = b"".join(Path(str(file)).read_bytes() for file in (__file__, qwen3vl.__file__))
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


def warm_backbone(
    *, seed: int = 42, num_steps: int = 150, batch_size: int = 32, cache_dir: str = "outputs/.cache"
) -> str:
    """Return the folder of a tiny Qwen3.5 that was trained as an embedder of drawings, once, and then is cached.

    Args:
        seed: Of the initial weights and the batches.
        num_steps: Training steps, of half a second each on two cores.
        batch_size: Pairs of a caption and its drawing in a step.
        cache_dir: Folder of the cache.
    """
    sources = (Path(__file__), Path(qwen3_5.__file__), Path(drawings.__file__))
    version = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:8]
    name = f"qwen3_5-tiny-warm-{version}-{num_steps}x{batch_size}-seed{seed}"

    def build(folder: Path) -> None:
        logger.info("Warm start: %d steps as an embedder of drawings, kept in %s", num_steps, Path(cache_dir) / name)
        qwen3_5.build_qwen3_5(folder, seed=seed)
        with torch.random.fork_rng(devices=[]):  # what follows is the same, whether this was cached or not
            _fit_embedder(folder, seed, num_steps, batch_size, cache_dir)

    with built(build, name, cache_dir, alone="the tiny reranker's backbone") as folder:
        return str(folder)


def warm_embedder(
    *, seed: int = 42, num_steps: int = 150, batch_size: int = 32, cache_dir: str = "outputs/.cache"
) -> SentenceTransformer:
    """Load the embedder that `warm_backbone` trains: the retriever whose candidates the reranker puts in order."""
    folder = warm_backbone(seed=seed, num_steps=num_steps, batch_size=batch_size, cache_dir=cache_dir)
    return SentenceTransformer(folder, local_files_only=True)


def _fit_embedder(folder: Path, seed: int, num_steps: int, batch_size: int, cache_dir: str) -> None:
    """Train on drawings of the training combinations alone, and write the embedder."""
    rows = drawings.captioned(num_steps * batch_size // 4, 40, 0, cache_dir)["train"].select_columns(["text", "image"])
    transformer = Transformer(str(folder), transformer_task="feature-extraction")
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="lasttoken")
    model = SentenceTransformer(modules=[transformer, pooling, Normalize()])
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder.with_name("trainer")),
        max_steps=num_steps,
        per_device_train_batch_size=batch_size,
        learning_rate=3e-3,
        warmup_steps=0.1,
        save_strategy="no",
        report_to="none",
        logging_steps=25,
        seed=seed,
        use_cpu=True,
        dataloader_pin_memory=False,
    )
    loss = MultipleNegativesRankingLoss(model)
    SentenceTransformerTrainer(model=model, args=arguments, train_dataset=rows, loss=loss).train()
    model.save_pretrained(str(folder))
