"""The steps of a run, in the order in which `train` and `evaluate` take them: build, evaluate, fit, save, finish."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config import cards, targets, tiny_models
from experiments.config.errors import ConfigError, refuse
from experiments.runs import progress

if TYPE_CHECKING:
    from sentence_transformers.base.model import BaseModel
    from torch.nn import Module

    from experiments.data.types import Data
    from experiments.evaluation.results import Evaluation, Evaluator
    from experiments.runs.footprint import Gpu
    from experiments.runs.record import Record
    from experiments.runs.tracking import Tracker
    from experiments.training.losses import Matryoshka
    from experiments.training.trainer import RunArguments, RunTrainer

logger = logging.getLogger(__name__)


def build(node: dict[str, Any]) -> Any:
    """Call the target of a config node with its values as plain containers; what it raises comes out as it is.

    Raises:
        ConfigError: If it isn't in the list of what a config may run.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    targets.check_node(node)
    try:
        return instantiate(node, _convert_="all")
    except InstantiationException as error:
        raise error.__cause__ or error from None


def make_data(config: dict[str, Any], *, evaluation_only: bool = False) -> Data:
    """Build the data; for an evaluation alone without training rows, if the source can do that."""
    from experiments.config.signatures import signature

    progress.stage("data")
    node = config["data"]
    spared = evaluation_only and "evaluation_only" in signature(node["_target_"]).parameters
    return build(node | {"evaluation_only": True} if spared else node)


def gpu_at_hand() -> Gpu | None:
    """Return the GPU that this process trains on."""
    import torch

    from experiments.runs.footprint import Gpu, peak_of

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return Gpu(properties.name, properties.total_memory, peak_of(properties.name))


def check_sources(config: dict[str, Any], begun_with: dict[str, str]) -> dict[str, str]:
    """Ask the Hub for what a config names, see `hub.check_sources`; under torchrun the main process asks for all."""
    from experiments.config import hub
    from experiments.runs.process import is_main_process

    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return hub.check_sources(config, begun_with)
    from accelerate.utils import broadcast_object_list

    (found,) = broadcast_object_list([hub.check_sources(config, begun_with) if is_main_process() else None])
    hub.take(found)
    return hub.check_sources(config, begun_with)  # the others know the answers now


def warning(config: dict[str, Any], choices: dict[str, str]) -> str | None:
    """Return what is said where a tiny model meets own data, see `tiny_models`; torch isn't needed for it."""
    from experiments.runs.footprint import gpu_here

    return tiny_models.warning(config, choices, gpu.memory if (gpu := gpu_here()) else None)


def warn(config: dict[str, Any], choices: dict[str, str]) -> None:
    """Say so before the work begins; at its end and in the report it is said from metrics.json."""
    from experiments.runs.process import is_main_process

    if is_main_process() and (said := warning(config, choices)):
        logger.warning(said)


def make_arguments(config: dict[str, Any], output_dir: Path, data: Data) -> RunArguments:
    """Build the training arguments, before the weights: what the library finds wrong with them is a ConfigError."""
    from hydra.utils import get_class

    # The library would push every checkpoint; here the finished model is pushed.
    arguments = config["trainer"] | {"output_dir": str(output_dir / "checkpoints"), "push_to_hub": False}
    if arguments.get("card_examples") == "auto":
        arguments["card_examples"] = not cards.is_own(config["data"])
    if arguments.get("load_best_model_at_end") and arguments.get("metric_for_best_model") is None:
        metric = get_class(config["evaluator"]["_target_"]).metric  # type: ignore[attr-defined]
        arguments |= {"metric_for_best_model": f"eval_{data.name}_{metric}", "greater_is_better": True}
    try:
        return build(arguments)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"trainer: {error}") from error


