"""Train a model: an embedder, evaluated at every Matryoshka dimension, or a reranker, in every direction.

python -m experiments.train                                     the embedded default: offline, no GPU
python -m experiments.train model=qwen3vl_2b data=vdr_en        the article's recipe
python -m experiments.train experiment=reranker_any_to_any      the article's reranker
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from experiments import stages
from experiments.cli import launch

logger = logging.getLogger(__name__)


def train(config: dict[str, Any], output_dir: Path, *, name: str, choices: dict[str, str]) -> dict[str, Any]:
    """Run one training: data, model, loss, evaluator, baseline, training, final evaluation, save, report.

    It takes what `cli.launch` gives; an unfinished run of the same config in the directory is taken up; of a finished
    one, whose model is still to be pushed, that alone is done. Returned is what `metrics.json` holds.
    """
    from experiments.config import fits_memory, hub
    from experiments.models import push
    from experiments.runs.footprint import loss_that_fits
    from experiments.runs.metrics_file import load_metrics
    from experiments.runs.record import keep_record
    from experiments.runs.run import read_record

    fits_memory.check(config["loss"])
    begun = read_record(output_dir) or {}
    if begun.get("status") == "finished":  # but its model could not be pushed
        push.check(config["trainer"], name)
        push.push(output_dir, config["trainer"], name)
        return load_metrics(output_dir) or {}
    stages.warn(config, choices)
    commits = stages.check_sources(config, begun_with=begun.get("commits", {}))
    push.check(config["trainer"], name)
    import torch

    fits_memory.check(config["loss"], torch.cuda.is_available())
    loss_node = loss_that_fits(config, stages.gpu_at_hand())
    with keep_record(output_dir, config, name=name) as record:
        record.update(commits=commits, choices=choices)
        data = stages.make_data(config)
        stages.require_same_data(begun, data, config["data"])
        args = stages.make_arguments(config, output_dir, data)
        with stages.tracked(config, output_dir, record, data, name=name, choices=choices) as tracker:
            model, matryoshka = stages.make_model(config)
            stages.require_modalities(model, data)
            stages.keep_card_to_data(model, config, choices, output_dir)
            loss = matryoshka.wrap(model, stages.build(loss_node)(model))
            evaluator = stages.make_evaluator(config, data, matryoshka)
            record.update(commits=commits | hub.adapter_bases(config, commits))

            metrics = stages.describe(config, choices, data, model, evaluator)
            metrics |= stages.evaluate_base(evaluator, model, output_dir)
            tracker.log_before_training(metrics.get("base", {}))

            trainer = stages.make_trainer(args, data, model, loss, evaluator, tracker)
            unchanged = stages.fit(trainer, merge=config["model"].get("merge_adapter"))
            evaluation = stages.run_evaluator(evaluator, model, output_dir, "final")
            if evaluation is None:  # what follows is for the main process
                return metrics
            metrics |= {"final": evaluation.to_json(), "attributes": evaluation.attributes}
            metrics["chance"] = evaluation.chance
            metrics["model"]["truncate_dim"] = dim = stages.choose_truncate_dim(matryoshka, metrics["final"])
            metrics |= stages.describe_training(trainer, matryoshka, unchanged)
            metrics |= stages.judge(metrics, output_dir)
            metrics["energy"] = tracker.write_energy_to_card(model)
            stages.save(model, output_dir / "final", dim, metrics)
            logger.info("Model:     %s%s", output_dir / "final", dims_given(dim, metrics["model"]["embedding_dim"]))
            stages.finish(metrics, evaluation, data, output_dir, tracker)
    if config["trainer"]["push_to_hub"]:  # of a run that is finished, whatever the Hub says
        push.push(output_dir, config["trainer"], name)
    return metrics


def dims_given(truncate_dim: int | None, full_dim: int | None) -> str:
    """Return what is said of a model that is saved with fewer dimensions than it has."""
    if truncate_dim is None or truncate_dim == full_dim:
        return ""
    return f" (gives {truncate_dim} of {full_dim} dimensions; for all: matryoshka.truncate_dim=null)"


if __name__ == "__main__":
    launch(train)
