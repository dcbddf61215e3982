"""The steps that `train` and `evaluate` share: build, evaluate, describe, finish."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sentence_transformers.base.model import BaseModel

    from experiments.data.types import Data
    from experiments.evaluation.results import Evaluator, Result
    from experiments.runs.tracking import Tracker
    from experiments.training.losses import Matryoshka

logger = logging.getLogger(__name__)


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
    if matryoshka.dims is not None and options["truncate_dims"] is None:
        options["truncate_dims"] = list(matryoshka.dims)
    if isinstance(matryoshka.truncate_dim, int) and options["truncate_dims"] is not None:
        options["truncate_dims"] = [*options["truncate_dims"], matryoshka.truncate_dim]  # what is saved is scored
    return build(options)(**data.evaluator_inputs())


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
    from experiments.models.embedders import describe as describe_model

    name = config["model"].get("name")  # a node that builds a tiny twin has no name of its own
    return {
        "primary_metric": evaluator.metric,
        "evaluation": data.describe(),
        "model": {"name": name if isinstance(name, str) else choices["model"], **describe_model(model)},
    }


def finish(metrics: dict[str, Any], evaluation: Result, data: Data, output_dir: Path, tracker: Tracker) -> None:
    """Write metrics, report and figures, hand them to the tracker, and print the table and where to see more."""
    from experiments.reports import run_report
    from experiments.runs.files import save_json
    from experiments.runs.tracking import SHOW_HINT

    save_json(output_dir / "metrics.json", metrics)
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