def require_same_data(begun: dict[str, Any], data: Data, options: dict[str, Any]) -> None:
    """Refuse to go on with a run on other data than it began with: its two evaluations would be of two data sets.

    Args:
        begun: The `run.json` that was there; empty if this is the run's first attempt.
        data: As it is now.
        options: The config's node of the data.

    Raises:
        ConfigError: It names what changed.
    """
    then, now = begun.get("fingerprints") or {}, data.fingerprints
    if (before := begun.get("fingerprint")) in (None, data.fingerprint):
        return
    told = []
    for part, key in (("training rows", "train"), ("evaluation", "eval")):
        if part in then and then[part] != now[part]:
            named = next((each for each in (key, "train", "path") if isinstance(options.get(each), str)), "_target_")
            told.append(f"the {part} of data.{named}={options[named]} ({then[part]} before, {now[part]} now)")
    told = told or [f"the data ({before} before, {data.fingerprint} now)"]  # or the evaluation loss's rows alone
    raise ConfigError(
        f"since this run began, something has changed: {' and '.join(told)}; put back what was there to go on, "
        "or type trainer.resume=null for a new run"
    )


@contextmanager
def tracked(
    config: dict[str, Any], output_dir: Path, record: Record, data: Data, *, name: str, choices: dict[str, str]
) -> Iterator[Tracker]:
    """Track the run while the body runs, and record under which name, on which data."""
    with build(config["tracking"])(config, output_dir, name=name, choices=choices) as tracker:
        prints = {"fingerprint": data.fingerprint, "fingerprints": data.fingerprints}
        record.update(**prints, dashboard=tracker.show_command, tracked=tracker.place)
        yield tracker


def load_model(config: dict[str, Any]) -> BaseModel:
    """Load the model, with the run's random state from here on."""
    from transformers import set_seed

    progress.stage("model")
    set_seed(config["seed"])
    return build(config["model"])


def make_model(config: dict[str, Any]) -> tuple[BaseModel, Matryoshka]:
    """Load the model and choose the dimensions that it is trained for."""
    from experiments.models.ready import embedding_dim

    model = load_model(config)
    return model, build(config["matryoshka"])(embedding_dim(model))


def require_modalities(model: BaseModel, data: Data) -> None:
    """Refuse images, sounds and videos that the model doesn't take: what it takes is known once it is loaded.

    Raises:
        ConfigError: It says which of the data they are, and what to type.
    """
    from experiments.data.media import kind_of

    taken = {str(modality) for modality in model.modalities} - {"message"}
    for each in data.directions.values():
        features = {"queries": each.queries.features["query"], "pages": each.corpus.features["document"]}
        for part, kind in ((part, kind_of(feature)) for part, feature in features.items()):
            modality = {"images": "image", "sounds": "audio", "videos": "video"}.get(str(kind))
            said = f"the {part} are {kind}, and the model takes {' and '.join(sorted(taken))}: give their texts"
            refuse(modality and modality not in taken, f"{said}, or type a model of {kind}, such as model=qwen3vl_2b")


def trained_dimensions(
    config: dict[str, Any], choices: dict[str, str], model: BaseModel, output_dir: Path, commits: dict[str, str]
) -> Matryoshka:
    """Return the dimensions to evaluate a model at: those that were chosen, or else those that it was trained for.

    Chosen is what was typed, or another option of `matryoshka` than the default, as the offline twins' options have.
    """
    from experiments.config.model_files import trained_dims
    from experiments.models.ready import embedding_dim
    from experiments.training.losses import Matryoshka

    full, node, name = embedding_dim(model), config["matryoshka"], config["model"].get("name")
    typed = any(each.startswith(("matryoshka=", "matryoshka.default_dims=")) for each in _typed(output_dir))
    if full is None:
        return Matryoshka(None, None)
    if typed or node.get("matryoshka_dims") or choices.get("matryoshka", "default") != "default":
        return build(node)(full)
    found = trained_dims(name, commits.get(name)) if isinstance(name, str) else []
    return Matryoshka((full, *(dim for dim in found if dim < full)), None)


def _typed(output_dir: Path) -> list[str]:
    """Return the overrides of a run."""
    from omegaconf import OmegaConf

    file = output_dir / ".hydra" / "overrides.yaml"
    return [*map(str, OmegaConf.load(file))] if file.exists() else []


def keep_card_to_data(model: BaseModel, config: dict[str, Any], choices: dict[str, str], output_dir: Path) -> None:
    """Say of the data on the model card what is known of them, not what our options say of a recipe's; see `cards`."""
    for field, value in cards.corrected(config["data"], choices, _typed(output_dir)).items():
        setattr(model.model_card_data, field, value)


