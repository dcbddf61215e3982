"""A finished run on disk, without the run."""

import numpy as np

from experiments.evaluation.query_values import Part, save_query_values
from experiments.runs.files import load_json, save_json
from experiments.runs.record import keep_record

EVALUATION = {"name": "report-pages-hard", "num_queries": 100, "num_documents": 500, "fingerprint": "abc"}
BASE = {96: 0.016, 48: 0.015, 24: 0.014, 12: 0.011}
FINETUNED = {96: 0.8743, 48: 0.8648, 24: 0.801, 12: 0.624}


def section(values):
    dimensions = {
        str(dim): {
            "cosine_accuracy@1": value / 2,
            "cosine_ndcg@10": value,
            "cosine_ndcg@10_ci95": [max(0.0, value - 0.03), value + 0.03],
            "int8": {"cosine_ndcg@10": value - 0.001},
            "binary": {"cosine_ndcg@10": value - 0.011},
        }
        for dim, value in values.items()
    }
    return {"dimensions": dimensions}


def finished_run(folder, *, name=None, base=BASE, final=FINETUNED, parameters=1_316_000, config=None, **metrics):
    content = {
        "primary_metric": "cosine_ndcg@10",
        "evaluation": EVALUATION,
        "model": {"name": "qwen3vl_tiny", "parameters": parameters, "embedding_dim": 96, "truncate_dim": 48},
        "energy": {
            **{"energy_kwh": 0.00212, "emissions_kg": 0.00081, "duration_s": 160.0},
            **{"country": "USA", "method": "estimated"},
        },
    }
    content |= {key: section(values) for key, values in (("base", base), ("final", final)) if values}
    config = {"seed": 42, "run_name": name} | (config or {})
    with keep_record(folder, config) as run:
        run.update(fingerprint="data-fingerprint", dashboard="trackio show --project experiments")
        run.update(command="python -m experiments.train seed=42")
        save_json(folder / "metrics.json", content | metrics)
    return folder


def keep_queries(folder, seed=0, num_queries=100):
    """Keep values of queries beside a run's metrics, which are their means: as hard for every run, and some luck."""
    hard = np.random.default_rng(0).normal(size=num_queries)
    generator = np.random.default_rng(seed)
    (folder / "rankings").mkdir()
    for tag in ("base", "final"):
        parts = {}
        for dim, found in load_json(folder / "metrics.json").get(tag, {"dimensions": {}})["dimensions"].items():
            scatter = 0.1 * hard + 0.05 * generator.normal(size=num_queries)
            values = found["cosine_ndcg@10"] + scatter - scatter.mean()
            parts[dim] = Part([f"q{number}" for number in range(num_queries)], {"cosine_ndcg@10": values})
        if parts:
            save_query_values(folder / "rankings" / f"{tag}.npz", {"dimensions": parts})
    return folder
