"""Train an embedding model and evaluate it at every Matryoshka dimension.

    python -m experiments.train                                   the embedded default: offline, no GPU
    python -m experiments.train model=qwen3vl_2b data=vdr_en      the article's recipe
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.cli import launch

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from experiments.data import RetrievalData
    from experiments.evaluation import Evaluation, RetrievalEvaluator
    from experiments.losses import Matryoshka
    from experiments.tracking import Tracker
    from experiments.training import Trainer

logger = logging.getLogger(__name__)


def train(config: dict[str, Any], output_dir: Path, *, name: str) -> dict[str, Any]:
    """Run one training: data, model, loss, evaluator, baseline, training, final evaluation, save, report.

    Args:
        config: The resolved config, as plain containers.
        output_dir: The run's directory; one that holds an unfinished run of this config is taken up.
        name: Of the run, in reports and in Trackio.

    Returns:
        What `metrics.json` holds.
    """
    from hydra.utils import instantiate

    from experiments import report, runs

    resuming = (output_dir / "run.json").exists()
    with (
        runs.record(output_dir, config, name=name) as record,
        instantiate(config["tracking"])(config, output_dir, name=name, resume=resuming) as tracker,
    ):
        data: RetrievalData = instantiate(config["data"])
        check_columns(config, data)
        record.update(fingerprint=data.fingerprint)

        model = load_model(config)
        matryoshka: Matryoshka = instantiate(config["matryoshka"])(model.get_embedding_dimension())
        loss = matryoshka.wrap(model, instantiate(config["loss"])(model))
        evaluator = make_evaluator(config, data, matryoshka.dims)

        metrics = runs.load_json(output_dir / "metrics.json") or {}
        metrics |= describe_evaluation(data, model, config)
        if "base" not in metrics:  # a resumed run has it
            evaluation = evaluate(evaluator, model, output_dir, "base")
            metrics["base"] = evaluation.to_json()
            runs.save_json(output_dir / "metrics.json", metrics)
        tracker.log_final("base", metrics["base"])

        trainer = make_trainer(config, output_dir, data, model, loss, evaluator, tracker)
        fit(trainer, output_dir)

        final = evaluate(evaluator, model, output_dir, "final")
        metrics["final"] = final.to_json()
        metrics["attributes"] = final.attributes
        truncate_dim = choose_truncate_dim(matryoshka, metrics["final"])
        metrics["model"]["truncate_dim"] = truncate_dim or model.get_embedding_dimension()
        metrics["selected_on_this_set"] = selections(matryoshka, trainer)
        metrics["training"] = training_summary(trainer)
        metrics["energy"] = tracker.energy()
        save(model, output_dir / "final", truncate_dim, tracker)
        runs.save_json(output_dir / "metrics.json", metrics)

        tracker.log_final("final", metrics["final"])
        report.write_run_report(output_dir)
        tracker.log_results(metrics, final, data, output_dir / "figures")
        if config["trainer"]["push_to_hub"]:
            model.push_to_hub(config["trainer"]["hub_model_id"] or name)
    report.write_run_report(output_dir)
    show(metrics, output_dir, tracker)
    return metrics


if __name__ == "__main__":
    launch(train)
