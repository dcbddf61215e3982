"""Contender 3: this framework, on the same model and pages.

python -m benchmarks.framework CACHE MODEL OUT [OVERRIDE ...]
"""

import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from benchmarks import stages
from experiments.evaluation.retrieval import RetrievalEvaluator
from experiments.train import train
from experiments.training.trainer import Trainer

CONF = Path(__file__).parents[1] / "conf"


def main(cache_dir: str, model_folder: str, out: Path, overrides: list[str]) -> None:
    """Train and evaluate as `python -m experiments.train` does, with the stages timed."""
    stages.instrument(Trainer)
    names = iter(("base evaluation", "final evaluation"))
    evaluate = RetrievalEvaluator.evaluate
    RetrievalEvaluator.evaluate = lambda *args, **options: stages.timed(next(names), evaluate)(*args, **options)  # type: ignore[method-assign]
    options = ["model=saved", f"model.name={model_folder}", "matryoshka=tiny", "trainer=tiny", "tracking=none"]
    options += [f"data.cache_dir={cache_dir}", "trainer.num_train_epochs=1", "evaluator.cache_dir=null"]
    options += overrides
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_container(compose("config", options), resolve=True)
    train(config, out, name="benchmark", choices={"model": "saved", "data": "report_pages"})  # type: ignore[arg-type]


if __name__ == "__main__":
    folder = Path(sys.argv[3])
    with stages.stage("rest"):
        main(sys.argv[1], sys.argv[2], folder, sys.argv[4:])
    stages.write(folder / "seconds.json")
