import copy
import json
import math
import os
import shlex
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

import nvidia_host
from experiments.config.errors import ConfigError
from experiments.config.keys import config_hash
from experiments.runs.files import save_json
from experiments.runs.identity import COMPUTES
from experiments.runs.metrics_file import retention, smallest_dimension
from experiments.runs.provenance import code_hash, provenance, visible_gpus
from experiments.runs.record import keep_record
from experiments.runs.run import duration_s, find_unfinished, is_live, load_finished

CONFIG = {
    **{"seed": 42, "run_name": None, "tracking": {"project": "experiments"}},
    "trainer": {"resume": None, "learning_rate": 2e-3, "logging_steps": 0.05, "dataloader_num_workers": 2},
    **{"evaluator": {"num_workers": 2, "batch_size": 32}, "data": {"cache_dir": "outputs/.cache", "seed": 0}},
    "matryoshka": {"matryoshka_dims": [96, 48]},
}


def changed(path, value):
    config = copy.deepcopy(CONFIG)
    *parents, last = path.split(".")
    node = config
    for parent in parents:
        node = node[parent]
    node[last] = value
    return config


def read(folder):
    return json.loads((folder / "run.json").read_text())


def finish(folder, config=CONFIG, **metrics):
    with keep_record(folder, config):
        save_json(folder / "metrics.json", metrics or {"base": {}})


def fail(folder, error=None, config=CONFIG):
    error = error or RuntimeError("boom")
    with pytest.raises(type(error)), keep_record(folder, config):
        raise error


def run_killed_with(signal_number, folder):
    """Start a run in another process, kill it in the middle and return its exit code."""
    code = (
        "import sys, time; from pathlib import Path; from experiments.runs.record import keep_record\n"
        f"with keep_record(Path({str(folder)!r}), {CONFIG!r}):\n    print('up', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"up\n"
        assert is_live(folder, read(folder))
        assert find_unfinished([folder], config_hash(CONFIG)) is None
        with pytest.raises(ConfigError, match=f"process {process.pid} on"), keep_record(folder, CONFIG):
            pass
        process.send_signal(signal_number)
    return process.returncode


def test_record_says_running_inside_and_finished_after(tmp_path):
    with keep_record(tmp_path, CONFIG, name="one") as run:
        assert read(tmp_path)["status"] == "running"
        run.update(fingerprint="abc")
        assert read(tmp_path)["fingerprint"] == "abc"
    fields = read(tmp_path)
    assert (fields["status"], fields["name"], fields["error"], fields["seed"]) == ("finished", "one", None, 42)
    assert fields["command"] == shlex.join(["python", *sys.orig_argv[1:]])
    assert fields["config"] == CONFIG
    assert fields["start"] <= fields["end"]
    assert [attempt["status"] for attempt in fields["attempts"]] == ["finished"]
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_exception_is_recorded_as_one_short_line(tmp_path):
    fail(tmp_path, ValueError("first\nsecond " + "x" * 1000))
    fields = read(tmp_path)
    assert fields["status"] == "failed"
    assert fields["error"].startswith("ValueError: first second x")
    assert len(fields["error"]) == 300
    fail(tmp_path, MemoryError())
    assert read(tmp_path)["error"] == "MemoryError"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(0)])
def test_interrupt_and_exit_are_recorded_as_interrupted(tmp_path, error):
    fail(tmp_path, error)
    assert read(tmp_path)["status"] == "interrupted"


def test_sigterm_is_recorded_as_interrupted_and_exits_143(tmp_path):
    assert run_killed_with(signal.SIGTERM, tmp_path) == 143
    assert read(tmp_path)["status"] == "interrupted"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_killed_run_is_unfinished_and_goes_on_with_its_first_start(tmp_path):
    assert run_killed_with(signal.SIGKILL, tmp_path) == -signal.SIGKILL
    killed = read(tmp_path)
    assert killed["status"] == "running"
    assert find_unfinished([tmp_path], config_hash(CONFIG)) == tmp_path
    save_json(tmp_path / "run.json", killed | {"start": "2026-01-01T00:00:00+00:00"})
    finish(tmp_path)
    fields = read(tmp_path)
    assert fields["start"] == "2026-01-01T00:00:00+00:00"
    assert [attempt["status"] for attempt in fields["attempts"]] == ["killed", "finished"]
    assert [attempt["pid"] for attempt in fields["attempts"]] == [killed["pid"], os.getpid()]
    assert all(attempt["end"] for attempt in fields["attempts"])
    assert 0 <= duration_s(fields) < 60


