"""A config runs what is in the list, whoever wrote it; it keeps no secret, and no run is scattered over a folder."""

import json
import os
import subprocess
import sys

import pytest
from hydra.core.utils import JobRuntime, setup_globals
from hydra.types import RunMode
from omegaconf import OmegaConf

from experiments import cli, plan, stages
from experiments.config import secrets, targets
from experiments.config.checks import check
from experiments.config.errors import ConfigError
from experiments.runs.run_folder import check_place

TOKEN = "hf_" + "Ab3" * 11
HOSTILE = [
    "data._target_=os.system",
    "data._target_=posix.system",
    "data._target_=builtins.eval",
    "data._target_=subprocess.run",
    "data._target_=shutil.copyfile",
    "data._target_=pandas.read_pickle",
    "data._target_=pickle.load",
    "model._target_=torch.load",
    "model._target_=torch.serialization.load",
    "model._target_=torch.hub.load",
    "model._target_=joblib.load",
    "model._target_=hydra.utils.get_method",
    "model._target_=experiments.cli.os.system",
    "model._target_=experiments.training.trainer.torch.load",
    "model._target_=experiments.models.embedders.load_embedder.__call__",
    "loss._target_=transformers.dynamic_module_utils.get_class_from_dynamic_module",
    "+evaluator.retriever={_target_:os.system,command:x}",
    "+trainer.callbacks=[{_target_:os.system,command:x}]",
    "+hydra.callbacks.mine._target_=os.system",
    "+hydra.job_logging.handlers.mine={class:os.system,command:x}",
    "+hydra.job_logging.handlers.mine={class:logging.StreamHandler,stream:ext://os.system}",
    "hydra.launcher._target_=os.system",
    "+hydra.sweeper.sampler._target_=os.system",
]


@pytest.fixture(autouse=True)
def nothing_is_allowed_afterwards():
    setup_globals()
    JobRuntime.instance().set("name", "train")
    yield
    targets.allow([])


def compose(*overrides, folder=None, mode=RunMode.RUN):
    loader = cli.Loader(cli.search_path(folder and str(folder)))
    return loader.load_configuration("config", [*overrides, f"hydra.mode={mode.name}"], mode)


def refused(*overrides, **more):
    with pytest.raises(ConfigError) as caught:
        compose(*overrides, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("override", HOSTILE)
def test_hostile_target_is_refused_and_not_advised(override):
    before = {*sys.modules}
    said = refused(override)
    assert "is never run from a config" in said and "allow_targets" not in said
    heavy = {"torch", "pandas", "joblib", "transformers", "sentence_transformers", "peft", "submitit"}
    assert not heavy & {each.partition(".")[0] for each in {*sys.modules} - before}, "nothing is imported"


@pytest.mark.parametrize(
    "name", ["os.system", "torch.hub.load", "torch.load", "joblib.load", "hydra.*", "builtins.eval"]
)
def test_what_is_never_run_is_not_allowed_by_hand_either(name):
    with pytest.raises(ConfigError, match="never run"):
        cli.take_allowed([f"+allow_targets=[{name}]"])


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (
            "data._target_=experiments.models.embedders.load_embedder",
            "is for model and loss and evaluator, not for data",
        ),
        ("model._target_=experiments.training.losses.matryoshka", "is for matryoshka, not for model"),
        ("tracking._target_=experiments.data.sources.table.load", "is for data, not for tracking"),
        ("model._target_=experiments.models.push.push", "is not in the list of what a config may run"),
        ("data._target_=experiments.data.sources.table.lood", "experiments.data.sources.table has no lood"),
        ("+train={_target_:torch.nn.Linear}", "is for loss, not for train"),
    ],
)
def test_target_of_another_group_is_refused(override, says):
    assert says in refused(override)


def test_library_classes_that_options_use_may_be_named_as_the_libraries_do(composed):
    losses = "sentence_transformers.sentence_transformer.losses"
    config = composed("loss=library", f"loss._target_={losses}.GISTEmbedLoss")
    config["model"]["peft"] = {"_target_": "peft.LoraConfig"}
    targets.check(config)


