import os
import subprocess
import sys

import pytest

from experiments.config import fits_memory
from experiments.config.errors import ConfigError

AUTO = {"mini_batch_size": "auto"}
LIMITED = AUTO | {"memory_limit": "4GiB"}


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """No GPU and no Slurm, until the file is there."""
    monkeypatch.setattr(fits_memory, "DRIVERS", (str(tmp_path / "driver"),))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "driver"


def test_without_a_gpu_a_limit_is_asked_for(driver, monkeypatch):
    fits_memory.check(LIMITED)
    fits_memory.check({"mini_batch_size": 4})
    with pytest.raises(ConfigError, match="type loss.memory_limit=4GiB"):
        fits_memory.check(AUTO)
    driver.touch()
    fits_memory.check(AUTO)
    with pytest.raises(ConfigError, match="no GPU"):
        fits_memory.check(AUTO, has_gpu=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match="no GPU"):
        fits_memory.check(AUTO)


def test_a_limit_of_the_process_bounds_it_too(driver, monkeypatch):
    monkeypatch.setattr(fits_memory, "data_limit", lambda: 2**30)
    fits_memory.check(AUTO)


def test_where_jobs_are_submitted_one_may_have_a_gpu(driver):
    (driver.parent / "sbatch").touch(mode=0o755)
    fits_memory.check(AUTO)


def test_train_says_so_before_it_imports_torch(tmp_path):
    code = """
import sys
from pathlib import Path
from experiments.config.errors import ConfigError
from experiments.train import train
try:
    train({"loss": {"mini_batch_size": "auto"}}, Path("run"), name="", choices={})
except ConfigError as error:
    sys.exit("torch" in sys.modules or "no GPU" not in str(error))
sys.exit("not refused")
"""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
    assert not [*tmp_path.iterdir()]


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="one process alone"):
        fits_memory.check(LIMITED)
