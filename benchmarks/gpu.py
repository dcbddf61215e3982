"""What a GPU makes of the article's recipe: planned and peak memory, rows a second, use of the card, waiting for data.

    python -m benchmarks.gpu [--rows 512] [--layers 28] [--out outputs/gpu]

The architecture at full size with random weights, which cost as much as trained ones, and drawn pages of 600 x 600
pixels: nothing is downloaded. Each line is a real training, `experiments.train`, in a process of its own. Without a
GPU it checks itself with `--rows 4 --layers 1`: memory is then the process's, and there is no peak to use.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NAME = "Qwen/Qwen3-VL-Embedding-2B"
BFLOAT16 = ["model.dtype=bfloat16"]
CASES = {
    "24 GB": [*BFLOAT16, "loss.mini_batch_num_tokens=512"],
    "24 GB, LoRA": [*BFLOAT16, "+model/peft=lora", "trainer.learning_rate=2e-4"],
    "48 GB": [*BFLOAT16, "loss.mini_batch_num_tokens=2048"],
    "80 GB": ["model.dtype=float32", "loss.mini_batch_num_tokens=2048"],
    "48 GB, flash": [*BFLOAT16, "loss.mini_batch_num_tokens=2048", "model.attn_implementation=flash_attention_2"],
}
HEADER = (
    f"{'recipe':14}{'planned GiB':>12}{'peak GiB':>10}{'rows/s':>8}{'MFU':>7}{'waiting':>9}{'pages/s evaluated':>19}"
)


def write_model(folder: Path, num_layers: int) -> None:
    """Write a model of the real sizes with random weights, in bfloat16."""
    import torch
    import transformers as hf
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    from experiments.config.architecture import read_architecture
    from experiments.models.tiny.qwen3vl import mrope, qwen_config, qwen_processor, train_tokenizer

    sizes, tokenizer = read_architecture({"name": NAME}), train_tokenizer()
    text = sizes.text | {"num_hidden_layers": num_layers, "rope_parameters": mrope(24, 20, 20, mrope_interleaved=True)}
    vision = sizes.vision | {"depth": min(num_layers, sizes.vision["depth"])}
    vision["deepstack_visual_indexes"] = [
        each for each in vision["deepstack_visual_indexes"] if each < vision["depth"]
    ]
    torch.set_default_dtype(torch.bfloat16)
    model = hf.Qwen3VLModel(qwen_config(hf.Qwen3VLConfig, tokenizer, text, **vision))
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder / "backbone")
    qwen_processor(tokenizer).save_pretrained(folder / "backbone")
    modules = [
        Transformer(str(folder / "backbone")),
        Pooling(text["hidden_size"], pooling_mode="lasttoken"),
        Normalize(),
    ]
    SentenceTransformer(modules=modules).save_pretrained(str(folder / "model"), create_model_card=False)


def measure(out: Path, overrides: list[str]) -> dict[str, Any]:
    """Train by the command's own function, timed, in this process; return what the table shows."""
    import torch
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from benchmarks import stages
    from experiments.config.architecture import read_architecture
    from experiments.config.options import CONF
    from experiments.evaluation.retrieval import RetrievalEvaluator
    from experiments.runs import footprint
    from experiments.runs.memory import peak
    from experiments.stages import gpu_at_hand
    from experiments.train import train
    from experiments.training.trainer import Trainer

    stages.instrument(Trainer)
    Trainer.get_batch_samples = stages.timed("waiting", Trainer.get_batch_samples)  # type: ignore[method-assign]
    RetrievalEvaluator.evaluate = stages.timed("evaluation", RetrievalEvaluator.evaluate)  # type: ignore[method-assign]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("config", overrides), resolve=True)
    metrics = train(config, out, name="benchmark", choices={"model": "qwen3vl_2b", "data": "report_pages"})
    planned = footprint.footprint(config, read_architecture(config["model"]))
    training = stages.SECONDS["steps"] + stages.SECONDS["sampler"] + stages.SECONDS["waiting"]
    gpu, rows = gpu_at_hand(), config["data"]["num_train_rows"]
    memory = peak()["peak_device_bytes" if torch.cuda.is_available() else "peak_memory_bytes"]
    return {
        "planned": planned.gpu / footprint.GIB,
        "peak": (memory + footprint.CONTEXT * torch.cuda.is_available()) / footprint.GIB,
        "rows": rows / training,
        "mfu": rows * planned.training_flops / training / (gpu.tflops * 1e12) if gpu and gpu.tflops else None,
        "waiting": stages.SECONDS["waiting"] / training,
        "pages": 2 * metrics["evaluation"]["num_documents"] / stages.SECONDS["evaluation"],
    }


def main() -> None:
    """Write the model, train by each recipe in a process of its own, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=512, help="training rows")
    parser.add_argument("--layers", type=int, default=28, help="of the language model; the vision tower has up to 24")
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu"))
    parser.add_argument("--case", help=argparse.SUPPRESS)  # in the process of its own
    options = parser.parse_args()
    if options.case:
        case = json.loads(options.case)
        (options.out / "measured.json").write_text(json.dumps(measure(options.out / "run", case)))
        return
    out = (options.out / time.strftime("%Y%m%d-%H%M%S")).resolve()
    write_model(out, options.layers)
    batch = min(64, options.rows // 2)
    common = ["model=qwen3vl_2b", f"model.name={out / 'model'}", "data=report_pages", "data.page_size=[600,600]"]
    common += [f"data.num_train_rows={options.rows}", f"data.num_eval_rows={min(20, options.rows)}", "tracking=none"]
    common += [f"cache_dir={out / 'cache'}", "evaluator.cache_dir=null", "evaluator.num_bootstrap=10"]
    common += [f"trainer.per_device_train_batch_size={batch}", "trainer.eval_loss=false", "trainer.eval_strategy=no"]
    common += ["trainer.save_strategy=no"]
    print(HEADER)
    for number, (name, overrides) in enumerate(CASES.items()):
        folder = out / str(number)
        folder.mkdir()
        command = [sys.executable, "-m", "benchmarks.gpu", "--case", json.dumps([*common, *overrides])]
        with (folder / "log").open("w") as log:
            done = subprocess.run([*command, "--out", str(folder)], stdout=log, stderr=log)
        if done.returncode:
            print(f"{name:14}failed: {(folder / 'log').read_text().strip().splitlines()[-1]}", flush=True)
            continue
        found = json.loads((folder / "measured.json").read_text())
        mfu = f"{found['mfu']:.1%}" if found["mfu"] else "–"
        print(f"{name:14}{found['planned']:12.1f}{found['peak']:10.1f}{found['rows']:8.2f}{mfu:>7}"
              f"{found['waiting']:9.1%}{found['pages']:19.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