def test_own_class_runs_only_where_it_was_typed_never_by_a_file(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("import os\ndef load():\n    return 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    options = tmp_path / "options" / "data"
    options.mkdir(parents=True)
    (options / "mine.yaml").write_text(
        "# @package _global_\nallow_targets: [mine.load]\ndata: {_target_: mine.load}\n"
    )
    assert "type +allow_targets=[mine.load] if that code is yours" in refused("data._target_=mine.load")
    assert "counts only where it is typed" in refused("data=mine", folder=tmp_path / "options")
    with pytest.raises(ConfigError, match="not in the list"):
        stages.build({"_target_": "mine.load"})
    typed = ["data._target_=mine.load", "+allow_targets=[mine.*]"]
    cli.take_allowed(typed)
    assert compose(*typed).data._target_ == "mine.load"
    assert stages.build({"_target_": "mine.load"}) == 3
    assert "never run" in refused("data._target_=mine.os.system")


def test_recipe_of_a_sweep_allows_nothing_and_changes_no_program(tmp_path):
    (tmp_path / "experiment").mkdir()
    recipe = tmp_path / "experiment" / "r.yaml"
    recipe.write_text("# @package _global_\nhydra: {job: {env_set: {PATH: /tmp}}}\n")
    assert "hydra.job.env_set.PATH decides which programs are run" in refused("experiment=r", folder=tmp_path)
    recipe.write_text("# @package _global_\nhydra: {sweeper: {params: {+allow_targets: '[mine.load]'}}}\n")
    _, jobs = plan.compose(["experiment=r", "seed=1,2"], str(tmp_path))
    assert ["counts only where it is typed" in job.error for job in jobs] == [True, True]


def test_real_command_with_a_hostile_pickle_runs_nothing_and_leaves_nothing(tmp_path):
    """The pickle would write a file; callbacks and logging would be called by Hydra before any job."""
    (tmp_path / "x.pkl").write_bytes(b"cposix\nsystem\n(S'touch ran'\ntR.")
    options = tmp_path / "options" / "experiment"
    options.mkdir(parents=True)
    (options / "evil.yaml").write_text(
        "# @package _global_\nallow_targets: [pandas.read_pickle]\n"
        "data: {_target_: pandas.read_pickle, filepath_or_buffer: x.pkl}\n"
        "hydra:\n  callbacks: {mine: {_target_: posix.system, command: touch ran}}\n"
        "  hydra_logging: {formatters: {mine: {(): posix.system, command: touch ran}}}\n"
    )
    line = [sys.executable, "-m", "experiments.train", "--config-dir=options", "experiment=evil"]
    before = {*os.listdir(tmp_path)}
    for flags in ([], ["-m"]):
        result = subprocess.run([*line, *flags], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
        assert {*os.listdir(tmp_path)} == before


SECRETS = [
    f"++trainer.hub_token={TOKEN}",
    "+model.card.api_key=abc",
    "+trainer.hub_password=12345x",
    f"++model.name={TOKEN}",
    "++model.name=https://me:word@host/model",
    "run_name=${oc.env:HF_TOKEN}",
    "+trainer.hub_token=${oc.env:NOWHERE}",
    f"+evaluator.retriever={{name:x,token:{TOKEN}}}",
    "+hydra.job.env_set.OPENAI_API_KEY=sk-proj-0123456789abcdefghij",
]


@pytest.mark.parametrize("override", SECRETS)
def test_secret_is_refused_before_any_of_it_is_said_or_written(override):
    with pytest.raises(secrets.SecretError) as typed:
        secrets.check_typed([override])
    assert override.partition("=")[2] not in str(typed.value) and TOKEN not in str(typed.value)
    with pytest.raises(secrets.SecretError) as composed:  # as it would stand in a file
        compose(override)
    assert override.partition("=")[2] not in str(composed.value) and "HF_TOKEN" in str(composed.value)


def test_secret_of_the_environment_is_known_by_its_form(monkeypatch):
    monkeypatch.setenv("INNOCENT", TOKEN)
    assert "model.revision is a token" in refused(
        "model=saved", "model.name=a/b", "+model.revision=${oc.env:INNOCENT}"
    )


def test_words_that_look_a_little_like_secrets_are_none():
    words = [
        "+model.true_token=yes",
        "loss.mini_batch_num_tokens=512",
        "model.name=outputs/hf_model",
        "~trainer.hub_token",
    ]
    secrets.check_typed(
        [*words, "trainer.hub_token=null", "run_name=task-of-the-day-number-1", "data.path=https://h/x@1"]
    )
    check_config = {"model": {"false_token": "0", "pad_token": "<pad>", "num_tokens": 3}, "seed": 1}
    secrets.check(check_config)


def test_real_command_says_and_leaves_nothing_of_a_secret(tmp_path):
    line = [
        sys.executable,
        "-m",
        "experiments.train",
        f"trainer.hub_token={TOKEN}",
        "loss.mini_batchsize=2",
        "epochs=1",
    ]
    result = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2 and TOKEN not in result.stdout + result.stderr
    assert "hf auth login" in result.stderr and os.listdir(tmp_path) == []


def test_run_is_not_scattered_over_a_folder_that_holds_other_things(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "thesis.tex").touch()
    assert "is empty (a variable that isn't set?)" in refused("hydra.run.dir=")
    assert "holds thesis.tex" in refused("hydra.run.dir=.")
    assert "type another folder, new or empty" in refused("hydra.run.dir=/")
    assert f"type hydra.run.dir={os.environ['HOME']}" in refused("hydra.run.dir='~'")
    assert "is a file" in refused("hydra.run.dir=thesis.tex")
    assert "hydra.sweep.dir=. holds thesis.tex" in refused("hydra.sweep.dir=.", mode=RunMode.MULTIRUN)
    assert "hydra.sweep.dir= is empty" in refused("hydra.sweep.dir=", mode=RunMode.MULTIRUN)
    assert sorted(os.listdir(tmp_path)) == ["thesis.tex"]


def test_new_and_empty_folders_and_a_runs_own_are_taken(tmp_path):
    compose(f"hydra.run.dir={tmp_path}")
    compose(f"hydra.run.dir={tmp_path}/new")
    for name in (".hydra", "train.log"):  # of a run that was killed at once
        (tmp_path / name).touch()
    compose(f"hydra.run.dir={tmp_path}")
    (tmp_path / "metrics.json").touch()
    assert "holds metrics.json" in refused(f"hydra.run.dir={tmp_path}")
    (tmp_path / "run.json").write_text(json.dumps({"status": "failed", "attempts": []}))
    compose(f"hydra.run.dir={tmp_path}")
    with pytest.raises(ConfigError, match="which are no run's"):
        check_place("hydra.sweep.dir", tmp_path, "summary.json")


def test_config_that_was_allowed_is_checked_like_any_other(composed):
    cli.take_allowed(["+allow_targets=[collections_of_mine.load]"])
    config = composed() | {"allow_targets": ["collections_of_mine.load"]}
    check(config)
    assert OmegaConf.create(config)
