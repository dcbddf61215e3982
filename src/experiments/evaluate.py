"""Evaluate a model without training it.

python -m experiments.evaluate model=saved model.name=outputs/DAY/RUN
python -m experiments.evaluate -m model=qwen3vl_tiny,qwen3vl_2b data=vdr_en
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments import stages
from experiments.cli import launch


def evaluate(config: dict[str, Any], output_dir: Path, *, name: str, choices: dict[str, str]) -> dict[str, Any]:
    """Evaluate one model at every dimension that it was trained for, or that was typed.

    It takes what `cli.launch` gives. Returned is what `metrics.json` holds; the model's metrics stand under `result`.
    """
    from experiments.config import hub
    from experiments.runs.record import keep_record

    stages.warn(config, choices)
    commits = stages.check_sources(config, begun_with={})
    with keep_record(output_dir, config, name=name, job="evaluate") as record:
        record.update(commits=commits, choices=choices)
        data = stages.make_data(config, evaluation_only=True)
        with stages.tracked(config, output_dir, record, data, name=name, choices=choices) as tracker:
            model = stages.load_model(config)
            stages.require_modalities(model, data)
            dimensions = stages.trained_dimensions(config, choices, model, output_dir, commits)
            evaluator = stages.make_evaluator(config, data, dimensions)
            record.update(commits=commits | hub.adapter_bases(config, commits))

            evaluation = stages.run_evaluator(evaluator, model, output_dir, "model")
            if evaluation is None:  # what follows is for the main process
                return {}
            metrics = stages.describe(config, choices, data, model, evaluator)
            metrics |= {"result": evaluation.to_json(), "from_cache": evaluation.cache_file is not None}
            metrics |= {"chance": evaluation.chance, "attributes": evaluation.attributes, "energy": tracker.energy()}
            stages.finish(metrics, evaluation, data, output_dir, tracker)
    return metrics


if __name__ == "__main__":
    launch(evaluate)
