"""The whole job, this framework against two plain Sentence Transformers scripts: time by stage, memory, quality.

    python -m benchmarks.whole_job [--rows 512] [--out outputs/benchmark]

Pages of a real page's size (850 x 1,100 pixels, of which the model sees 224 x 224), one epoch in batches of 64, 60
queries against 300 pages, ten evaluations in training, four dimensions. Leave the machine otherwise idle.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

PAGE_SIZE = [850, 1100]
MAX_PIXELS = 224 * 224
NUM_QUERIES = 60
CONTENDERS = ("plain_article", "plain_tuned", "framework")
STAGES = ("sampler", "steps", "in-training evaluation", "final evaluation")


def run(module: str, arguments: list[str], out: Path, threads: int) -> dict[str, float]:
    """Run a contender in a process of its own.

    Returns:
        Its seconds by stage, `total` (the process' wall time) and `memory` (peak proportional set size of the process
        tree, bytes).
    """
    out.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    start, peak = time.perf_counter(), 0
    with (out / "log").open("w") as log:
        command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
        process = psutil.Popen(command, stdout=log, stderr=log, env=environment)
        while process.poll() is None:
            peak = max(peak, tree_memory(process))
            time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"{module} failed; see {out / 'log'}")
    return json.loads((out / "seconds.json").read_text()) | {"total": time.perf_counter() - start, "memory": peak}


def tree_memory(process: psutil.Process) -> int:
    """Return the proportional set size of a process and its children in bytes."""
    size = 0
    try:
        for each in [process, *process.children(recursive=True)]:
            size += each.memory_full_info().pss
    except psutil.NoSuchProcess:
        pass
    return size


def quality(models: dict[str, Path], cache_dir: Path, num_rows: int) -> dict[str, Any]:
    """Compare the trained models by one evaluator, and the evaluator with the library's on the same weights."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    from experiments.data.drawn import report_pages
    from experiments.evaluation.retrieval import RetrievalEvaluator
    from experiments.runs.metrics_file import PRIMARY_METRIC

    data = report_pages.load(num_rows, NUM_QUERIES, cache_dir=str(cache_dir), page_size=PAGE_SIZE).direction
    ours = RetrievalEvaluator({"query_to_document": data}, truncate_dims=[48, 24, 12])
    evaluations = {}
    for name, folder in models.items():
        evaluations[name] = ours.evaluate(SentenceTransformer(str(folder), truncate_dim=96))
    corpus = dict(zip(data.corpus["corpus_id"], data.corpus["document"], strict=True))
    queries = dict(zip(data.queries["query_id"], data.queries["query"], strict=True))
    library = InformationRetrievalEvaluator(queries, corpus, data.relevant_docs, truncate_dim=96)
    theirs = library(SentenceTransformer(str(models["framework"])))
    same = evaluations["framework"].dimensions[96].metrics
    values = {name: evaluation.dimensions[96].values[PRIMARY_METRIC] for name, evaluation in evaluations.items()}
    return {
        "ndcg": {name: float(value.mean()) for name, value in values.items()},
        "same weights": max(abs(same[key] - theirs[key]) for key in same),
        "paired": {name: paired_interval(values["framework"] - values[name]) for name in CONTENDERS[:2]},
    }


def paired_interval(differences: np.ndarray) -> list[float]:
    """Return the 95% bootstrap interval of the mean of paired differences, shape (num_queries,)."""
    rng = np.random.default_rng(0)
    means = differences[rng.integers(0, len(differences), (10_000, len(differences)))].mean(axis=1)
    return [float(bound) for bound in np.quantile(means, [0.025, 0.975])]


def table(measured: dict[str, dict[str, float]]) -> str:
    """Return seconds by stage and the two ratios; peak memory in GiB."""
    lines = [f"{'':24}{'article':>10}{'tuned':>10}{'ours':>10}{'article/ours':>14}{'tuned/ours':>12}"]
    for stage in (*STAGES, "total", "memory"):
        article, tuned, ours = (
            measured[name].get(stage, 0.0) / (2**30 if stage == "memory" else 1) for name in CONTENDERS
        )
        label = f"{stage} ({'GiB' if stage == 'memory' else 's'})"
        lines.append(f"{label:24}{article:10.2f}{tuned:10.2f}{ours:10.2f}{article / ours:14.2f}{tuned / ours:12.2f}")
    return "\n".join(lines)


def main() -> None:
    """Prepare model and pages, run the contenders one after another, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=512, help="training rows")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="torch threads of each contender")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmark"))
    options = parser.parse_args()

    from experiments.data.drawn import report_pages
    from experiments.models.embedders import qwen3vl_tiny

    out = options.out / time.strftime("%Y%m%d-%H%M%S")
    cache_dir, model = out / "pages", out / "model"
    report_pages.load(options.rows, NUM_QUERIES, cache_dir=str(cache_dir), page_size=PAGE_SIZE)
    (pages,) = cache_dir.iterdir()
    qwen3vl_tiny(max_pixels=MAX_PIXELS).save_pretrained(str(model))
    size = ",".join(map(str, PAGE_SIZE))
    overrides = [
        f"data.num_train_rows={options.rows}",
        f"data.num_eval_rows={NUM_QUERIES}",
        f"data.page_size=[{size}]",
    ]
    measured = {}
    for name in CONTENDERS:
        source = [str(cache_dir), str(model), str(out / name), *overrides]
        plain = [str(pages), str(model), str(out / name)]
        measured[name] = run(name, source if name == "framework" else plain, out / name, options.threads)
        print(f"{name}: {measured[name]['total']:.0f} s", flush=True)
    found = quality({name: out / name / "final" for name in CONTENDERS}, cache_dir, options.rows)
    print(f"\n{options.rows} rows, {options.threads} threads\n{table(measured)}\n")
    print("nDCG@10 after training: " + ", ".join(f"{name} {value:.3f}" for name, value in found["ndcg"].items()))
    for name, (low, high) in found["paired"].items():
        print(f"ours - {name}, paired 95% interval: [{low:.3f}, {high:.3f}]")
    print(f"largest difference from the library's evaluator on the same weights: {found['same weights']:.1e}")
    (out / "result.json").write_text(json.dumps({"measured": measured, "quality": found}, indent=2))


if __name__ == "__main__":
    main()
