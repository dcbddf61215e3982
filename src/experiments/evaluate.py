"""Evaluate a model without training it.

python -m experiments.evaluate model=saved model.name=outputs/DAY/RUN
python -m experiments.evaluate -m model=qwen3vl_tiny,qwen3vl_2b data=vdr_en
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments import stages
from experiments.cli import launch

HELP = """Evaluate an embedding model or a reranker, without training it: metrics, rankings, a report.

  python -m experiments.evaluate model=NAME [group=option ...] [key=value ...] [-m]

It needs a model and pages with their queries; no rows to train on.

Groups and their options:

$APP_CONFIG_GROUPS
Each option is a file that says what it needs: conf/GROUP/OPTION.yaml.

Examples:
  python -m experiments.evaluate model=saved model.name=RUN                            a run's model, or any other
  python -m experiments.evaluate model=qwen3vl_2b data=vdr_en                          a model of the Hub
  python -m experiments.evaluate model=saved model.name=RUN data=table data.eval=FILE  a table of your own
  python -m experiments.evaluate experiment=reranker model.name=RUN                    a reranker
  python -m experiments.evaluate -m model=qwen3vl_tiny,clip_tiny                       one after the other
  python -m experiments.compare RUN [RUN ...]                                          which is better

--config-dir FOLDER adds options of your own, FOLDER/GROUP/OPTION.yaml.
--cfg job --resolve prints the configuration, and its keys, instead of running.
"""


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
    launch(evaluate, HELP)
