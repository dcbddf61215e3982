"""What training a model takes, before anything is loaded: memory by part, disk, tokens, FLOPs, time on a named GPU.

Counted from the architecture, not measured, for pages as large as `model.max_pixels` lets them be: the most that is
needed. The bytes that a layer keeps for its backward pass were counted with `torch.autograd.graph.saved_tensors_hooks`
under bfloat16 autocast; `benchmarks.memory` compares the whole with the measured peak at true layer sizes.
"""

from __future__ import annotations

import copy
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from experiments.config.architecture import DTYPE_BYTES, Architecture, read_architecture
from experiments.config.errors import ConfigError
from experiments.config.hints import select
from experiments.config.options import CONF

logger = logging.getLogger(__name__)

GIB = 2**30
STOCHASTIC = "AdamW, rounded at random"  # what `trainer.optim=auto` is for bfloat16 weights
# Bytes of an optimizer's states for a trained weight of so many bytes; those in 8 and 4 bits have scales too.
STATES = {"adamw_torch_8bit": lambda _: 2 + 8 / 256, "adamw_torch_4bit": lambda _: 1 + 8 / 128, "sgd": lambda _: 0}
CONTEXT = 0.6 * GIB  # CUDA's own: kernels and libraries
FRAGMENTATION = 1.05  # what PyTorch's allocator reserves beyond what is allocated
NOMINAL = 0.9375  # a card of "24 GB" may have 22.5 GiB left: error correction takes its part
UTILISATION = 0.4  # of the peak, as training of such models commonly reaches
# Dense bfloat16 TFLOP/s and GB of memory, by the vendor's data sheets.
GPUS = {
    "RTX 3090": (71, 24), "RTX 4090": (165, 24), "RTX 5090": (210, 32), "A10": (125, 24), "L4": (121, 24),
    "L40S": (362, 48), "A6000": (155, 48), "A100-40GB": (312, 40), "A100-80GB": (312, 80), "H100": (989, 80),
    "H200": (989, 141), "B200": (2250, 180),
}  # fmt: skip
# Whose pages have 600 x 600 pixels at the least; those of other data may be far smaller than `model.max_pixels`.
LARGE_PAGES = ("tomaarsen/llamaindex-vdr-en-train-preprocessed", "llamaindex/vdr-multilingual-train")
BUDGETS = (2048, 1024, 512)  # tokens of a mini-batch
_SAVING = (
    "auto_find_batch_size",
    "activation_checkpointing",
    "gradient_checkpointing",
    "fsdp",
    "deepspeed",
    "use_cpu",
)
COMMON = ("RTX 4090", "L40S", "A100-80GB")  # of 24, 48 and 80 GB


@dataclass(frozen=True)
class Footprint:
    """Bytes by part, and the work of one row."""

    weights: float
    gradients: float
    optimizer: float
    optimizer_name: str
    casts: float  # autocast's bfloat16 copies of float32 weights, which the backward pass needs
    activations: float  # of one mini-batch
    workers: float  # /dev/shm: batches that the data loader's workers have ready
    checkpoint: float  # on disk, each
    disk: float  # checkpoints that are there at once, and the model
    page_tokens: int
    row_tokens: int
    mini_batch_tokens: int
    training_flops: float  # of a row
    evaluation_flops: float  # of a page

    @property
    def gpu(self) -> float:
        """What the GPU must have."""
        held = self.weights + self.gradients + self.optimizer + self.casts + self.activations
        return held * FRAGMENTATION + CONTEXT