def test_directory_of_another_config_is_refused(tmp_path):
    fail(tmp_path)
    with pytest.raises(ConfigError, match="another config"), keep_record(tmp_path, changed("seed", 1)):
        pass
    assert read(tmp_path)["status"] == "failed"


def test_run_on_another_host_is_live_while_its_file_is_touched(tmp_path):
    finish(tmp_path)
    fields = read(tmp_path) | {"status": "running", "host": "not-" + socket.gethostname()}
    save_json(tmp_path / "run.json", fields)
    assert is_live(tmp_path, fields)
    old = time.time() - 3600
    os.utime(tmp_path / "run.json", (old, old))
    assert not is_live(tmp_path, fields)


def test_process_with_the_same_id_but_another_start_is_dead(tmp_path):
    finish(tmp_path)
    fields = read(tmp_path) | {"status": "running"}
    assert is_live(tmp_path, fields)
    assert not is_live(tmp_path, fields | {"process_start": 1})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *[("run_name", "x"), ("tracking", {}), ("experiment", "x"), ("trainer.resume", "auto")],
        *[("trainer.logging_steps", 1), ("trainer.dataloader_num_workers", 0), ("trainer.push_to_hub", True)],
        *[("evaluator.num_workers", 0), ("data.cache_dir", "/tmp")],
    ],
)
def test_hash_ignores_what_cannot_change_the_result(path, value):
    assert config_hash(changed(path, value)) == config_hash(CONFIG)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *[("seed", 1), ("data.seed", 1), ("trainer.learning_rate", 1.0)],
        *[("evaluator.batch_size", 1), ("matryoshka.matryoshka_dims", [48, 96])],
    ],
)
def test_hash_depends_on_what_changes_the_result(path, value):
    assert config_hash(changed(path, value)) != config_hash(CONFIG)


def test_hash_leaves_the_config_alone_and_ignores_the_order_of_keys():
    config = copy.deepcopy(CONFIG)
    assert config_hash(dict(reversed(config.items()))) == config_hash(config)
    assert config == CONFIG


def test_newest_unfinished_training_of_the_same_config_is_found(tmp_path):
    fail(tmp_path / "outputs" / "day" / "older")
    fail(tmp_path / "multirun" / "day" / "0")
    finish(tmp_path / "outputs" / "day" / "finished")
    fail(tmp_path / "outputs" / "day" / "other", config=changed("seed", 1))
    fail(tmp_path / "outputs" / "day" / "0" / "checkpoints" / "inner")
    with pytest.raises(RuntimeError), keep_record(tmp_path / "outputs" / "evaluation", CONFIG, job="evaluate"):
        raise RuntimeError
    roots = [tmp_path / "outputs", tmp_path / "multirun", tmp_path / "missing"]
    assert find_unfinished(roots, config_hash(CONFIG)) == tmp_path / "multirun" / "day" / "0"
    assert find_unfinished(roots, "none") is None


def test_finished_runs_are_loaded_once_and_damaged_ones_left_out(tmp_path, caplog):
    finish(tmp_path / "b", base={"dimensions": {"96": {}}})
    finish(tmp_path / "no metrics")
    (tmp_path / "no metrics" / "metrics.json").unlink()
    fail(tmp_path / "failed")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    loaded = load_finished([tmp_path, tmp_path / "b"])
    assert [(run.path.name, run.metrics) for run in loaded] == [("b", {"base": {"dimensions": {"96": {}}}})]
    assert "no metrics" in caplog.text and "broken" in caplog.text


