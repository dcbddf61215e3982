"""Sweeps and the leaderboard of real options, against a Hub on loopback."""

import csv
import json
import re
from pathlib import Path

import pytest
from hub_server import USER
from hub_standins import MODELS
from omegaconf import OmegaConf

CONF = Path(__file__).parents[2] / "conf"
SWEPT = "loss.mini_batch_size=1,4 model.max_pixels=65536,360000"
SWEEP = f"python -m experiments.train -m model=qwen3vl_2b data=vdr_en {SWEPT}"
LEADERBOARD = "python -m experiments.evaluate -m experiment=leaderboard ++model.trust_remote_code=true"


def there():
    """The leaderboard's options whose models lie on the loopback Hub, but the one that the recipes train."""
    options = OmegaConf.load(CONF / "experiment" / "leaderboard.yaml").hydra.sweeper.params.model.split(",")
    names = {option: OmegaConf.load(CONF / "model" / f"{option}.yaml").name for option in map(str.strip, options)}
    return [option for option, name in names.items() if name in MODELS and option != "qwen3vl_2b"]


def test_the_real_recipe_is_swept(typed, tmp_path):
    done = typed(f"{SWEEP} data.num_train_rows=4 data.num_eval_rows=2")
    assert done.code == 0, done.output
    (summary,) = tmp_path.glob("multirun/*/*/summary.csv")
    with summary.open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["finished"] * 4
    weights = [seen for seen in done.requests if seen.path.endswith("safetensors") and seen.method == "GET"]
    assert len(weights) <= 1  # the jobs share the cache


def test_the_leaderboard_of_the_models_that_are_there(typed, tmp_path):
    options = there()
    assert len(options) >= 7
    done = typed(f"{LEADERBOARD} model={','.join(options)} data.num_eval_rows=2")
    assert done.code == 0, done.output
    records = [json.loads(file.read_text()) for file in tmp_path.glob("multirun/*/*/*/run.json")]
    assert [record["status"] for record in records] == ["finished"] * len(options)
    assert all(len(record["commits"]) == 2 for record in records)
    (folder,) = {file.parent.parent for file in tmp_path.glob("multirun/*/*/*/run.json")}
    report = typed(f"python -m experiments.report {folder} --published")
    assert report.code == 0, report.output
    assert "Published values not shown: they are of" in report.output  # rightly: those are of 300 queries
    assert report.requests == []


@pytest.mark.parametrize("option", ["bge_vl_base", "omni_embed_nemotron_3b"])
def test_code_that_comes_with_a_model_is_refused_until_it_is_allowed(option, typed):
    done = typed(f"python -m experiments.evaluate model={option} data=vdr_en")
    assert (done.code, done.requests) == (2, [])
    assert "type model.trust_remote_code=true" in done.last


def test_a_job_is_done_once_it_is_pushed_and_for_as_long_as_its_model_stands(typed, hub, standins):
    model = "sweeps/moves"
    hub.publish("models", model, standins / "models" / "Qwen/Qwen3-VL-Embedding-2B")
    few = "data.num_train_rows=4 data.num_eval_rows=2 trainer.eval_strategy=no trainer.save_strategy=no tracking=none"
    line = f"-m model=qwen3vl_2b model.name={model} data=vdr_en {few} seed=1"
    line += f" trainer.push_to_hub=true trainer.hub_model_id={USER}/swept"
    hub.refuse("/commit/", 403)
    done = typed(f"python -m experiments.train {line}")
    hub.moods.clear()
    assert (done.code, "finished, but not pushed" in done.output) == (1, True), done.output
    asked = [seen for seen in done.requests if re.match(f"/api/models/{model}(/revision/.*)?$", seen.path)]
    assert len(asked) <= 2, "the sweep asks for its jobs"
    plan = f"python -m experiments.plan {line}"
    assert "1 to run" in typed(plan).output

    again = typed(f"python -m experiments.train {line}")
    assert again.code == 0, again.output
    assert again.seconds < done.seconds
    assert "model.safetensors" in hub.repositories["models", f"{USER}/swept"].commits[-1].files
    assert "1 done" in typed(plan).output
    offline = typed(plan, HF_HUB_OFFLINE="1").output
    assert "1 done" in offline and "assumed to stand where it was last downloaded" in offline
    hub.publish("models", model, standins / "models" / "Qwen/Qwen3-VL-Embedding-2B")
    assert "1 to run" in typed(plan).output


def test_of_several_processes_one_asks_the_hub(typed, hub, standins, tmp_path):
    model = "sweeps/shared"
    sha = hub.publish("models", model, standins / "models" / "sentence-transformers/clip-ViT-L-14")
    line = f"-m experiments.evaluate model=saved model.name={model} data=vdr_en data.num_eval_rows=2 tracking=none"
    done = typed(f"python -m torch.distributed.run --standalone --nproc_per_node 2 {line}", OMP_NUM_THREADS="1")
    assert done.code == 0, done.output
    assert len([seen for seen in done.requests if re.match(f"/api/models/{model}(/revision/main)?$", seen.path)]) <= 2
    (record,) = tmp_path.glob("outputs/*/*/run.json")
    assert json.loads(record.read_text())["commits"][model] == sha
