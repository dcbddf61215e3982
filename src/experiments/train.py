"""Train a model: an embedder, evaluated at every Matryoshka dimension, or a reranker, in every direction.

python -m experiments.train                                     the embedded default: offline, no GPU
python -m experiments.train model=qwen3vl_2b data=vdr_en        the article's recipe
python -m experiments.train experiment=reranker_any_to_any      the article's reranker
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.cli import launch
from experiments.stages import (
    build,
    choose_truncate_dim,
    describe,
    evaluate_base,
    finish,
    fit,
    make_arguments,
    make_evaluator,
    quiet_libraries,
    run_evaluator,
    save,
    selections,
)

if TYPE_CHECKING:
    from sentence_transformers.base.model import BaseModel

    from experiments.data.types import Data
    from experiments.runs.tracking import Tracker
    from experiments.training.losses import Matryoshka
    from experiments.training.trainer import RunTrainer

logger = logging.getLogger(__name__)


def train(config: dict[str, Any], output_dir: Path, *, name: str, choices: dict[str, str]) -> dict[str, Any]:
    """Run one training: data, model, loss, evaluator, baseline, training, final evaluation, save, report.

    Args:
        config: The resolved config, as plain containers.
        output_dir: The run's directory; an unfinished run of the same config in it is taken up.
        name: Of the run, in reports and in Trackio.
        choices: The option chosen of each config group.

    Returns:
        What `metrics.json` holds.
    """
    from experiments.config import hub
    from experiments.models import push
    from experiments.runs.run import read_record

    commits = hub.check_sources(config, begun_with=(read_record(output_dir) or {}).get("commits", {}))
    push.check(config["trainer"], name)
    from transformers import set_seed

    from experiments.data.resized_pages import image_processor, resized_rows, shared_store
    from experiments.models.adapters import merge_adapter
    from experiments.models.ready import embedding_dim
    from experiments.runs.record import keep_record
    from experiments.training import mini_batch

    mini_batch.check(config["loss"])
    with ExitStack() as stack:
        record = stack.enter_context(keep_record(output_dir, config, name=name))
        record.update(commits=commits, choices=choices)
        data: Data = build(config["data"])
        args = make_arguments(config, output_dir, data)
        track = build(config["tracking"])
        tracker: Tracker = stack.enter_context(track(config, output_dir, name=name, choices=choices))
        record.update(fingerprint=data.fingerprint, dashboard=tracker.show_command, tracked_as=tracker.name)

        set_seed(config["seed"])
        quiet_libraries()
        model: BaseModel = build(config["model"])
        matryoshka: Matryoshka = build(config["matryoshka"])(embedding_dim(model))
        loss = matryoshka.wrap(model, build(config["loss"])(model))
        evaluator = make_evaluator(config, data, matryoshka)

        metrics = describe(config, choices, data, model, evaluator)
        metrics |= evaluate_base(evaluator, model, output_dir)

        processor = image_processor(model)
        trainer: RunTrainer = args.trainer_class(
            model=model,
            args=args,
            train_dataset=resized_rows(data.train, processor),
            eval_dataset=resized_rows(data.eval, processor, shared_store()) if args.eval_loss else None,
            loss=loss,
            evaluator=evaluator,
            callbacks=[tracker.callback(data.name, embedding_dim(model))],
        )
        fit(trainer)
        if config["model"].get("merge_adapter"):
            merge_adapter(model)

        evaluation = run_evaluator(evaluator, model, output_dir, "final")
        if evaluation is None:  # what follows is for the main process
            return metrics
        metrics["final"] = evaluation.to_json()
        metrics["attributes"] = evaluation.attributes
        truncate_dim = choose_truncate_dim(matryoshka, metrics["final"])
        metrics["model"]["truncate_dim"] = truncate_dim
        metrics["selected_on_this_set"] = selections(matryoshka, trainer)
        metrics["training"] = {"steps": trainer.state.global_step, "mini_batch": trainer.mini_batch}
        metrics["training"]["history"] = trainer.state.log_history
        metrics["energy"] = tracker.write_energy_to_card(model)
        save(model, output_dir / "final", truncate_dim, metrics)
        finish(metrics, evaluation, data, output_dir, tracker)
        dims = dims_given(truncate_dim, metrics["model"]["embedding_dim"])
        logger.info("Model:     %s%s", output_dir / "final", dims)
    if config["trainer"]["push_to_hub"]:  # of a run that is finished, whatever the Hub says
        logger.info("Pushed:    %s", push.push(model, output_dir / "final", config["trainer"], name))
    return metrics


def dims_given(truncate_dim: int | None, full_dim: int | None) -> str:
    """Return what is said of a model that is saved with fewer dimensions than it has."""
    if truncate_dim is None or truncate_dim == full_dim:
        return ""
    return f" (gives {truncate_dim} of {full_dim} dimensions; for all: matryoshka.truncate_dim=null)"


if __name__ == "__main__":
    launch(train)
