"""Installed from a wheel the commands work from any folder, and take options of one's own beside those in conf/."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from experiments.config.options import CONF

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with what the wheel holds, built from a copy: building leaves files behind."""
    folder = tmp_path_factory.mktemp("wheel")
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, folder / "copy" / name, symlinks=True, ignore=unwanted)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / "copy")
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, folder / "copy"]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site-packages")
    return folder / "site-packages"


@pytest.fixture
def own(tmp_path):
    """The user's folder, with a model and a recipe."""
    for group in ("model", "experiment"):
        (tmp_path / "own" / group).mkdir(parents=True)
    (tmp_path / "own" / "model" / "mine.yaml").write_text("defaults: [clip_tiny, _self_]\nembedding_dim: 95\n")
    recipe = "# @package _global_\ndefaults:\n  - override /model: mine\nseed: 3\n"
    (tmp_path / "own" / "experiment" / "try.yaml").write_text(recipe)
    return tmp_path / "own"


def typed(command, *arguments, cwd, path=None):
    return subprocess.run(
        [sys.executable, "-m", f"experiments.{command}", *arguments],
        cwd=cwd,
        env=os.environ | ({"PYTHONPATH": str(path)} if path else {}),
        capture_output=True,
        text=True,
    )


def test_the_wheel_holds_every_option(installed):
    folder = installed / "experiments" / "conf"
    found, expected = ({path.relative_to(root) for path in root.rglob("*.yaml")} for root in (folder, CONF))
    assert found == expected and len(found) > 90
    completion = Path("src", "experiments", "completion.bash")
    assert (installed / "experiments" / completion.name).read_text() == (ROOT / completion).read_text()


def test_the_installed_command_composes_the_same_from_any_folder(installed, tmp_path):
    code = "import experiments, hydra_plugins.experiments_launcher as ours; print(experiments.__file__, ours.__file__)"
    there = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(installed)}}
    files = subprocess.run([sys.executable, "-c", code], **there, capture_output=True, text=True, check=True).stdout
    assert files.count(str(installed)) == 2
    line = ("experiment=reranker_lora_tiny", "--cfg", "job", "--resolve")
    ours, theirs = (typed("train", *line, cwd=tmp_path, path=path) for path in (None, installed))
    assert theirs.returncode == 0 and theirs.stdout == ours.stdout


def test_the_installed_command_takes_options_of_ones_own(installed, own):
    composed = typed("train", "--config-dir=own", "experiment=try", "--cfg", "job", cwd=own.parent, path=installed)
    assert composed.stdout.startswith("seed: 3\n") and "embedding_dim: 95\n" in composed.stdout
    plan = typed("plan", "--config-dir=own", "model=mine,clip_tiny", cwd=own.parent, path=installed)
    assert (plan.returncode, "| 0   |      mine | to run |" in plan.stdout) == (0, True), plan.stderr
    assert "experiments.train -m --config-dir=own model=mine,clip_tiny" in plan.stdout
    assert "mine" in typed("evaluate", "--config-dir=own", "--help", cwd=own.parent, path=installed).stdout


@pytest.mark.parametrize("command", ["train", "plan"])
def test_mistakes_beside_options_of_ones_own_are_one_line(own, command):
    for arguments, says in (
        (["--config-dir=own", "model=min"], "model=min is unknown; did you mean model=mine?"),
        (["--config-dir=own", "model=mine", "sede=3"], "sede is unknown; did you mean seed?"),
        (["--config-dir=nowhere", "model=mine"], "--config-dir nowhere: there is no such folder"),
    ):
        refused = typed(command, *arguments, cwd=own.parent)
        assert (refused.returncode, says in refused.stderr) == (2, True), refused.stderr
        assert len(refused.stderr.splitlines()) == 1
