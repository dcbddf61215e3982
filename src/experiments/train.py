"""Train a model: an embedder, evaluated at every Matryoshka dimension, or a reranker, in every direction.

python -m experiments.train                                     the embedded default: offline, no GPU
python -m experiments.train model=qwen3vl_2b data=vdr_en        the article's recipe
python -m experiments.train experiment=reranker_any_to_any      the article's reranker
"""

from __future__ import annotations

import logging
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.cli import launch
from experiments.errors import ConfigError
from experiments.evaluate import build, describe, finish, make_evaluator, quiet_libraries, run_evaluator

if TYPE_CHECKING:
    from sentence_transformers.base.model import BaseModel

    from experiments.data import Data
    from experiments.losses import Matryoshka
    from experiments.rankings import Evaluator
    from experiments.tracking import Tracker
    from experiments.training import RunArguments, RunTrainer

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
    from experiments import hub, push

    hub.check_sources(config)
    push.check(config["trainer"], name)
    from transformers import set_seed

    from experiments import mini_batch
    from experiments.adapters import merge_adapter
    from experiments.encoders import commits
    from experiments.models import embedding_dim
    from experiments.record import keep_record
    from experiments.resized import image_processor, resized_rows

    mini_batch.check(config["loss"])
    with ExitStack() as stack:
        record = stack.enter_context(keep_record(output_dir, config, name=name))
        data: Data = build(config["data"])
        args = make_arguments(config, output_dir, data)
        track = build(config["tracking"])
        tracker: Tracker = stack.enter_context(track(config, output_dir, name=name, choices=choices))
        record.update(
            fingerprint=data.fingerprint, dashboard=tracker.show_command, tracked_as=tracker.name, choices=choices
        )

        set_seed(config["seed"])
        quiet_libraries()
        model: BaseModel = build(config["model"])
        record.update(commits=data.commits | commits(model))
        matryoshka: Matryoshka = build(config["matryoshka"])(embedding_dim(model))
        loss = matryoshka.wrap(model, build(config["loss"])(model))
        evaluator = make_evaluator(config, data, matryoshka)

        metrics = describe(config, choices, data, model, evaluator)
        metrics |= evaluate_base(evaluator, model, output_dir)

        processor = image_processor(model)
        args = make_arguments(config, output_dir, data)  # again: a warm start leaves its precision in accelerate
        trainer: RunTrainer = args.trainer_class(
            model=model,
            args=args,
            train_dataset=resized_rows(data.train, processor),
            eval_dataset=resized_rows(data.eval, processor, keep=True) if args.eval_loss else None,
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
        dims = _dims_given(truncate_dim, metrics["model"]["embedding_dim"])
        logger.info("Model:     %s%s", output_dir / "final", dims)
        if config["trainer"]["push_to_hub"]:
            logger.info("Pushed:    %s", push.push(model, output_dir / "final", config["trainer"], name))
    return metrics


def _dims_given(truncate_dim: int | None, full_dim: int | None) -> str:
    """Return what is said of a model that is saved with fewer dimensions than it has."""
    if truncate_dim is None or truncate_dim == full_dim:
        return ""
    return f" (gives {truncate_dim} of {full_dim} dimensions; for all: matryoshka.truncate_dim=null)"


def evaluate_base(evaluator: Evaluator, model: BaseModel, output_dir: Path) -> dict[str, Any]:
    """Evaluate the model before training, unless the run that is resumed has done so.

    Returns:
        `base`, the section of metrics.json, and `base_from_cache`; nothing but on the main process.
    """
    from experiments import runs

    saved = output_dir / "rankings" / "base.json"
    section = runs.load_json(saved)
    if section is None and (evaluation := run_evaluator(evaluator, model, output_dir, "base")) is not None:
        section = {"base": evaluation.to_json(), "base_from_cache": evaluation.cache_file is not None}
        runs.save_json(saved, section)
    return section or {}


def make_arguments(config: dict[str, Any], output_dir: Path, data: Data) -> RunArguments:
    """Build the training arguments, before the weights: the library checks how they go together.

    Raises:
        ConfigError: If it refuses them.
    """
    from hydra.utils import get_class

    # The library would push every checkpoint; here the finished model is pushed.
    arguments = config["trainer"] | {"output_dir": str(output_dir / "checkpoints"), "push_to_hub": False}
    if arguments.get("load_best_model_at_end") and arguments.get("metric_for_best_model") is None:
        metric = get_class(config["evaluator"]["_target_"]).metric  # type: ignore[attr-defined]
        arguments |= {"metric_for_best_model": f"eval_{data.name}_{metric}", "greater_is_better": True}
    try:
        return build(arguments)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"trainer: {error}") from error


def fit(trainer: RunTrainer) -> None:
    """Train, from the newest complete checkpoint if there is one."""
    from experiments.training import last_checkpoint

    checkpoint = last_checkpoint(Path(trainer.args.output_dir or "."))
    if checkpoint:
        logger.info("Going on from %s", checkpoint)
    trainer.train(resume_from_checkpoint=checkpoint)
    # Off with the autocast that training put around the model: base and final are evaluated alike.
    trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)


def choose_truncate_dim(matryoshka: Matryoshka, final: dict[str, Any]) -> int | None:
    """Return the dimension to save the model with; `auto`: the smallest with 99.5% of the full one's quality."""
    from experiments import runs

    if isinstance(matryoshka.truncate_dim, str):
        return runs.smallest_dimension(final)
    return matryoshka.truncate_dim


def selections(matryoshka: Matryoshka, trainer: RunTrainer) -> list[str]:
    """Return what was chosen by looking at the evaluated queries."""
    chosen = []
    if trainer.args.load_best_model_at_end:
        chosen.append(f"the checkpoint (step {trainer.state.best_global_step})")
    if matryoshka.truncate_dim == "auto":
        chosen.append("truncate_dim")
    return chosen


def save(model: BaseModel, folder: Path, truncate_dim: int | None, metrics: dict[str, Any]) -> None:
    """Save the model with its card, whole or not at all."""
    from experiments.run_report import comparison_table

    if truncate_dim is not None:
        model.truncate_dim = truncate_dim  # type: ignore[assignment]  # an embedder's
    staging = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    model.save_pretrained(str(staging))
    card = staging / "README.md"
    section = f"## Base against finetuned\n\n{metrics['primary_metric']}.\n\n{comparison_table(metrics)}"
    text = card.read_text(encoding="utf-8")
    card.write_text(text.replace("## Training Details", f"{section}\n\n## Training Details", 1), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(staging, folder)


if __name__ == "__main__":
    launch(train)
