import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from omegaconf import OmegaConf

from experiments import cli, plan
from experiments.config.options import CONF
from experiments.runs.estimate import estimate, past_runs
from experiments.runs.files import load_json, save_json
from experiments.runs.identity import job_identity
from experiments.runs.record import keep_record

ROWS = ["data.num_train_rows=100", "trainer.num_train_epochs=2", "trainer.eval_strategy=epoch"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_plan(monkeypatch, *overrides):
    monkeypatch.setattr(sys, "argv", ["plan", *overrides])
    return plan.main()


def config_of(*overrides):
    _, (job,) = plan.compose(overrides)
    return job.config


def write_past_run(folder, config, *, train_s, eval_s, rest_s, energy="measured"):
    """Write a finished run that took `rest_s` beside its steps and its two evaluations in between, base and final."""
    start = "2026-01-01T10:00:00+00:00"
    history = [{"step": 1, "eval_runtime": eval_s}, {"step": 2, "eval_runtime": eval_s}]
    history.append({"step": 2, "train_runtime": train_s + 2 * eval_s})
    seconds = train_s + 4 * eval_s + rest_s
    measured = {"energy_kwh": seconds * 1e-5, "emissions_kg": seconds * 1e-6, "duration_s": seconds}
    measured |= {"country": "USA", "method": energy}
    with keep_record(folder, config):
        metrics = {"training": {"steps": 2, "history": history}, "energy": measured if energy else None}
        save_json(folder / "metrics.json", metrics)
    record = load_json(folder / "run.json")
    end = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(1767261600 + seconds))
    record |= {"start": start, "end": end}
    record["attempts"][0] |= {"start": start, "end": end}
    save_json(folder / "run.json", record)


def test_jobs_are_those_that_hydra_composes():
    overrides = ["matryoshka=none,default", "loss=mnrl", "model.max_pixels=4096,8192", "+trainer.adam_beta1=0.8"]
    overrides += ["~data.page_size", "tracking=none"]
    master, jobs = plan.compose(overrides)
    loader = ConfigLoaderImpl(create_config_search_path(str(CONF)))
    assert [job.point for job in jobs] == [
        {"matryoshka": matryoshka, "model.max_pixels": pixels}
        for matryoshka in ("none", "default")
        for pixels in ("4096", "8192")
    ]
    for job in jobs:
        config = loader.load_sweep_config(master, job.overrides)
        assert job.config == cli.resolve(OmegaConf.masked_copy(config, [key for key in config if key != "hydra"]))