def test_json_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "metrics.json"
    save_json(path, {"value": np.float64(0.1), "list": np.arange(2), "nan": float("nan"), 96: tmp_path})
    content = {"value": 0.1, "list": [0, 1], "nan": None, "96": str(tmp_path)}
    assert json.loads(path.read_text()) == content

    class Unprintable:
        def __str__(self):
            raise RuntimeError("no text")

    with pytest.raises(RuntimeError):
        save_json(path, {"value": Unprintable()})
    assert json.loads(path.read_text()) == content
    assert [file.name for file in path.parent.iterdir()] == ["metrics.json"]


def test_runs_of_the_version_before_are_counted_and_left_out_and_refused_where_there_are_no_others(tmp_path, caplog):
    for name in ("old", "older"):
        finish(tmp_path / name, base={"96": {"cosine_ndcg@10": 0.5}})
    with pytest.raises(ConfigError, match="2 runs of a version before, .* evaluate its model again"):
        load_finished([tmp_path])
    finish(tmp_path / "new", base={"directions": {"all": {"ndcg@10": 0.5}}})
    assert [run.path.name for run in load_finished([tmp_path])] == ["new"]
    assert "left out: 2 runs of a version before" in caplog.text and caplog.text.count("left out") == 1


def of_dimensions(values, intervals):
    parts = zip(values.items(), intervals, strict=True)
    found = {str(dim): {"cosine_ndcg@10": value, "cosine_ndcg@10_share_ci95": ends} for (dim, value), ends in parts}
    return {"dimensions": found}


def test_a_smaller_dimension_is_chosen_where_the_interval_of_its_share_lies_above_what_it_is_to_keep():
    values = {96: 0.8, 48: 0.798, 24: 0.799, 12: 0.76}
    measured = of_dimensions(values, [[1, 1], [0.991, 1.001], [0.97, 1.02], [0.91, 0.99]])
    assert smallest_dimension(measured) == 48  # 24 has the higher value, but by luck as it may be
    assert smallest_dimension(measured, least=0.9) == 12
    assert smallest_dimension(measured, least=0.995) == 96


def test_a_model_not_above_chance_and_one_of_a_version_before_keep_all_dimensions():
    unknown = of_dimensions({96: 0.05, 48: 0.06}, [None, None])
    assert smallest_dimension(unknown) == 96
    assert all(math.isnan(share) for share in retention(unknown).values())
    before = {"dimensions": {dim: {"cosine_ndcg@10": 0.4} for dim in ("96", "48")}}
    assert smallest_dimension(before) == 96 and retention(before) == {96: 1.0, 48: 1.0}


def test_provenance_names_versions_revision_and_hardware():
    facts = provenance()
    assert {"python", "torch", "sentence-transformers", "trackio"} <= set(facts["versions"])
    assert facts["hardware"]["cores"] >= 1
    assert facts["git"] is None or len(facts["git"]["revision"]) == 40


@pytest.mark.parametrize(
    ("file", "line", "reruns"),
    [
        *[("training/losses.py", "NEW = 1", True), ("train.py", "NEW = 1", True)],
        *[("training/losses.py", "# a comment", False), ("reports/tables.py", "NEW = 1", False)],
        *[("cli.py", "NEW = 1", False), ("runs/tracking.py", "NEW = 1", False)],
    ],
)
def test_a_sweep_is_run_again_only_where_code_that_computes_has_changed(changed_package, file, line, reruns):
    before, after = (code_hash(*COMPUTES, package=package) for package in changed_package(file, line))
    assert (before != after) is reruns


def test_docstrings_do_not_count_as_code(tmp_path):
    hashes = set()
    for number, text in enumerate(("one", "another")):
        (tmp_path / str(number)).mkdir()
        code = f'"""{text}"""\n\n\ndef f():  # {text}\n    """{text}"""\n    return 1\n'
        (tmp_path / str(number) / "code.py").write_text(code)
        hashes.add(code_hash("code.py", package=tmp_path / str(number)))
    assert len(hashes) == 1


def test_runs_imports_no_torch():
    code = "import sys, experiments.runs.record, experiments.runs.run; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_divided_gpu_is_handed_out_by_its_mig_instances(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{nvidia_host.install(tmp_path)}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == [nvidia_host.WHOLE, *nvidia_host.INSTANCES]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(nvidia_host.INSTANCES))
    assert visible_gpus() == nvidia_host.INSTANCES
