"""Evaluate a model without training it.

python -m experiments.evaluate model=saved model.name=outputs/DAY/RUN/final
python -m experiments.evaluate -m model=qwen3vl_tiny,qwen3vl_2b data=vdr_en
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.cli import launch

if TYPE_CHECKING:
    from sentence_transformers.base.model import BaseModel

    from experiments.data import Data
    from experiments.losses import Matryoshka
    from experiments.rankings import Evaluator, Result
    from experiments.tracking import Tracker

logger = logging.getLogger(__name__)


def evaluate(config: dict[str, Any], output_dir: Path, *, name: str, choices: dict[str, str]) -> dict[str, Any]:
    """Evaluate one model at every Matryoshka dimension.

    Args:
        config: The resolved config, as plain containers.
        output_dir: The run's directory.
        name: Of the run, in reports and in Trackio.
        choices: The option chosen of each config group.

    Returns:
        What `metrics.json` holds; the model's metrics stand under `base`.
    """
    from experiments import hub

    hub.check_sources(config)
    from transformers import set_seed

    from experiments.encoders import commits
    from experiments.models import embedding_dim
    from experiments.record import keep_record

    with ExitStack() as stack:
        record = stack.enter_context(keep_record(output_dir, config, name=name, job="evaluate"))
        data: Data = build(config["data"])
        track = build(config["tracking"])
        tracker: Tracker = stack.enter_context(track(config, output_dir, name=name, choices=choices))
        record.update(fingerprint=data.fingerprint, dashboard=tracker.show_command, tracked_as=tracker.name)

        set_seed(config["seed"])
        quiet_libraries()
        model: BaseModel = build(config["model"])
        record.update(commits=data.commits | commits(model))
        matryoshka: Matryoshka = build(config["matryoshka"])(embedding_dim(model))
        evaluator = make_evaluator(config, data, matryoshka)

        evaluation = run_evaluator(evaluator, model, output_dir, "base")
        if evaluation is None:
            return {}
        metrics = describe(config, choices, data, model, evaluator) | {
            "base": evaluation.to_json(),
            "base_from_cache": evaluation.cache_file is not None,
            "attributes": evaluation.attributes,
        }
        metrics["energy"] = tracker.energy()
        finish(metrics, evaluation, data, output_dir, tracker)
    return metrics


def build(node: dict[str, Any]) -> Any:
    """Call the target of a config node with its values as plain containers; what it raises comes out as it is."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        return instantiate(node, _convert_="all")
    except InstantiationException as error:
        raise error.__cause__ or error from None


def make_evaluator(config: dict[str, Any], data: Data, matryoshka: Matryoshka) -> Evaluator:
    """Build the evaluator that the baseline, the training, its end and `evaluate` share.

    Args:
        config: The resolved config.
        data: What is evaluated on.
        matryoshka: Its dimensions are scored where `evaluator.truncate_dims` names none.
    """
    options = dict(config["evaluator"])
    inputs = data.evaluator_inputs()
    if matryoshka.dims is not None and options["truncate_dims"] is None:
        options["truncate_dims"] = list(matryoshka.dims)
    if isinstance(matryoshka.truncate_dim, int):
        inputs["saved_dim"] = matryoshka.truncate_dim
    return build(options)(**inputs)


def run_evaluator(evaluator: Evaluator, model: BaseModel, output_dir: Path, tag: str) -> Result | None:
    """Evaluate, sharing the work among all processes, and write the rankings; None but on the main process.

    Args:
        evaluator: With the evaluation's data.
        model: What is evaluated.
        output_dir: The run's directory.
        tag: `base`, whose embeddings other runs may share (`evaluator.cache_dir`), or `final`.
    """
    from sentence_transformers.util.distributed import distributed_evaluation

    with distributed_evaluation(model) as is_main:
        evaluation = evaluator.evaluate(model, cached=tag == "base") if is_main else None
    if evaluation is not None:
        if evaluation.cache_file:
            logger.info("Base evaluation: embeddings from the cache (%s)", evaluation.cache_file)
        evaluation.write_trec(output_dir / "rankings", tag)
    return evaluation


def quiet_libraries() -> None:
    """Keep transformers' progress bars, of a moment each, from burying those of the work."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


def describe(
    config: dict[str, Any], choices: dict[str, str], data: Data, model: BaseModel, evaluator: Evaluator
) -> dict[str, Any]:
    """Return what the numbers are measured on: the head of metrics.json.

    Beside it `base` and `final` hold what was measured. Their keys are dimensions, the full one first ("96", "48"),
    or, for a reranker, the directions, all together first ("all", "image_to_text"): runs are ranked by the first. The
    values are metrics by name, among them the primary one's interval, `{primary_metric}_ci95`.
    """
    from experiments.models import describe as describe_model

    name = config["model"].get("name")  # a node that builds a tiny twin has no name of its own
    return {
        "primary_metric": evaluator.metric,
        "evaluation": data.describe(),
        "model": {"name": name if isinstance(name, str) else choices["model"], **describe_model(model)},
    }


def finish(metrics: dict[str, Any], evaluation: Result, data: Data, output_dir: Path, tracker: Tracker) -> None:
    """Write metrics, report and figures, hand them to the tracker, and print the table and where to see more."""
    from experiments import run_report, runs
    from experiments.tracking import SHOW_HINT

    runs.save_json(output_dir / "metrics.json", metrics)
    run_report.write_run_report(output_dir)
    sections: dict[str, dict[str, Any]] = {tag: metrics[tag] for tag in ("base", "final") if tag in metrics}
    for tag, section in sections.items():
        tracker.log_final(section, tag)
    tracker.log_curve(sections)
    for figure in sorted((output_dir / "figures").glob("*.png")):
        tracker.log_figure(figure)
    samples = evaluation.samples(data)
    tracker.log_samples(
        [(row["query"], row["right"], [page for page, _ in row["top"]], row["right_rank"]) for row in samples]
    )
    logger.info("%s on %s\n%s", metrics["primary_metric"], data.name, run_report.summary_table(metrics))
    logger.info("Report:    %s", output_dir / "report.md")
    if tracker.show_command:
        logger.info("Dashboard: %s", tracker.show_command)
        logger.info("           %s", SHOW_HINT)


if __name__ == "__main__":
    launch(evaluate)