def make_evaluator(config: dict[str, Any], data: Data, matryoshka: Matryoshka) -> Evaluator:
    """Build the evaluator that the baseline, the training, its end and `evaluate` share.

    Where `evaluator.truncate_dims` names none, the Matryoshka dimensions are scored.
    """
    options, inputs = dict(config["evaluator"]), data.evaluator_inputs()
    if matryoshka.dims is not None and options.get("truncate_dims") is None:
        options["truncate_dims"] = list(matryoshka.dims)
    if isinstance(matryoshka.truncate_dim, int):
        inputs["saved_dim"] = matryoshka.truncate_dim
    return build(options)(**inputs)


def make_trainer(
    args: RunArguments, data: Data, model: BaseModel, loss: Module, evaluator: Evaluator, tracker: Tracker
) -> RunTrainer:
    """Build the trainer, whose pages come out at the size that the model sees."""
    from experiments.data.resized_pages import image_processor, resized_rows, shared_store

    assert data.train is not None and data.eval is not None
    processor = image_processor(model)
    return args.trainer_class(
        model=model,
        args=args,
        train_dataset=resized_rows(data.train, processor),
        eval_dataset=resized_rows(data.eval, processor, shared_store()) if args.eval_loss else None,
        loss=loss,
        evaluator=evaluator,
        callbacks=[tracker.callback(data.name)],
    )


def run_evaluator(evaluator: Evaluator, model: BaseModel, output_dir: Path, tag: str) -> Evaluation | None:
    """Evaluate, sharing the work among all processes, and write rankings and values; None but on the main process.

    The tag is that of `metrics_file.Evaluated`; but for `final`, other runs may share the embeddings
    (`evaluator.cache_dir`).
    """
    from sentence_transformers.util.distributed import distributed_evaluation

    progress.stage(f"{tag} evaluation".removeprefix("model "))
    with distributed_evaluation(model) as is_main:
        evaluation = evaluator.evaluate(model, cached=tag != "final") if is_main else None
    if evaluation is not None:
        if evaluation.cache_file:
            what = "Base evaluation" if tag == "base" else "Evaluation"
            logger.info("%s: embeddings from the cache (%s)", what, evaluation.cache_file)
        evaluation.write(output_dir / "rankings", tag)
    return evaluation


def evaluate_base(evaluator: Evaluator, model: BaseModel, output_dir: Path) -> dict[str, Any]:
    """Evaluate the model before training, unless the run that is resumed has done so.

    Returned are `base` and `base_from_cache` of metrics.json; nothing but on the main process.
    """
    from experiments.runs.files import load_json, save_json
    from experiments.runs.metrics_file import has_sections

    saved = output_dir / "rankings" / "base.json"
    measured = load_json(saved)
    if measured is None or not has_sections(measured["base"]):  # the version before wrote it
        if (evaluation := run_evaluator(evaluator, model, output_dir, "base")) is None:
            return {}
        measured = {"base": evaluation.to_json(), "base_from_cache": evaluation.cache_file is not None}
        save_json(saved, measured)
    return measured


def describe(
    config: dict[str, Any], choices: dict[str, str], data: Data, model: BaseModel, evaluator: Evaluator
) -> dict[str, Any]:
    """Return what the numbers are measured on: the head of metrics.json (`runs.metrics_file` says what follows)."""
    from experiments.models.ready import describe as describe_model

    name = config["model"].get("name")  # a node that builds a tiny twin has no name of its own
    return {
        "primary_metric": evaluator.metric,
        "evaluation": data.describe(),
        "model": {"name": name if isinstance(name, str) else choices["model"], **describe_model(model)},
        "warning": warning(config, choices),
    }


def fit(trainer: RunTrainer, *, merge: bool | None = False) -> str | None:
    """Train, from the newest complete checkpoint if there is one, and merge a trained adapter if that is asked for.

    Returned is why no weight has changed, see `weights.unchanged`, or None.
    """
    from experiments.models.adapters import merge_adapter
    from experiments.training import weights
    from experiments.training.trainer import last_checkpoint

    progress.stage("training")
    before = weights.checksums(trainer.model)
    if checkpoint := last_checkpoint(Path(trainer.args.output_dir or ".")):
        logger.info("Going on from %s", checkpoint)
    trainer.train(resume_from_checkpoint=checkpoint)
    # Off with the autocast that training put around the model: base and final are evaluated alike.
    trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    unchanged = weights.unchanged(trainer, before)
    if merge:
        merge_adapter(trainer.model)
    return unchanged


