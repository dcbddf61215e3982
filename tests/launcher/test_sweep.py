"""Sweeps as real processes: what sweep_task.py does depends on the seed, and is over at once."""

import csv
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from experiments.config.errors import ConfigError
from experiments.config.values import parse_bytes
from experiments.runs import identity, memory
from experiments.runs.identity import job_identity
from experiments.runs.process import process_start
from experiments.runs.skipped_jobs import is_dominated

TESTS = Path(__file__).parent
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{TESTS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
STATUS = {0: "finished", 1: "failed", 2: "exited", 3: "exited", 4: "killed", 5: "exited", 6: "failed", 7: "finished"}


def start(folder, *overrides, module="sweep_task"):
    command = [sys.executable, "-m", module, "-m", *overrides]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True, preexec_fn=_as_in_the_foreground
    )


def _as_in_the_foreground():
    """Take Ctrl-C, which processes that a script starts in the background ignore from birth."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def sweep(folder, *overrides, module="sweep_task"):
    """Run a sweep and return its exit code, output, errors."""
    process = start(folder, *overrides, module=module)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def summaries(folder):
    return sorted((folder / "multirun").rglob("summary.json"))


def jobs(folder):
    (path,) = summaries(folder)
    return json.loads(path.read_text())["jobs"]


def starts(folder):
    """Return how often each job of the only sweep was started."""
    (path,) = summaries(folder)
    return {int(file.parent.name): len(file.read_text().split()) for file in path.parent.glob("*/starts")}


def processes(folder):
    """Return the children of sweeps in a folder that are still there."""
    return [pid for file in folder.rglob("starts") for pid in file.read_text().split() if process_start(int(pid))]


def _holds(condition):
    with suppress(FileNotFoundError):  # a folder that the sweep renames while it is looked into
        return condition()


def wait_for(condition, process):
    deadline = time.monotonic() + 60
    while not _holds(condition):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """A sweep in which most jobs fail, each in its own way, and job 8 is job 0 again."""
    folder = tmp_path_factory.mktemp("faulty")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENVIRONMENT, "CUDA_VISIBLE_DEVICES", "4,7")
        return folder, *sweep(folder, "seed=0,1,2,3,4,5,6,7,0", "hydra.launcher.n_jobs=3")


def test_each_job_is_recorded_as_what_became_of_it(faulty):
    folder, code, out, _ = faulty
    assert code == 1
    found = jobs(folder)
    assert {job["number"]: job["status"] for job in found} == STATUS | {8: "duplicate"}
    assert found[8]["same_as"] == 0
    assert found[1]["error"] == "RuntimeError: seed 1 raises"
    assert [found[number]["error"] for number in (2, 3, 4, 5, 6)] == [
        "exit code 3 before the run was finished",
        "exit code 5 before the run was finished",
        "SIGKILL",
        "exit code 0 before the run was finished",
        "crashed: SIGSEGV",
    ]
    assert "#4 seed=4: killed" in out and "#0 seed=0: nDCG@10 1.000, " in out
    assert not processes(folder)


def test_the_summary_has_a_row_for_each_job_with_all_that_a_person_asks(faulty):
    folder = faulty[0]
    (path,) = summaries(folder)
    rows = [*csv.DictReader((path.parent / "summary.csv").read_text().splitlines())]
    assert [row["status"] for row in rows] == [*STATUS.values(), "duplicate"]
    assert (rows[7]["seed"], float(rows[7]["value"]), float(rows[7]["interval_high"])) == ("7", 0.125, 1.0)
    assert float(rows[7]["value_dim48"]) == 32 / 1024
    assert int(rows[7]["peak_memory_bytes"]) > 32 * 2**20
    assert rows[1]["rerun"] == "python -m sweep_task seed=1"
    assert "RuntimeError: seed 1 raises" in (path.parent / rows[1]["log"]).read_text()
    page = (path.parent / "summary.md").read_text()
    assert re.search(r"\| seed=7 +\| +0\.125 \[0\.000, 1\.000\] \|.*\| +7 \| +finished \|", page)
    assert "**Highest: seed=" in page.splitlines()[2]
    assert json.loads((path.parent / "7" / "run.json").read_text())["name"] == "seed=7"


def test_the_end_says_how_to_compare_the_jobs(faulty):
    folder, _, out, _ = faulty
    (path,) = summaries(folder)
    assert f"python -m experiments.report {path.parent.relative_to(folder)}\n" in out


def test_each_job_has_a_gpu_and_all_one_group_in_trackio(faulty):
    (path,) = summaries(faulty[0])
    assert {file.read_text() for file in path.parent.glob("*/gpu")} == {"4", "7"}
    frozen = [pickle.loads(file.read_bytes())["config"] for file in (path.parent / ".jobs").glob("*.pickle")]
    assert {config.tracking.group for config in frozen} == {json.loads(path.read_text())["name"]}
    assert {config.run_name for config in frozen} == {f"seed={seed}" for seed in range(8)}


def test_killing_a_sweep_ends_its_jobs_and_the_same_line_goes_on(tmp_path):
    process = start(tmp_path, "seed=0,1500")
    wait_for(lambda: len([*tmp_path.rglob("starts")]) == 2, process)
    process.kill()
    process.communicate()
    time.sleep(0.2)
    assert not processes(tmp_path)
    code, out, err = sweep(tmp_path, "seed=0,1500")
    assert (code, starts(tmp_path)) == (0, {0: 1, 1: 2}), err
    assert [(job["status"], job["reused"]) for job in jobs(tmp_path)] == [("finished", True), ("finished", False)]
    attempts = json.loads((summaries(tmp_path)[0].parent / "1" / "run.json").read_text())["attempts"]
    assert [attempt["status"] for attempt in attempts] == ["killed", "finished"]
    code, out, _ = sweep(tmp_path, "seed=1500,0")
    assert (code, out.count(": reused, nDCG@10"), starts(tmp_path)) == (0, 2, {0: 1, 1: 2})


def test_a_finished_sweep_is_repeated_on_request_in_a_directory_of_its_own(tmp_path):
    options = ("hydra.launcher.repeat=true", "hydra.launcher.on_failure=stop")
    assert [sweep(tmp_path, "seed=1,0", *options)[0] for _ in range(2)] == [1, 1]
    found = [json.loads(path.read_text())["jobs"] for path in summaries(tmp_path)]
    assert [[job["status"] for job in jobs] for jobs in found] == [["failed", "pending"]] * 2


def test_ctrl_c_ends_jobs_cleanly_and_the_same_sweep_twice_at_once_is_refused(tmp_path):
    process = start(tmp_path, "seed=300000,0")
    wait_for(lambda: [*tmp_path.rglob("starts")], process)
    code, _, err = sweep(tmp_path, "seed=300000,0")
    assert (code, len(summaries(tmp_path))) == (2, 1)
    assert "is going on" in err and len(err.splitlines()) == 1
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted; 0 of 2 jobs are done, the same line goes on"
    assert [job["status"] for job in jobs(tmp_path)] == ["interrupted", "pending"]
    page = (summaries(tmp_path)[0].parent / "summary.md").read_text()
    assert "(0/console.log)" in page and "job 1" in page and "1/console.log" not in page  # it never started
    assert json.loads((summaries(tmp_path)[0].parent / "0" / "run.json").read_text())["status"] == "interrupted"
    assert not processes(tmp_path)


def test_submitits_local_executor_records_jobs_as_processes_does(tmp_path, faulty):
    code, out, err = sweep(tmp_path, "seed=0,1,4", "hydra/launcher=slurm_local")
    assert code == 1, out + err
    expected = {job["point"]["seed"]: job for job in jobs(faulty[0])[:8]}
    for job in jobs(tmp_path):
        for key in ("status", "error", "value", "interval"):
            assert job.get(key) == expected[job["point"]["seed"]].get(key)
    assert [job["status"] for job in jobs(tmp_path)] == ["finished", "failed", "killed"]
    assert starts(tmp_path) == {0: 1, 1: 1, 2: 1} and "#1 seed=1: failed" in out


def test_a_job_whose_submission_is_killed_is_noted_and_the_others_go_on(tmp_path):
    process = start(tmp_path, "seed=300000,3000", "hydra/launcher=slurm_local")
    wait_for(lambda: len([*tmp_path.rglob("starts")]) == 2, process)
    pid = next(path for path in tmp_path.rglob("starts") if path.parent.name == "0").read_text().strip()
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)  # as scancel does
    process.communicate(timeout=60)
    assert [(job["status"], job["error"]) for job in jobs(tmp_path)] == [
        ("killed", "its process left no word"),
        ("finished", None),
    ]
    assert process.returncode == 1 and not processes(tmp_path)


def test_ctrl_c_leaves_nothing_running_of_submitits_local_executor(tmp_path):
    process = start(tmp_path, "seed=300000", "hydra/launcher=slurm_local")
    wait_for(lambda: [*tmp_path.rglob("starts")], process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)  # until nobody has its output open
    assert process.returncode == 130
    assert not processes(tmp_path)
    assert [job["status"] for job in jobs(tmp_path)] == ["interrupted"]


def test_a_mistake_is_refused_before_it_runs(tmp_path):
    code, _, err = sweep(tmp_path, "trainer.learning_rate=-1,0")
    assert (code, len(err.splitlines()), summaries(tmp_path)) == (2, 1, [])


def test_a_mistake_in_one_job_is_refused_before_any_job_runs(tmp_path, monkeypatch):
    monkeypatch.setitem(ENVIRONMENT, "CUDA_VISIBLE_DEVICES", "")
    code, _, err = sweep(tmp_path, "seed=0", "loss.mini_batch_size=1,four,auto", "model=qwen3vl_tiny,saved")
    assert (code, [*tmp_path.iterdir()]) == (2, [])
    assert err.startswith("error: model.name is missing: type model.name=...; loss.mini_batch_size=four: expected an")
    assert "; loss.mini_batch_size=auto: there is no GPU whose memory would bound it" in err
    assert err.endswith(" (job 1, 2, 3, 4, 5; of 6 jobs none was run)\n") and err.count("\n") == 1


def test_a_failure_stops_the_later_batches_too(tmp_path):
    options = ("hydra.launcher.on_failure=stop", "hydra.sweeper.max_batch_size=1")
    code, out, err = sweep(tmp_path, "seed=0,1,7", *options)
    assert [job["status"] for job in jobs(tmp_path)] == ["finished", "failed", "pending"], out + err
    assert code == 1 and starts(tmp_path) == {0: 1, 1: 1}


def test_a_sweeps_directory_that_is_typed_is_that_one_or_a_refusal(tmp_path):
    typed, notes = "hydra.sweep.dir=mine/here", tmp_path / "mine" / "notes" / "a.txt"
    assert sweep(tmp_path, "seed=0", typed)[0] == 0
    summary = (tmp_path / "mine" / "here" / "summary.json").read_text()
    assert json.loads(summary)["jobs"][0]["status"] == "finished" and not (tmp_path / "multirun").exists()
    code, out, _ = sweep(tmp_path, "seed=0", typed)
    assert (code, "reused" in out) == (0, True)
    notes.parent.mkdir()
    notes.write_text("mine")
    for line in (["seed=7", typed], ["seed=0", typed, "hydra.launcher.repeat=true"], ["seed=0", f"{typed}/../notes"]):
        code, _, err = sweep(tmp_path, *line)
        assert (code, len(err.splitlines())) == (2, 1) and "type another" in err
    jobs = json.loads((tmp_path / "mine" / "here" / "summary.json").read_text())["jobs"]
    assert [(job["point"], job["reused"]) for job in jobs] == [({}, True)]
    assert [*notes.parent.iterdir()] == [notes]


def test_running_out_of_memory_is_a_value_and_larger_points_are_skipped(tmp_path):
    code, out, _ = sweep(tmp_path, "evaluator.batch_size=4096,2048", "hydra.launcher.memory_limit=1GiB")
    small, large = jobs(tmp_path)[::-1]
    assert (small["status"], large["status"], large["dominated_by"]) == ("OOM", "skipped", small["number"])
    assert 0 < small["peak_memory_bytes"] < 2 * 2**30
    assert code == 1
    assert "hydra.launcher.memory_limit=1GiB" in small["rerun"]


def test_two_trainings_leave_two_models_and_the_table_has_their_metrics(tmp_path):
    small = ["data.num_train_rows=32", "data.num_eval_rows=10", "trainer.num_train_epochs=1", "tracking=none"]
    small += ["trainer.per_device_train_batch_size=16", "trainer.eval_strategy=no", "evaluator.num_bootstrap=20"]
    code, out, err = sweep(tmp_path, "loss.mini_batch_size=4,8", *small, module="experiments.train")
    assert code == 0, out + err
    for job in jobs(tmp_path):
        folder = summaries(tmp_path)[0].parent / job["dir"]
        metrics = json.loads((folder / "metrics.json").read_text())
        assert job["value"] == metrics["final"]["dimensions"]["96"]["cosine_ndcg@10"]
        assert list(job["dimensions"]) == ["96", "48", "24", "12"]
        assert (folder / "final" / "modules.json").exists()
        assert not (folder / "outputs").exists()  # paths are those of the directory the sweep was started in


CONFIG = {
    **{"seed": 1, "run_name": None, "tracking": {"dir": "a"}, "model": {"max_pixels": 4096}},
    **{"loss": {"mini_batch_size": 4}, "data": {"cache_dir": "a"}, "evaluator": {"num_workers": 2}},
}


def test_identity_is_that_of_the_result(tmp_path):
    same = {"run_name": "x", "tracking": {"dir": "b"}, "data": {"cache_dir": "b"}, "evaluator": {"num_workers": 0}}
    assert job_identity(CONFIG) == job_identity(CONFIG | same)
    table = tmp_path / "rows.csv"
    table.write_text("query,page\n")
    with_file = CONFIG | {"data": {"train": str(table)}}
    before = job_identity(with_file)
    table.write_text("query,page\nx,y\n")
    identity.stamps_hash.cache_clear()
    others = [job_identity(each) for each in (CONFIG, CONFIG | {"seed": 2}, with_file)]
    assert len({before, *others, job_identity(CONFIG, "evaluate")}) == 5


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"loss": {"mini_batch_size": 8}}, True),
        ({"loss": {"mini_batch_size": 8}, "model": {"max_pixels": 2048}}, False),
        ({"loss": {"mini_batch_size": 8}, "model": {"max_pixels": 8192}}, True),
        ({"loss": {"mini_batch_size": None}}, False),
        ({"loss": {"mini_batch_size": 8}, "seed": 2}, False),
        ({"loss": {"mini_batch_size": 8}, "trainer": {"dataloader_num_workers": 2}}, False),
    ],
)
def test_a_point_is_dominated_where_no_memory_key_is_smaller_and_all_else_is_equal(change, expected):
    assert is_dominated(CONFIG | change, CONFIG) is expected


BUDGET = {"mini_batch_size": None, "mini_batch_num_tokens": None, "default_num_tokens": 2048}


@pytest.mark.parametrize(
    ("loss", "change", "expected"),
    [
        (BUDGET, {"model": {"max_pixels": 8192}}, False),  # fewer pages in a mini-batch
        (BUDGET | {"mini_batch_num_tokens": 1024}, {"model": {"max_pixels": 8192}}, False),
        (BUDGET | {"mini_batch_size": 4}, {"model": {"max_pixels": 8192}}, True),  # it clears the budget
        (BUDGET, {"loss": BUDGET | {"default_num_tokens": 4096}}, True),
        (BUDGET, {"evaluator": {"num_workers": 2, "batch_size": 64}}, True),
        ({"mini_batch_size": "auto"}, {"model": {"max_pixels": 8192}}, False),
        ({"scale": 20.0}, {"model": {"max_pixels": 8192}}, True),  # the whole batch at once
    ],
)
def test_larger_pages_need_more_memory_only_where_the_mini_batch_holds_as_many_of_them(loss, change, expected):
    config = CONFIG | {"loss": loss, "evaluator": {"num_workers": 2, "batch_size": 32}}
    assert is_dominated(config | change, config) is expected


def test_jobs_that_differ_in_workers_alone_both_run_though_one_ran_out_of_memory(tmp_path):
    line = ["trainer.dataloader_num_workers=4,0", "evaluator.batch_size=2048", "hydra.launcher.memory_limit=1GiB"]
    code, out, _ = sweep(tmp_path, *line)
    assert (code, [job["status"] for job in jobs(tmp_path)]) == (1, ["OOM", "OOM"]), out


def test_out_of_memory_is_found_behind_other_errors():
    try:
        try:
            raise MemoryError
        except MemoryError:
            raise RuntimeError("cannot load") from None
    except RuntimeError as error:
        assert memory.is_out_of_memory(error)
    assert memory.is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert not memory.is_out_of_memory(RuntimeError("boom"))


def test_sizes_are_read_as_they_are_written():
    assert [parse_bytes(size) for size in ("6GiB", "1.5 MB", 1024, None)] == [6 * 2**30, 1_500_000, 1024, None]
    with pytest.raises(ConfigError, match="such as 6GiB"):
        parse_bytes("lots")


def test_jobs_may_call_what_was_allowed_for_the_sweep(tmp_path):
    code, _, errors = sweep(tmp_path, "seed=0", "+allow_targets=[sweep_task.task]")
    assert (code, [job["status"] for job in jobs(tmp_path)]) == (0, ["finished"]), errors