def test_24_jobs_are_planned_within_3_seconds_and_without_torch(here):
    overrides = ["loss.mini_batch_size=1,4,16", "model.max_pixels=4096,16384", "matryoshka=none,tiny", "seed=1,2"]
    code = (
        f"import sys, time; sys.argv[1:] = {overrides}; from experiments import plan; assert plan.main() == 0; "
        "sys.stderr.write(str(time.process_time())); sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "24 to run" in done.stdout
    assert float(done.stderr) < 3


def test_refused_and_equal_jobs_are_named_and_the_exit_code_is_2(here, monkeypatch, capsys):
    assert run_plan(monkeypatch, "-m", "loss.mini_batch_size=0,4,4", "seed=7") == 2
    printed = capsys.readouterr().out
    assert "job 0 refused: loss.mini_batch_size=0: must be at least 1" in printed
    assert "same as job 1" in printed
    assert "Jobs:   3: 1 refused, 1 to run, 1 the same as another" in printed
    assert "Start:" not in printed
    assert run_plan(monkeypatch, "model=saved,qwen3vl_tiny") == 2
    assert "job 0 refused: model.name is missing" in capsys.readouterr().out
    with keep_record(here / "run", {}):  # and leave no model
        pass
    assert run_plan(monkeypatch, "model=saved", "model.name=run") == 2
    assert "job 0 refused: model.name=run: there is no model of this run" in capsys.readouterr().out


def test_the_gpu_here_is_not_that_of_jobs_elsewhere_and_wrong_values_are_not_counted(here, monkeypatch, capsys):
    driver = here / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho Tesla T4, 15360\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(here), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    recipe = ["model=qwen3vl_2b", "data=vdr_en"]
    assert run_plan(monkeypatch, *recipe, "hydra/launcher=slurm") == 0
    assert "A100-80GB (80 GB): fits" in capsys.readouterr().out
    assert run_plan(monkeypatch, *recipe) == 2
    assert "Tesla T4 has 15.0 GiB" in capsys.readouterr().out
    assert run_plan(monkeypatch, *recipe, "trainer.per_device_train_batch_size=eight") == 2
    assert "expected an integer" in capsys.readouterr().out


def test_a_mini_batch_that_no_memory_bounds_is_refused_but_where_the_job_may_find_a_bound(here, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert run_plan(monkeypatch, "loss.mini_batch_size=auto,4") == 2
    assert "job 0 refused: loss.mini_batch_size=auto: there is no GPU" in capsys.readouterr().out
    assert run_plan(monkeypatch, "loss.mini_batch_size=auto", "loss.memory_limit=4GiB") == 0
    assert run_plan(monkeypatch, "loss.mini_batch_size=auto", "hydra.launcher.memory_limit=4GiB") == 0
    slurm = "hydra.launcher._target_=hydra_plugins.experiments_launcher.slurm.SubmititLauncher"
    _, (job,) = plan.compose(["loss.mini_batch_size=auto", slurm])
    assert job.status == "to run"


def test_done_jobs_of_the_same_sweep_are_found_by_their_identities(here, monkeypatch, capsys):
    _, jobs = plan.compose(["seed=1,2"])
    sweep = here / "multirun" / "day" / "time"
    entries = [
        {"number": job.number, "dir": str(job.number), "identity": job_identity(job.config), "batch": 0}
        | {"status": "finished" if job.number == 0 else "killed"}
        for job in jobs
    ]
    with keep_record(sweep / "0", jobs[0].config):
        pass
    state = {"start": "2026", "status": "ended", "memory_limit": None, "jobs": entries}
    save_json(sweep / "summary.json", state)
    assert run_plan(monkeypatch, "seed=2,1") == 0
    printed = capsys.readouterr().out
    assert [line.split("|")[3].strip() for line in printed.splitlines()[2:4]] == ["to run", "done"]
    assert "goes on with multirun/day/time" in printed
    assert "Start:  python -m experiments.train -m seed=2,1" in printed
    for option in ("hydra.launcher.memory_limit=6GiB", "hydra.launcher.repeat=true", "hydra/launcher=basic"):
        assert run_plan(monkeypatch, "seed=1,2", option) == 0
        assert "2 to run" in (printed := capsys.readouterr().out) and "Sweep:" not in printed


@pytest.mark.parametrize(
    "line, start",
    [
        (["seed=1"], "seed=1"),
        (["-m", "seed=1"], "-m seed=1"),
        (["seed=1,2"], "-m seed=1,2"),
        (["seed=1", "hydra.launcher.memory_limit=6GiB"], "-m seed=1 hydra.launcher.memory_limit=6GiB"),
    ],
)
def test_a_line_of_one_run_starts_as_one_run(here, monkeypatch, capsys, line, start):
    assert run_plan(monkeypatch, *line) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Start:  python -m experiments.train {start}"


def test_a_twin_with_another_seed_costs_what_it_cost(here):
    write_past_run(here / "outputs" / "0", config_of(*ROWS, "model=siglip_tiny"), train_s=100, eval_s=5, rest_s=30)
    found = estimate(config_of(*ROWS, "model=siglip_tiny", "seed=5"), past_runs([Path("outputs")]))
    assert found.seconds == pytest.approx(150) and not found.unlike


def test_same_settings_with_another_seed_take_the_mean_of_the_past_runs(here):
    for number, train_s in enumerate((90, 110)):
        config = config_of(*ROWS, f"seed={number}")
        write_past_run(here / "outputs" / str(number), config, train_s=train_s, eval_s=5, rest_s=30)
    write_past_run(here / "outputs" / "other", config_of("seed=9"), train_s=999, eval_s=9, rest_s=9)
    found = estimate(config_of(*ROWS, "seed=5"), past_runs([Path("outputs")]))
    assert found.seconds == pytest.approx(150) and found.energy_kwh == pytest.approx(150e-5)
    assert found.basis == "2 past runs ±7%" and not found.unlike


@pytest.mark.parametrize(
    "override, seconds",
    [
        ("trainer.num_train_epochs=4", 30 + 200 + 6 * 5),
        ("data.num_train_rows=50", 30 + 50 + 4 * 5),
        ("data.num_negatives=3", 30 + 200 + 4 * 5),
        ("data.num_eval_rows=50", 30 + 100 + 4 * 2.5),
        ("model.max_pixels=4096", 30 + 25 + 4 * 1.25),
        ("trainer.eval_strategy=no", 30 + 100 + 2 * 5),
        ("+trainer.max_steps=8", 30 + 100 * 8 * 64 / 200 + 4 * 5),
        ("loss.scale=10", 30 + 100 + 4 * 5),
        ("loss.mini_batch_size=4", 30 + 100 + 4 * 5),
    ],
)
def test_steps_and_evaluations_of_a_past_run_are_scaled_each_by_its_work(here, override, seconds):
    write_past_run(here / "outputs" / "0", config_of(*ROWS), train_s=100, eval_s=5, rest_s=30)
    found = estimate(config_of(*ROWS, override), past_runs([Path("outputs")]))
    assert found.seconds == pytest.approx(seconds)
    assert found.unlike == (("loss.mini_batch_size",) if override == "loss.mini_batch_size=4" else ())


def test_runs_of_a_sweep_count_their_whole_process(here):
    write_past_run(here / "multirun" / "s" / "0", config_of(*ROWS), train_s=100, eval_s=5, rest_s=30)
    save_json(here / "multirun" / "s" / "summary.json", {"jobs": [{"dir": "0", "wall_s": 170.5}]})
    assert estimate(config_of(*ROWS), past_runs([Path("multirun")])).seconds == pytest.approx(170.5)


def test_energy_without_a_part_of_the_machine_is_no_estimate(here):
    write_past_run(here / "0", config_of(), train_s=100, eval_s=5, rest_s=30, energy="measured without the gpu")
    assert estimate(config_of(), past_runs([here])).energy_kwh is None


def test_what_has_no_past_run_is_said_to_be_unknown(here, monkeypatch, capsys):
    write_past_run(here / "outputs" / "0", config_of(), train_s=100, eval_s=5, rest_s=30, energy=None)
    assert run_plan(monkeypatch, "data=report_pages,vdr_en", "hydra.launcher.n_jobs=2") == 0
    printed = capsys.readouterr().out
    assert "no past run" in printed and "of 1 more without a past run unknown" in printed
    assert "Energy" not in printed
    assert estimate(json.loads(json.dumps(config_of("data=vdr_en"))), past_runs([Path("outputs")])) is None


def test_mistakes_are_one_line_and_exit_2(here, monkeypatch, capsys):
    for overrides, said in (
        (["lr=1,2"], "trainer.learning_rate"),
        (["model=qwen"], "qwen3vl_tiny"),
        (["seed"], "key=value"),
        (["--nope"], "unrecognized arguments: --nope"),
        (["--gpuu=24GB"], "unrecognized arguments: --gpuu=24GB; did you mean --gpu?"),
        (["hydra/sweeper=optuna", "seed=1,2"], "hydra/sweeper=optuna"),
        (["hydra.launcher.memory_limit=much"], "hydra.launcher.memory_limit=much"),
    ):
        assert run_plan(monkeypatch, *overrides) == 2
        output = capsys.readouterr()
        assert output.err.count("\n") == 1 and said in output.err and not output.out


def test_sweep_is_planned_all_jobs_at_once_on_slurm_and_one_by_one_in_hydras_own_process(here, monkeypatch, capsys):
    write_past_run(here / "outputs" / "0", config_of(), train_s=100, eval_s=5, rest_s=30)
    assert run_plan(monkeypatch, "hydra/launcher=basic", "seed=1,2") == 0
    assert "Time:   about" in (printed := capsys.readouterr().out) and "at once" not in printed
    assert run_plan(monkeypatch, "hydra/launcher=slurm", "seed=1,2") == 0
    printed = capsys.readouterr().out
    assert "Jobs:   2: 2 to run" in printed and "2 jobs at once" in printed
    assert "Start:  python -m experiments.train -m hydra/launcher=slurm seed=1,2" in printed


def test_what_the_recipe_takes_of_a_gpu_is_planned_without_weights(here, monkeypatch, capsys):
    line = ["model=qwen3vl_2b", "data=vdr_en"]
    assert run_plan(monkeypatch, *line, "--gpu", "24GB") == 0
    page = capsys.readouterr().out
    assert "GiB of a GPU, at the most; counted, not measured" in page
    assert "GPU:    24 GB: fits, in mini-batches of 512 tokens, which are chosen there" in page
    assert page.endswith("Start:  python -m experiments.train model=qwen3vl_2b data=vdr_en\n")
    assert run_plan(monkeypatch, *line, "model.dtype=float32", "--gpu=24GB") == 2
    assert "24 GB has 22.5 GiB: type model.dtype=bfloat16 loss.mini_batch_num_tokens=512" in capsys.readouterr().out
    assert run_plan(monkeypatch, *line) == 0
    page = capsys.readouterr().out
    assert all(f"GPU:    {card}" in page for card in ("RTX 4090 (24 GB)", "L40S (48 GB)", "A100-80GB (80 GB)"))
    assert run_plan(monkeypatch, "--gpu") == 2
    assert capsys.readouterr().err.startswith("error: --gpu=: type a size such as 24GB")
    assert run_plan(monkeypatch, "model=qwen3vl_tiny") == 0
    assert "Memory:" not in capsys.readouterr().out  # a twin fits anywhere


def test_a_tiny_model_that_would_meet_own_data_is_a_warning_with_what_to_type_for_the_gpu(here, monkeypatch, capsys):
    (here / "rows.csv").write_text("query,page\n" + "".join(f"question {row},answer {row}\n" for row in range(8)))
    line = ["data=table", "data.train=rows.csv", "data.num_eval_rows=2", "seed=1,2", "--gpu=24GB"]
    assert run_plan(monkeypatch, *line) == 0
    said = capsys.readouterr().out
    assert said.count("Warning: model=qwen3vl_tiny is a tiny model") == 1
    assert "\n  model=qwen3vl_2b  for the GPU of this machine\n" in said
