"""Images per second of a reranker's training, its pairs preprocessed in the loss, in the collator, and in workers.

python -m benchmarks.reranker_workers [--side 640] [--steps 24] [--workers 2]

The model is tiny and the images are large, so that preprocessing weighs as much as it does beside a GPU. The second
figure is the processor time that an image costs the training process itself, the model's included: what a GPU would
wait for, and what the workers take away. Where the cores are taken by the model, as here, the first can gain little.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, Value
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import losses
from transformers import PrinterCallback, TrainerCallback

from experiments.data import pairs
from experiments.data.drawn import drawings
from experiments.data.resized_pages import resized_rows
from experiments.models.rerankers import make_reranker
from experiments.models.tiny.qwen3_5 import build_qwen3_5
from experiments.training.reranker_trainer import BinaryCrossEntropyLoss, RerankerTrainingArguments

BATCH_SIZE = 32
WARM_UP = 4  # steps before the clock: workers start, memory is claimed


class Clock(TrainerCallback):
    """Notes when each step ends, on the wall and on the processor of this process."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Note both."""
        self.ends.append((time.perf_counter(), time.process_time()))


def large_drawings(number: int, side: int, cache_dir: str) -> Dataset:
    """Return labelled pairs whose images are `side` pixels wide and high, as JPEG."""
    rows = drawings.captioned(number, 2, 0, cache_dir)["train"]
    images = []
    for image in rows["image"]:
        buffer = io.BytesIO()
        image.resize((side, side)).save(buffer, format="JPEG")
        images.append({"bytes": buffer.getvalue(), "path": None})
    features = Features(image=Image(), text=Value("string"))
    return pairs.label(Dataset.from_dict({"image": images, "text": rows["text"][:]}, features=features), 1, "0")


def measure(
    model: CrossEncoder, rows: Dataset, loss: Any, workers: int, steps: int, folder: str
) -> tuple[float, float]:
    """Train for some steps; return images per second and processor milliseconds per image after the first few."""
    args = RerankerTrainingArguments(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=BATCH_SIZE,
        dataloader_num_workers=workers,
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    clock = Clock()
    trainer = args.trainer_class(
        model=model, args=args, train_dataset={"image_to_text": rows}, loss=loss, callbacks=[clock]
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    images = BATCH_SIZE * (steps - WARM_UP)
    wall, processor = (end - start for start, end in zip(clock.ends[WARM_UP - 1], clock.ends[-1], strict=True))
    return images / wall, 1000 * processor / images


def main() -> None:
    """Print one line for each way."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reranker_workers")
    parser.add_argument("--side", type=int, default=640, help="width and height of the images in pixels")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        build_qwen3_5(Path(folder) / "model")
        model = make_reranker(
            str(Path(folder) / "model"),
            transformer_task="feature-extraction",
            max_pixels=16384,
            prompts={"image_to_text": "Do they match?"},
        )
        rows = large_drawings(BATCH_SIZE * options.steps // 2, options.side, folder)
        resized = resized_rows(rows, model.processor.image_processor)
        library, ours = losses.BinaryCrossEntropyLoss(model), BinaryCrossEntropyLoss(model)
        title = f"{options.side} x {options.side} pixels, batches of {BATCH_SIZE} pairs"
        print(f"{title:42s} {'images/s':>9s} {'ms of the process':>18s}")
        for name, data, loss, workers in (
            ("in the loss (the library)", rows, library, 0),
            (f"in the loss, {options.workers} workers (decode only)", rows, library, options.workers),
            ("in the collator, no workers", resized, ours, 0),
            (f"in the collator, {options.workers} workers", resized, ours, options.workers),
        ):
            rate, cost = measure(model, data, loss, workers, options.steps, f"{folder}/out")
            print(f"{name:42s} {rate:9.1f} {cost:18.1f}", flush=True)


if __name__ == "__main__":
    main()
