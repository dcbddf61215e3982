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
from experiments.stages import build, describe, finish, make_evaluator, quiet_libraries, run_evaluator

if TYPE_CHECKING:
    from sentence_transformers.base.model import BaseModel

    from experiments.data.types import Data
    from experiments.runs.tracking import Tracker
    from experiments.training.losses import Matryoshka

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
    from experiments.config import hub

    commits = hub.check_sources(config, begun_with={})
    from transformers import set_seed

    from experiments.models.ready import embedding_dim
    from experiments.runs.record import keep_record

    with ExitStack() as stack:
        record = stack.enter_context(keep_record(output_dir, config, name=name, job="evaluate"))
        record.update(commits=commits)
        data: Data = build(config["data"])
        track = build(config["tracking"])
        tracker: Tracker = stack.enter_context(track(config, output_dir, name=name, choices=choices))
        record.update(fingerprint=data.fingerprint, dashboard=tracker.show_command, tracked_as=tracker.name)

        set_seed(config["seed"])
        quiet_libraries()
        model: BaseModel = build(config["model"])
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


if __name__ == "__main__":
    launch(evaluate)
