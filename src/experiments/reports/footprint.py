"""What a training needs, for people: memory by part, disk, work, and whether it fits a GPU."""

from __future__ import annotations

from typing import Any

from experiments.config.architecture import Architecture
from experiments.reports.tables import time_text
from experiments.runs.footprint import GIB, UTILISATION, Footprint, Gpu, fitting, footprint, smaller_budget


def needs(config: dict[str, Any], model: Architecture, gpus: list[Gpu]) -> str:
    """Return, for people, what a training needs by part, its work, and whether it fits each GPU."""
    found = footprint(config, model)
    loss = f"mini-batches of {found.mini_batch_tokens:,} tokens, {found.page_tokens:,} a page at most"
    held = found.weights + found.gradients + found.optimizer + found.casts + found.activations
    parts = [("weights", found.weights, f"{model.num_parameters() / 1e9:.2f} billion")]
    parts += [("gradients", found.gradients, ""), ("optimizer", found.optimizer, found.optimizer_name)]
    parts += [("bfloat16 copies", found.casts, "autocast keeps them for the backward pass")] if found.casts else []
    parts += [("activations", found.activations, loss), ("CUDA, gaps", found.gpu - held, "")]
    lines = [f"Memory: {found.gpu / GIB:.1f} GiB of a GPU, at the most; counted, not measured"]
    lines += [f"          {name:16}{size / GIB:5.1f}  {note}".rstrip() for name, size, note in parts]
    if found.workers:
        lines.append(f"        {found.workers / GIB:.1f} GiB of /dev/shm for the batches that workers have ready")
    lines.append(f"Disk:   {found.disk / GIB:.0f} GiB; a checkpoint has {found.checkpoint / GIB:.1f} GiB")
    lines.append(f"Work:   {found.row_tokens:,} tokens and {found.training_flops / 1e12:.1f} TFLOP a training row, "
                 f"{found.evaluation_flops / 1e12:.1f} TFLOP an evaluated page")  # fmt: skip
    for gpu in gpus:
        overrides = fitting(config, model, gpu.memory)
        verdict = "too small" if overrides is None else f"with {' '.join(overrides)}" if overrides else "fits"
        if overrides != [] and (budget := smaller_budget(config, model, gpu)):
            verdict = f"fits, in mini-batches of {budget:,} tokens, which are chosen there"
        lines.append(f"GPU:    {gpu.name}: {verdict}" + (_time(config, found, gpu) if overrides is not None else ""))
    return "\n".join(lines)


def _time(config: dict[str, Any], found: Footprint, gpu: Gpu) -> str:
    """Return how long the training's steps take at a common share of the card's peak, and at the peak."""
    rows, trainer = config["data"].get("num_train_rows"), config["trainer"]
    if gpu.tflops is None or not rows or not isinstance(trainer.get("num_train_epochs"), int | float):
        return ""
    if (trainer.get("max_steps") or -1) > 0:
        batch = trainer.get("per_device_train_batch_size", 8) * (trainer.get("gradient_accumulation_steps") or 1)
        rows = trainer["max_steps"] * batch
    else:
        rows *= trainer["num_train_epochs"]
    seconds = rows * found.training_flops / (gpu.tflops * 1e12)
    usual = f"about {time_text(seconds / UTILISATION)} at {UTILISATION:.0%}"
    return f"\n          trains {usual} of its {gpu.tflops:,.0f} TFLOP/s, {time_text(seconds)} at the least"
