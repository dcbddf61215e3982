"""The memory that `experiments.plan` counts against the measured peak, at the layer sizes of Qwen3-VL-2B.

    MALLOC_ARENA_MAX=1 python -m benchmarks.memory

Few layers and few words, on the CPU, under bfloat16 autocast as on a GPU: a step forward and backward with AdamW,
whose peak of resident memory (VmHWM) is read. What CUDA takes, and the gaps of its allocator, are no part of it.
"""

import ctypes
import gc
import os
import sys
from pathlib import Path

import torch
from transformers import Qwen3VLConfig, Qwen3VLModel

from experiments.config.architecture import DTYPE_BYTES, Architecture
from experiments.runs.footprint import GIB

TEXT = {"hidden_size": 2048, "intermediate_size": 6144, "head_dim": 128}
TEXT |= {"num_attention_heads": 16, "num_key_value_heads": 8}
ROPE = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True}
VISION = {"hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2048, "patch_size": 16}
SIDE = 36  # patches: a page of 576 x 576 pixels
IMAGE, START, END = 990, 992, 993
CASES = [(2, 2, 1), (2, 2, 4), (4, 4, 2)]  # text layers, vision layers, pages


def measure(dtype: str, num_text: int, num_vision: int, num_pages: int) -> tuple[float, float]:
    """Return the peak of a step in bytes, and what is counted for it."""
    gc.collect()
    before = _resident()
    config = Qwen3VLConfig(
        text_config=TEXT | {"num_hidden_layers": num_text, "vocab_size": 1000, "rope_parameters": ROPE},
        vision_config=VISION | {"depth": num_vision, "deepstack_visual_indexes": list(range(min(2, num_vision)))},
        image_token_id=IMAGE, video_token_id=991, vision_start_token_id=START, vision_end_token_id=END,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen3VLModel(config).to(getattr(torch, dtype)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    architecture = Architecture(config.text_config.to_dict(), config.vision_config.to_dict())
    ids = torch.tensor([[5, 6, START, *[IMAGE] * (SIDE // 2) ** 2, END, 7, 8]] * num_pages)
    features = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == IMAGE).int(),
        "pixel_values": torch.randn(num_pages * SIDE**2, architecture.patch_values).to(model.dtype),
        "image_grid_thw": torch.tensor([[1, SIDE, SIDE]] * num_pages),
    }
    for _ in range(2):  # the optimizer's states exist after the first step
        Path("/proc/self/clear_refs").write_text("5")
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = model(**features).last_hidden_state[:, -1].float()
        embeddings.pow(2).mean().backward()
        optimizer.step()
    linears = sum(a * b for _, a, b in (*architecture.text_linears(), *architecture.vision_linears()))
    counted = 4 * DTYPE_BYTES[dtype] * architecture.num_parameters() + (2 * linears if dtype == "float32" else 0)
    in_pages = int((ids == IMAGE).sum())
    counted += in_pages * architecture.kept_per_token(dtype)
    counted += (ids.numel() - in_pages) * architecture.kept_per_token(dtype, page=False)
    return _peak() - before, counted


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _peak() -> int:
    return next(int(line.split()[1]) * 1024 for line in Path("/proc/self/status").open() if line.startswith("VmHWM"))


def main() -> None:
    """Print measured and counted memory of each case."""
    ctypes.CDLL("libc.so.6").mallopt(-3, 65536)  # M_MMAP_THRESHOLD: what is freed goes back at once, as measured
    print(f"{'weights':9} text layers  vision layers  pages  measured GiB  counted GiB  counted/measured")
    for dtype in ("float32", "bfloat16"):
        for case in CASES:
            measured, counted = measure(dtype, *case)
            numbers = "{:11} {:14} {:6}".format(*case)
            print(f"{dtype:9} {numbers} {measured / GIB:13.2f} {counted / GIB:12.2f} {counted / measured:17.3f}")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