def footprint(config: dict[str, Any], model: Architecture, largest: int | None = None) -> Footprint:
    """Return what a training takes on a GPU, at the most: every page as large as `model.max_pixels` lets it be.

    Args:
        config: The resolved config of a training of an embedder.
        model: From `read_architecture`.
        largest: Tokens of the largest page, where it is known to be below that.
    """
    node, trainer, data = config["model"], config["trainer"], config["data"]
    train_batch, eval_batch = (trainer.get(f"per_device_{part}_batch_size", 8) for part in ("train", "eval"))
    dtype = "bfloat16" if node.get("dtype") in (None, "auto") else node["dtype"]
    size = DTYPE_BYTES[dtype]
    count, peft = model.num_parameters(), node.get("peft")
    linears = [*model.text_linears(), *model.vision_linears()]
    adapted = [each for each in linears if peft and is_target(each[0], peft.get("target_modules"))]
    trained = sum(peft.get("r", 8) * (a + b) for _, a, b in adapted) if peft else count
    trained_size = 4 if peft else size  # PEFT keeps adapters in float32
    optimizer_name = optimizer_of(config, dtype)
    optimizer = trained * STATES.get(optimizer_name, lambda each: 2 * each)(trained_size)

    page = -(-(node.get("max_pixels") or 1280 * model.pixels_per_token) // model.pixels_per_token)
    page = min(page, largest or page)
    pages = 1 + (data.get("num_negatives") or 0)
    tokens = _mini_batch_tokens(config["loss"], page, pages * train_batch)
    kept = model.kept_per_token(dtype, adapter=bool(peft))
    patches = page * model.vision["spatial_merge_size"] ** 2
    in_flight = [train_batch * pages]
    if trainer.get("eval_loss"):
        negatives = data.get("num_eval_negatives")
        in_flight.append(eval_batch * (pages if negatives is None else 1 + negatives))
    batches = trainer.get("dataloader_num_workers", 0) * 2 + 1  # PREFETCH_FACTOR, and the one in use
    saved = trained * trained_size if peft else count * size
    once = page * model.flops_per_token(page)
    copies = 2 if int(os.environ.get("WORLD_SIZE", 1)) > 1 else 1  # torchrun's processes exchange gradients in buckets
    is_cached = "Cached" in str(config["loss"].get("_target_"))
    return Footprint(
        weights=count * size + (trained * trained_size if peft else 0),
        gradients=trained * trained_size * copies,
        optimizer=optimizer,
        optimizer_name=optimizer_name,
        casts=2 * sum(a * b for _, a, b in linears) if size == 4 else 0,
        activations=tokens * kept,
        workers=max(in_flight) * patches * model.patch_values * 4 * batches if batches > 1 else 0,
        checkpoint=saved + optimizer,
        disk=(saved + optimizer) * ((trainer.get("save_total_limit") or 10) + 1) + saved,
        page_tokens=page,
        row_tokens=page * pages,
        mini_batch_tokens=tokens,
        training_flops=pages * once * ((2 if peft else 3) + is_cached),  # a cached loss goes forward twice
        evaluation_flops=once,
    )


def optimizer_of(config: dict[str, Any], dtype: str) -> str:
    """Return the optimizer, by the library's name or in words; `auto` depends on the dtype of the weights."""
    chosen = select(config, "trainer.optim") or "auto"
    if chosen != "auto":
        return str(chosen)
    return STOCHASTIC if dtype == "bfloat16" and not select(config, "model.peft") else "adamw_torch_fused"


def is_target(name: str, targets: Any) -> bool:
    """Return whether PEFT would put an adapter there: a regular expression, or the ends of names."""
    if isinstance(targets, str):
        return targets == "all-linear" or re.fullmatch(targets, name) is not None
    return any(name == each or name.endswith(f".{each}") for each in targets or ("q_proj", "v_proj"))


def _mini_batch_tokens(loss: dict[str, Any], page: int, num_pages: int) -> int:
    """Return how many tokens go forward and backward at once: one page at the least, the whole batch at the most."""
    if "Cached" not in str(loss.get("_target_")):
        return page * num_pages
    wanted = loss.get("mini_batch_size")
    budget = loss.get("mini_batch_num_tokens") or loss.get("default_num_tokens") or 32 * page
    if wanted is not None:
        budget = page * (1 if wanted == "auto" else wanted)
    return max(page, min(budget, page * num_pages))


@dataclass(frozen=True)
class Gpu:
    """A GPU at hand or asked for."""

    name: str
    memory: float  # bytes
    tflops: float | None = None  # dense bfloat16; None: not known


def parse_gpu(text: str) -> Gpu:
    """Return what was asked for: a card's name ("RTX 4090"), or its memory ("24GB").

    Raises:
        ConfigError: If it is neither.
    """
    if (name := _card(text)) is not None:
        tflops, gigabytes = GPUS[name]
        return Gpu(f"{name} ({gigabytes} GB)", gigabytes * NOMINAL * GIB, tflops)
    if match := re.fullmatch(r"(\d+)(gb|gib|g)", re.sub(r"[\s_-]", "", text).lower()):
        return Gpu(f"{match[1]} GB", int(match[1]) * NOMINAL * GIB)
    raise ConfigError(f"--gpu={text}: type a size such as 24GB, or one of {', '.join(GPUS)}")


def fitting(
    config: dict[str, Any], model: Architecture, memory: float, largest: int | None = None
) -> list[str] | None:
    """Return the overrides with which a training fits: those that cost the least come first; None where none do.

    Args:
        config: The resolved config.
        model: Its architecture.
        memory: Of the GPU, in bytes.
        largest: See `footprint`.
    """
    for overrides in _smaller(config):
        smaller = copy.deepcopy(config)
        for override in overrides:
            _apply(smaller, override)
        if footprint(smaller, model, largest).gpu <= memory:
            return overrides
    return None


def _smaller(config: dict[str, Any]) -> Iterator[list[str]]:
    """Yield ever stronger overrides: smaller mini-batches (or batches), then no float32, then an adapter alone.

    Smaller mini-batches change no result.
    """
    mini_batches: list[list[str]] = [[]]
    if "Cached" in str(config["loss"].get("_target_")):
        budget = config["loss"].get("mini_batch_num_tokens") or config["loss"].get("default_num_tokens")
        sizes = BUDGETS if config["loss"].get("mini_batch_size") is None else []
        mini_batches += [[f"loss.mini_batch_num_tokens={size}"] for size in sizes if size < (budget or 0)]
        mini_batches += [["loss.mini_batch_size=1"]] if config["loss"].get("mini_batch_size") != 1 else []
    else:
        batch = config["trainer"].get("per_device_train_batch_size", 8)
        halves = [2**power for power in range(12, -1, -1) if 2**power < batch]
        mini_batches += [[f"trainer.per_device_train_batch_size={size}"] for size in halves]
    weights: list[list[str]] = [[]]
    if select(config, "model.dtype") == "float32":
        weights.append(["model.dtype=bfloat16"])
    if select(config, "trainer.optim") not in (None, "auto"):
        weights.append([*weights[-1], "trainer.optim=auto"])
    if not select(config, "model.peft"):
        weights.append([*weights[-1], "+model/peft=lora"])
    yield from ([*first, *second] for first in weights for second in mini_batches)


def _apply(config: dict[str, Any], override: str) -> None:
    key, _, value = override.partition("=")
    if key == "+model/peft":
        option = CONF / "model" / "peft" / f"{value}.yaml"
        config["model"]["peft"] = yaml.safe_load(option.read_text(encoding="utf-8"))
        return
    group, _, name = key.partition(".")
    config[group][name] = int(value) if value.isdigit() else value
    if name == "mini_batch_size":
        config[group]["mini_batch_num_tokens"] = None


def smaller_budget(config: dict[str, Any], model: Architecture, gpu: Gpu) -> int | None:
    """Return the token budget with which a training fits that chose none; None where that isn't what it takes.

    A page of more tokens than the smallest budget is a mini-batch by itself, and whether there is one isn't known.
    """
    chosen = [config["loss"].get(key) for key in ("mini_batch_size", "mini_batch_num_tokens")]
    overrides = fitting(config, model, gpu.memory, BUDGETS[-1])
    if chosen != [None, None] or overrides is None or len(overrides) != 1:
        return None
    key, _, value = overrides[0].partition("=")
    return int(value) if key == "loss.mini_batch_num_tokens" else None


def shortage(config: dict[str, Any], model: Architecture, gpu: Gpu) -> str | None:
    """Return what to say of a training that may need more than the GPU has, with overrides that fit; None: it fits.

    What is counted doesn't hold with frozen parts, activation checkpointing, weights in shards, adapters other than
    LoRA, other optimizers than AdamW and SGD, or on the CPU: these pass.
    """
    saving = [f"trainer.{key}" for key in _SAVING]
    optimizer = optimizer_of(config, "float32")
    is_counted = optimizer in STATES or optimizer.startswith("adamw_torch")
    is_counted &= str(select(config, "model.peft._target_") or "LoraConfig").endswith("LoraConfig")
    if not is_counted or any(select(config, key) for key in ("model.freeze", *saving)):
        return None
    needed = footprint(config, model).gpu
    if needed <= gpu.memory or smaller_budget(config, model, gpu):
        return None
    overrides = fitting(config, model, gpu.memory)
    advice = f"type {' '.join(overrides)}" if overrides else "take a larger GPU or a smaller model"
    return (
        f"this training needs about {needed / GIB:.1f} GiB of the GPU's memory, and {gpu.name} has "
        f"{gpu.memory / GIB:.1f} GiB: {advice}"
    )


def check(config: dict[str, Any], model: Architecture, gpu: Gpu) -> None:
    """Refuse a training that the GPU is surely too small for; warn where large pages alone make it so.

    Raises:
        ConfigError: With the overrides that fit.
    """
    if (said := shortage(config, model, gpu)) is None:
        return
    are_large = config["data"].get("path") in LARGE_PAGES and config["model"].get("max_pixels")
    surely = footprint(config, model, 600 * 600 // model.pixels_per_token if are_large else 1)
    if surely.gpu > gpu.memory:
        raise ConfigError(said)
    logger.warning("With pages as large as model.max_pixels lets them be, %s", said)


def loss_that_fits(config: dict[str, Any], gpu: Gpu | None) -> dict[str, Any]:
    """Return the loss's node, its default token budget no larger than the GPU has room for.

    Args:
        config: The resolved config of a training.
        gpu: The one at hand; None: there is none.

    Raises:
        ConfigError: If the GPU is too small in any case.
    """
    if gpu is None or (model := read_architecture(config["model"])) is None:
        return config["loss"]
    check(config, model, gpu)
    if not (budget := smaller_budget(config, model, gpu)):
        return config["loss"]
    logger.info("%s has %.1f GiB: mini-batches of %d tokens", gpu.name, gpu.memory / GIB, budget)
    return config["loss"] | {"default_num_tokens": budget}


def gpu_here() -> Gpu | None:
    """Return the first GPU that this process may use, as nvidia-smi tells without torch; None without one."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible in ("", "-1") or shutil.which("nvidia-smi") is None:
        return None
    chosen = [f"--id={visible.partition(',')[0]}"] if visible else []
    query = ["nvidia-smi", *chosen, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
        name, _, mebibytes = answer.splitlines()[0].rpartition(", ")
        memory = float(mebibytes) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None  # a MIG instance, or no driver: what it has is known once torch is there
    return Gpu(name, memory, peak_of(name))


def peak_of(name: str) -> float | None:
    """Return a card's dense bfloat16 TFLOP/s by its name; None where it isn't in the list."""
    card = _card(name)
    return GPUS[card][0] if card else None


def _card(text: str) -> str | None:
    """Return the card that a text names, as "NVIDIA A100-SXM4-80GB" or "4090" does: an L40 is no L4."""
    patterns = {card: card.replace("RTX ", "(?:RTX.*)?").replace("-", ".*") for card in GPUS}
    return next((card for card, each in patterns.items() if re.search(rf"(?i)\b{each}(?!\d)", text)), None)