def choose_truncate_dim(matryoshka: Matryoshka, final: dict[str, Any]) -> int | None:
    """Return the dimension to save the model with; `auto`: the smallest shown to keep 99% of the quality."""
    from experiments.runs.metrics_file import smallest_dimension

    return smallest_dimension(final) if isinstance(matryoshka.truncate_dim, str) else matryoshka.truncate_dim


def describe_training(trainer: RunTrainer, matryoshka: Matryoshka, unchanged: str | None) -> dict[str, Any]:
    """Return `training` of metrics.json, and `selected_on_this_set`: what was chosen by looking at its queries."""
    state = trainer.state
    by_checkpoint = [f"the checkpoint (step {state.best_global_step})"] * trainer.args.load_best_model_at_end
    by_dim = ["truncate_dim"] * (matryoshka.truncate_dim == "auto")
    told = {"steps": state.global_step, "mini_batch": trainer.mini_batch, "unchanged": unchanged}
    return {"training": told | {"history": state.log_history}, "selected_on_this_set": by_checkpoint + by_dim}


def judge(metrics: dict[str, Any], output_dir: Path) -> dict[str, Any]:
    """Return `verdict` of metrics.json; nothing, but a warning, where it can't be: the model is saved all the same."""
    from experiments.evaluation import verdict
    from experiments.runs.run import Run

    try:
        return {"verdict": verdict.judge(Run(output_dir, {}, metrics))}
    except ConfigError as error:
        logger.warning("no verdict on this training: %s", error)
        return {}


def save(model: BaseModel, folder: Path, truncate_dim: int | None, metrics: dict[str, Any]) -> None:
    """Save the model with its card, whole or not at all."""
    from sentence_transformers.base.modules import Router

    from experiments.reports.run_report import add_comparison

    progress.stage("saving")
    if isinstance(model[0], Router):
        model.float()  # the library alone gives an encoder the dtype that is saved, and what follows it float32
    if truncate_dim is not None:
        model.truncate_dim = truncate_dim  # type: ignore[assignment]  # an embedder's
    staging = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    model.save_pretrained(str(staging))
    add_comparison(staging / "README.md", metrics)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(staging, folder)


def finish(metrics: dict[str, Any], evaluation: Evaluation, data: Data, output_dir: Path, tracker: Tracker) -> None:
    """Write metrics, report and figures, hand them to the tracker, and print table, places and verdict."""
    from experiments.reports import run_answer, run_report, tables
    from experiments.reports.commands import BETTER, commands
    from experiments.reports.failures import write_failures
    from experiments.runs.files import save_json
    from experiments.runs.run import load_run

    evaluation.write_names(output_dir / "rankings", data)
    save_json(output_dir / "metrics.json", metrics)
    failures = write_failures(output_dir, evaluation, data, metrics["primary_metric"])
    run_report.write_run_report(output_dir)
    for figure in sorted((output_dir / "figures").glob("*.png")):
        tracker.log_figure(figure)
    rows = []
    for sample in evaluation.samples(data):
        right, *_ = sample.right
        top = [(hit.name, hit.read()) for hit in sample.top]
        rows.append((sample.read(), right.rank, (right.name, right.read()), top))
    tracker.log_samples(rows)
    tracker.log_results(metrics)  # last: the dashboard shows the newest first
    counted = tables.counts(metrics["evaluation"])
    logger.info("%s on %s, %s\n%s", run_answer.title(metrics), data.name, counted, run_answer.summary_table(metrics))
    logger.info("Report:    %s", output_dir / "report.md")
    logger.info("Failures:  %s", failures)
    if tracker.show_command:
        logger.info("Dashboard: %s", tracker.show_command)
        logger.info("           %s", tracker.address)
    if said := run_answer.verdict_sentence(metrics):  # last, where one looks first
        logger.info("Verdict:   %s", said)
    if line := commands(load_run(output_dir)).get(BETTER):
        logger.info("           %s", line)
    if metrics["warning"]:
        logger.warning(metrics["warning"])
