"""A run's directory, where the name of a model is asked for."""

import pytest

from experiments.config.errors import ConfigError
from experiments.runs.files import save_json
from experiments.runs.record import keep_record
from experiments.runs.saved_models import take_finals
from finished import finished_run


def taken(name, target="embedders.load_embedder"):
    config = {"model": {"_target_": f"experiments.models.{target}", "name": str(name)}, "data": {"name": str(name)}}
    take_finals(config)
    assert config["data"]["name"] == str(name)
    return config["model"]["name"]


def refused(name):
    with pytest.raises(ConfigError) as caught:
        taken(name)
    return str(caught.value)


@pytest.mark.parametrize("target", ["embedders.load_embedder", "rerankers.load_reranker", "routers.load_encoder"])
def test_a_run_is_the_model_that_it_saved(tmp_path, monkeypatch, target):
    monkeypatch.chdir(tmp_path)
    (finished_run(tmp_path / "run") / "final").mkdir()
    assert taken("run", target) == "run/final" == taken("run/final", target)
    assert taken("owner/name", target) == "owner/name"


def test_a_run_without_a_model_is_refused_with_its_newest_checkpoint_and_how_to_go_on(tmp_path):
    with pytest.raises(KeyboardInterrupt), keep_record(tmp_path, {"seed": 42}):
        assert refused(tmp_path) == f"model.name={tmp_path}: there is no model of this run (still running); wait"
        raise KeyboardInterrupt
    resume = f"python -m experiments.train trainer.resume={tmp_path}"
    none = f"model.name={tmp_path}: there is no model of this run (interrupted); type "
    assert refused(tmp_path) == f"{none}{resume}, which goes on with it"
    for step in (9, 12):
        (tmp_path / "checkpoints" / f"checkpoint-{step}").mkdir(parents=True)
    newest = f"model.name={tmp_path}/checkpoints/checkpoint-12 (its newest checkpoint)"
    assert refused(tmp_path) == f"{none}{newest}, or type {resume}, which goes on with it"


def test_a_run_whose_model_is_gone_is_to_be_trained_again(tmp_path):
    gone = "finished, and final/ is gone"
    assert refused(finished_run(tmp_path / "run")).endswith(f"there is no model of this run ({gone}); train it again")


def test_a_run_that_evaluated_is_refused_with_the_model_that_it_evaluated(tmp_path):
    with keep_record(tmp_path, {"model": {"name": "owner/name"}}, job="evaluate"):
        pass
    assert refused(tmp_path).endswith("evaluated a model and saved none; type model.name=owner/name")


def test_a_sweep_is_refused_with_its_best_run(tmp_path):
    jobs = [{"dir": f"{number}", "value": value, "metric": "ndcg@10"} for number, value in enumerate((0.3, 0.7, 0.9))]
    save_json(tmp_path / "summary.json", {"jobs": jobs, "keys": []})
    assert "none of its jobs has saved a model: see" in refused(tmp_path)
    for number in (0, 1):  # the third failed while it saved
        (tmp_path / f"{number}" / "final").mkdir(parents=True)
    assert refused(tmp_path) == (
        f"model.name={tmp_path} is a sweep; type model.name={tmp_path}/1 (its best run: nDCG@10 0.700)"
    )
