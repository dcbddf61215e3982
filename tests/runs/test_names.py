"""Names of runs and sweeps: what differs, in few words."""

import re
from pathlib import Path

from experiments.runs.files import load_json, save_json
from experiments.runs.names import (
    job_name,
    joined,
    point_names,
    run_names,
    shortened,
    sweep_name,
    tracked_name,
)
from experiments.runs.run import load_finished, load_run
from finished import finished_run

MODEL = {"parameters": 1_400_000, "embedding_dim": 96, "truncate_dim": None}


def test_names_are_of_whole_keys_and_words():
    point = {f"trainer.key_number_{i}": f"a_value_of_{i}" for i in range(9)}
    name = job_name(point)
    assert len(name) <= 120 and re.fullmatch(r"(key_number_\d=a_value_of_\d-){4}5_more", name)
    began = Path("multirun/2026-11-23/01-43-05")
    name = sweep_name([*point], began)
    assert len(name) <= 120 and re.fullmatch(r"(key_number_\d-){7}2_more-2026-11-23-01-43-05", name)
    assert sweep_name([], began) == "2026-11-23-01-43-05"
    assert shortened("pages_of_annual_reports.csv", 24) == "pages_of_annual_reports"
    assert shortened("x" * 30, 24) == "x" * 24 and joined(["a" * 9], 4) == "1_more"


def test_a_job_is_named_by_the_swept_keys_short_names_and_values():
    assert job_name({"loss.mini_batch_size": "4", "model.max_pixels": "4096"}) == "mini_batch_size=4-max_pixels=4096"
    assert job_name({"model": "clip_tiny", "trainer.seed": "1", "data.seed": "2"}) == (
        "clip_tiny-trainer.seed=1-data.seed=2"
    )


def test_jobs_seen_together_are_named_by_what_differs_between_them():
    points = [{"model": model, "seed": "42", "loss.scale": scale} for model in ("a", "b") for scale in ("20", "50")]
    assert point_names(points) == ["a, scale=20", "a, scale=50", "b, scale=20", "b, scale=50"]
    assert point_names(points[:2]) == ["scale=20", "scale=50"]
    assert point_names(points[:1]) == ["a, seed=42, scale=20"]
    alike = [{"model.name": f"{folder}/weights"} for folder in ("one", "two")]  # the last parts are
    assert point_names(alike) == ["name=one/weights", "name=two/weights"]


def test_runs_of_one_sweep_are_named_by_their_points_and_others_by_name_and_difference(tmp_path):
    jobs = []
    for number, scale in enumerate(("20", "50")):
        config = {"loss": {"scale": int(scale)}}
        finished_run(tmp_path / "sweep" / str(number), name=f"scale={scale}", config=config)
        jobs.append({"number": number, "dir": str(number), "point": {"loss.scale": scale}})
    save_json(tmp_path / "sweep" / "summary.json", {"jobs": jobs, "keys": ["loss.scale"]})
    assert run_names(load_finished([tmp_path / "sweep"])) == ["scale=20", "scale=50"]
    finished_run(tmp_path / "beside", config={"loss": {"scale": 20}})
    assert {*run_names(load_finished([tmp_path]))} == {"scale=20", "scale=50", "qwen3vl_tiny"}


def test_labels_are_the_given_name_the_model_the_run_of_a_saved_model_or_the_time(tmp_path):
    names = ("owner/name", "outputs/2026-11-23/01-02-03_tiny/final", "twin", "twin")
    for i, name in enumerate(names):
        finished_run(tmp_path / str(i), model=MODEL | {"name": name})
    finished_run(tmp_path / "named", name="mine", model=MODEL | {"name": "owner/name"})
    labels = run_names(load_finished([tmp_path]))
    assert sorted(labels)[:3] == ["01-02-03_tiny/final", "mine", "owner/name"]
    assert all(re.fullmatch(r"twin (\d\d-\d\d \d\d:\d\d:\d\d|\d \(\d\))", label) for label in sorted(labels)[3:])
    assert len({*labels}) == 5  # those that started in one second too


def test_an_evaluation_beside_a_training_is_called_so_and_not_by_the_training_that_its_config_tells_of(tmp_path):
    config = {"trainer": {"num_train_epochs": 1}, "data": {"train": "train.csv"}}
    finished_run(tmp_path / "trained", config=config)
    beside = finished_run(tmp_path / "beside", final=None, config={"trainer": {"num_train_epochs": 6}})
    save_json(beside / "run.json", load_json(beside / "run.json") | {"job": "evaluate"})
    runs = [load_run(tmp_path / name) for name in ("trained", "beside")]
    assert run_names(runs) == ["qwen3vl_tiny finetuned", "qwen3vl_tiny evaluated"]
    assert run_names(runs[1:]) == ["qwen3vl_tiny"]


def test_in_trackio_a_job_of_several_keys_is_named_by_its_values_first_unless_it_was_named(tmp_path):
    jobs = [{"dir": str(number), "point": {"loss.scale": "20", "seed": str(number)}} for number in range(2)]
    save_json(tmp_path / "summary.json", {"jobs": [*jobs, {"dir": "2", "point": {"seed": "2"}}]})
    assert tracked_name(tmp_path / "1", "scale=20-seed=1") == "20 1 (scale seed)"
    assert tracked_name(tmp_path / "1", "mine") == "mine"
    assert tracked_name(tmp_path / "2", "seed=2") == "seed=2"
    assert tracked_name(tmp_path / "elsewhere", "alone") == "alone"
