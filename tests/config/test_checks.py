"""Each mistake is one clear line, before anything heavy is imported."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from transformers.training_args import OptimizerNames

from experiments import compare, report
from experiments.config.checks import check, check_writable
from experiments.config.errors import ConfigError
from experiments.config.fits import check as check_fit
from experiments.config.hints import nearest

RERANKER = "experiment=reranker_any_to_any_tiny"


def refused(config):
    """Return the one line that a config is refused with."""
    with pytest.raises(ConfigError) as caught:
        check(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def run(*arguments, cwd, **environment):
    """Run a real command line and return what it said and its exit code."""
    return subprocess.run(
        [sys.executable, "-m", "experiments.train", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["loss=3"], "loss=3 is unknown: loss is one of bce, cached_mnrl"),
        (["model=qwen3vl_tny"], "did you mean model=qwen3vl_tiny?"),
        (["modle=saved"], "modle is unknown; did you mean model?"),
        (["sampling=3"], "sampling is unknown; known: seed, run_name, cache_dir, loss"),
        (["mini_batch_size=4"], "type python -m experiments.train loss.mini_batch_size=4"),
        (["trainer.gradient_accumulation_steps=2"], "type +trainer.gradient_accumulation_steps=2"),
        (
            ["loss.mini_batch_size=eight"],
            "mini_batch_size=eight: expected an integer (int | Literal['auto'] | None)",
        ),
        (["loss.mini_batch_size=1,4"], "add -m to run each"),
        (["-m", "loss.mini_batch_size=0,-4"], "loss.mini_batch_size=-4: must be at least 1"),
        (["matryoshka=null"], "matryoshka is one of default, none, tiny"),
        (["model=saved"], "model.name is missing: type model.name=..."),
        (["seed=${nowhere}"], "seed: Interpolation key 'nowhere' not found"),
        (["loss"], "loss: not of the form key=value"),
        (["data=table", "data.train=a=b.csv"], "train data=table 'data.train=\"a=b.csv\"'"),
        (["data=table", "data.train=Übersicht.csv"], "data.train=Übersicht.csv: there is no such file"),
        (["data=table", "data.train=My", "s.csv"], "train data=table 'data.train=My s.csv'"),
        (["+trainer.report_to=wandb"], "type tracking=trackio or tracking=none"),
        (["+trainer.output_dir=out"], "it changes nothing; type hydra.run.dir=out"),
        (["trainer.learning_rate=1,0e-4"], "decimals come after a point; type trainer.learning_rate=1.0e-4"),
        (["--config-name=my.yaml"], "--config-name my.yaml: there is no such config; leave it out"),
        (["model=qwen3vl"], "did you mean model=qwen3vl_2b?"),
        (["experiment=none"], "experiment=none is unknown: experiment is one of article"),
        (["experiment=null", "sede=3"], "sede is unknown; did you mean seed?"),
        (["--nope"], "unrecognized arguments: --nope; known: --help, --hydra-help"),
        (["-m", "--mutirun"], "unrecognized arguments: --mutirun; did you mean --multirun?"),
        (["seed=1,2", "-m", "loss=mnrl"], "arguments: loss=mnrl; type all settings on one side of the flags"),
        (["--config-dir=nowhere"], "--config-dir nowhere: there is no such folder"),
        (["tracking=none", "tracking.dir=here"], "tracking.dir is unknown; known: none"),
        (["tracking.dir=/proc/nowhere"], "set tracking.dir to a folder that can"),
        (["hydra.run.dir=/proc/nowhere"], "set hydra.run.dir"),
        ([RERANKER, "evaluator.num_candidates=101"], "a retriever finds 100; type evaluator.num_candidates=100"),
        ([RERANKER, "matryoshka.truncate_dim=auto"], "type matryoshka.truncate_dim=null"),
        ([RERANKER, "+model.card.licence=mit"], "did you mean model.card.license?"),
        (
            ["experiment=router_tiny", "model.freeze=[txt.0]"],
            "model.freeze: txt.0 is in no encoder; did you mean text?",
        ),
    ],
)
def test_command_line_is_refused_in_one_line_with_exit_code_2(arguments, says, tmp_path):
    result = run(*arguments, cwd=tmp_path)
    assert says in result.stderr
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert not [*tmp_path.glob("outputs/2*")], "a mistake leaves no run behind"


def test_help_names_groups_options_and_examples(tmp_path):
    result = run("--help", cwd=tmp_path)
    assert result.returncode == 0
    assert "  loss: bce, cached_mnrl, library, mnrl" in result.stdout
    assert "python -m experiments.train model=qwen3vl_2b data=vdr_en" in result.stdout


def test_finished_run_is_never_overwritten(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"status": "finished", "attempts": []}))
    result = run(f"hydra.run.dir={tmp_path}", cwd=tmp_path)
    assert (result.returncode, os.listdir(tmp_path)) == (2, ["run.json"])
    assert "type another folder" in result.stderr


def test_failure_is_one_line_and_its_traceback_is_in_the_log(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from experiments.cli import launch\n"
        "def task(config, output_dir, *, name, choices):\n"
        "    raise RuntimeError('no\\nmemory')\n"
        "launch(task)\n"
    )
    result = subprocess.run([sys.executable, program], cwd=tmp_path, capture_output=True, text=True)
    (log,) = tmp_path.glob("outputs/*/*/program.log")
    assert result.returncode == 1
    assert result.stderr == f"error: RuntimeError: no memory (log with the traceback: {log.relative_to(tmp_path)})\n"
    assert 'raise RuntimeError("no' not in result.stdout
    assert "Traceback (most recent call last)" in log.read_text()


def test_task_gets_plain_config_its_directory_a_readable_name_and_the_choices(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from experiments.cli import launch\n"
        "def task(config, output_dir, *, name, choices):\n"
        "    told = [type(config['data']).__name__, name[:-12], choices['trainer']]\n"
        "    (output_dir / 'told').write_text(str(told))\n"
        "launch(task)\n"
    )
    arguments = [program, "loss.mini_batch_size=4", "matryoshka=none", "hydra.run.dir=here"]
    result = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True)
    name = "qwen3vl_tiny-report_pages-mini_batch_size=4-none"
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "here" / "told").read_text() == str(["dict", name, "tiny"])


def test_checks_import_nothing_heavy():
    code = (
        "import sys, experiments.cli, experiments.config.checks;"
        "print(sorted({'torch', 'transformers', 'sentence_transformers', 'datasets', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["+loss.mini_batch_sise=4"], "did you mean loss.mini_batch_size?"),
        (["+mini_batch_size=4"], "did you mean loss.mini_batch_size?"),
        (["+epochs=4"], "did you mean trainer.num_train_epochs?"),
        (["~model.seed", "+model.sed=1"], "did you mean model.seed?"),
        (["loss._target_=experiments.training.losses.Nothing"], "experiments.training.losses has no Nothing"),
        (["loss=library", "loss._target_=torch.nn.modules.loss.CrossEntropyLoss"], "takes no model, so it is no loss"),
        (["loss._target_=3"], "loss is a group"),
        (["seed=x"], "seed=x: expected an integer"),
        (["loss.mini_batch_size=2.5"], "expected an integer"),
        (["trainer.learning_rate=fast"], "expected a number"),
        (["trainer.eval_loss=1"], "expected true or false"),
        (["data.cache_dir=3"], "type e.g. data.cache_dir=\"'3'\""),
        (["matryoshka.matryoshka_dims=64"], "expected integers (Sequence[int] | None); type e.g."),
        (["loss.mini_batch_size=-1"], "at least 1"),
        (["loss.mini_batch_num_tokens=0"], "at least 1"),
        (["loss.mini_batch_size=auto", "loss.memory_limit=lots"], "loss.memory_limit=lots: expected bytes"),
        (["loss.mini_batch_size=auto", "loss.mini_batch_num_tokens=9"], "exclude each other"),
        (["loss.mini_batch_size=1", "loss.mini_batch_num_tokens=9"], "exclude each other"),
        (["trainer.learning_rate=0"], "trainer.learning_rate=0: must be above 0"),
        (["trainer.learning_rate=inf"], "must be above 0"),
        (["trainer.eval_steps=2.5"], "whole"),
        (["trainer.eval_strategy=step"], "choose from no, steps, epoch; did you mean steps?"),
        (["evaluator.num_bootstrap=0"], "evaluator.num_bootstrap=0: must be at least 1"),
        (["evaluator.precisions=[float32,int4]"], "choose from float32, int8, binary"),
        (["trainer.optim=adamw_torch_fuse"], "trainer.optim=adamw_torch_fuse: did you mean adamw_torch_fused?"),
        (["model.dtype=bf16"], "choose from auto, float32, bfloat16, float16"),
        (["trainer.bf16=maybe"], "choose from auto, true, false"),
        (["model.max_pixels=100"], "below model.min_pixels=784"),
        (["matryoshka.matryoshka_dims=[96,0]"], "0 is no dimension"),
        (["matryoshka.matryoshka_dims=[96,48,96]"], "96 is there twice; type matryoshka.matryoshka_dims=[96,48]"),
        (["matryoshka.matryoshka_dims=[128]"], "128 is above the model's 96 dimensions"),
        (["evaluator.truncate_dims=[128]"], "above the model's 96"),
        (["evaluator.truncate_dims=[0]"], "0 is no dimension"),
        (["matryoshka.truncate_dim=best"], "type a dimension such as 64, auto, or null"),
        (["matryoshka=none", "matryoshka.truncate_dim=128"], "above the model's 96"),
        (["model=saved", "model.name=./nowhere"], "there is no such folder"),
        (["model=saved", "model.name=a/b/c"], "there is no such folder"),
        (["model=saved", f"model.name={Path(__file__).parent}"], "holds no modules.json or config.json"),
        (["model=qwen3vl_2b", "+model.card.licence=mit"], "did you mean model.card.license?"),
        (["data=table", "data.train=x.csv", "~data.name"], "data.name is missing: type +data.name=…"),
        (["data=table", "data.train=x.csv", "data.columns=3"], "data.columns=3: expected a mapping"),
        (["data.num_train_rows=2000000"], "must be at most 1000000"),
        (["data=table", "data.train=nowhere.csv"], "data.train=nowhere.csv: there is no such file"),
        (["data=hub", "data.path=./nowhere"], "there is no such folder"),
        (["data=vdr_en", "data.num_negatives=5"], "data.columns.negatives names 4"),
        (["data=vdr_en", "+data.columns.negative=[a]"], "did you mean data.columns.negatives?"),
        (["data=vdr_en", "data.on_bad_image=ignore"], "choose from error, skip"),
        (["data=vdr_multilingual", "data.language=pt"], "vdr-multilingual-train has en, es, it, de, fr"),
        (["data=vdr_multilingual_tiny", "data.language=pt"], "vdr_multilingual_tiny has en, es, it, de, fr"),
        (["model=router_tiny", "model.encoders.image.dtype=half"], "dtype=half: choose from auto, float32"),
        (["model=reranker_any_to_any"], "all that fits with experiment=reranker_any_to_any"),
        (["model=reranker_any_to_any_tiny", "loss=bce"], "all that fits with experiment=reranker_any_to_any_tiny"),
        (["model=reranker_features", "data=doodles"], "all that fits with experiment=reranker_features"),
        (["model=reranker", "model.name=owner/model"], "all that fits with experiment=reranker"),
        (["tracking.country_iso_code=de"], "three capital letters"),
        (["trainer.resume=nowhere"], "no run's directory"),
    ],
)
def test_config_is_refused(composed, overrides, says):
    assert says in refused(composed(*overrides))


def test_loss_of_another_kind_of_model_is_refused(composed):
    loss = {"_target_": "sentence_transformers.cross_encoder.losses.BinaryCrossEntropyLoss", "_partial_": True}
    reranker = {"_target_": "experiments.models.rerankers.load_reranker", "name": "owner/name"}
    config = composed()
    assert "another kind of model (reranker, the model is embedding)" in refused(config | {"loss": loss})
    assert "another kind of model (embedding, the model is reranker)" in refused(config | {"model": reranker})


@pytest.mark.skipif(find_spec("flash_attn") is not None, reason="flash attention is installed")
def test_flash_attention_by_name_says_what_to_install(composed):
    assert "pip install -e '.[flash-attn]'" in refused(composed("model.attn_implementation=flash_attention_2"))


def test_group_that_is_a_scalar_is_refused():
    with pytest.raises(ConfigError, match="trainer=3: trainer is a group"):
        check({"trainer": 3})
    with pytest.raises(ConfigError, match="model is missing"):
        check({"seed": 1})


def test_default_dimensions_above_the_models_own_are_no_mistake(composed):
    check(composed("matryoshka=default"))


def test_unwritable_folder_names_the_key_to_set(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="set tracking.dir to a folder that can"):
        check_writable(tmp_path / "file" / "folder", "tracking.dir")
    check_writable(tmp_path / "new", "tracking.dir")
    assert [*(tmp_path / "new").iterdir()] == []


def test_nearest_key_is_the_one_with_the_same_last_part_then_the_same_group():
    keys = ["loss.mini_batch_size", "evaluator.batch_size", "model.seed", "seed", "trainer.learning_rate"]
    assert nearest("mini_batch_size", keys) == ["loss.mini_batch_size"]
    assert nearest("los.mini_batch_sise", keys) == ["loss.mini_batch_size"]
    assert nearest("seeed", keys) == ["seed"]
    assert nearest("model.seeed", keys) == ["model.seed"]
    assert nearest("trainer.lr", keys) == ["trainer.learning_rate"]
    assert nearest("optim", keys) == []


def test_optimizers_are_those_of_transformers(composed):
    config = composed()
    for name in OptimizerNames:
        config["trainer"]["optim"] = name.value
        check_fit(config)


@pytest.mark.parametrize(
    ("main", "typed", "message"),
    [
        (report.main, ["--publishd"], "unrecognized arguments: --publishd; did you mean --published?"),
        (compare.main, [], "the following arguments are required: RUN; --help says more"),
        (compare.main, ["RUN", "--uot", "x.md"], "unrecognized arguments: --uot"),
    ],
)
def test_mistaken_flags_of_reports_are_one_line(main, typed, message, capsys):
    assert main(typed) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"error: {message}") and err.count("\n") == 1
