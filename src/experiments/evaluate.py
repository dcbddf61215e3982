"""Evaluate a model without training it.

    python -m experiments.evaluate model=saved model.name=outputs/DAY/RUN/final
    python -m experiments.evaluate -m model=qwen3vl_tiny,qwen3vl_2b data=vdr_en
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.cli import launch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sentence_transformers import SentenceTransformer

    from experiments.data import RetrievalData
    from experiments.evaluation import Evaluation, RetrievalEvaluator
    from experiments.losses import Matryoshka
    from experiments.tracking import Tracker

logger = logging.getLogger(__name__)


def evaluate(config: dict[str, Any], output_dir: Path, *, name: str) -> dict[str, Any]:
    """Evaluate one model at every Matryoshka dimension.

    Args:
        config: The resolved config, as plain containers.
        output_dir: The run's directory.
        name: Of the run, in reports and in Trackio.

    Returns:
        What `metrics.json` holds: the model's metrics stand under `base`.
    """
    from hydra.utils import instantiate

    from experiments import report, runs

    with (
        runs.record(output_dir, config, name=name) as record,
        instantiate(config["tracking"])(config, output_dir, name=name) as tracker,
    ):
        data: RetrievalData = instantiate(config["data"])
        record.update(fingerprint=data.fingerprint)
        model: SentenceTransformer = instantiate(config["model"])
        matryoshka: Matryoshka = instantiate(config["matryoshka"])(model.get_embedding_dimension())
        evaluator = make_evaluator(config, data, matryoshka.dims)

        evaluation = run_evaluator(evaluator, model, output_dir, "base")
        metrics = describe(config, data, model) | {"base": evaluation.to_json(), "attributes": evaluation.attributes}
        metrics["energy"] = tracker.energy()
        finish(metrics, evaluation, data, output_dir, tracker)
    runs.show(output_dir, tracker.show_command)
    return metrics


def make_evaluator(config: dict[str, Any], data: RetrievalData, dims: Sequence[int] | None) -> RetrievalEvaluator:
    """Build the evaluator that training, its baseline, its end and `evaluate` share."""
    from hydra.utils import instantiate

    options = dict(config["evaluator"])
    if options.get("truncate_dims") is None:
        options["truncate_dims"] = list(dims) if dims else None
    build = instantiate(options, _convert_="all")
    return build(
        queries=data.queries,
        corpus=data.corpus,
        relevant_docs=data.relevant_docs,
        name=data.name,
        attribute_negatives=data.attribute_negatives,
    )


def run_evaluator(evaluator: RetrievalEvaluator, model: SentenceTransformer, output_dir: Path, tag: str) -> Evaluation:
    """Evaluate at every dimension and precision, log the result, and write the rankings as TREC files."""
    evaluation = evaluator.evaluate(model)
    evaluation.write_trec(output_dir / "rankings", tag)
    return evaluation


def describe(config: dict[str, Any], data: RetrievalData, model: SentenceTransformer) -> dict[str, Any]:
    """Return what the numbers were measured on."""
    from experiments.evaluation import PRIMARY_METRIC
    from experiments.models import describe as describe_model

    return {
        "primary_metric": PRIMARY_METRIC,
        "evaluation": {
            "name": data.name,
            "num_queries": len(data.queries),
            "num_documents": len(data.corpus),
            "fingerprint": data.fingerprint,
        },
        "model": {"name": config["model"].get("name") or config["model"]["_target_"].rpartition(".")[2]}
        | describe_model(model),
    }


def finish(
    metrics: dict[str, Any], evaluation: Evaluation, data: RetrievalData, output_dir: Path, tracker: Tracker
) -> None:
    """Write metrics, report and figures, and hand them to the tracker."""
    from experiments import report, runs

    runs.save_json(output_dir / "metrics.json", metrics)
    report.write_run_report(output_dir)


if __name__ == "__main__":
    launch(evaluate)
