import functools
import os
import shutil
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes run the tests
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest  # noqa: E402

import experiments  # noqa: E402


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """The embedded model, saved once."""
    from experiments.models.tiny.qwen3vl import build_qwen3vl

    folder = tmp_path_factory.mktemp("model") / "qwen3vl"
    build_qwen3vl(folder, embedding_dim=96, seed=42)
    return folder


@pytest.fixture
def tiny_model(tiny_folder):
    """The embedded model with its initial weights."""
    from experiments.models.embedders import load_embedder

    return load_embedder(str(tiny_folder), embedding_dim=96, min_pixels=784, max_pixels=16384)


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Where drawn data and tiny models are kept, for `cache_dir`."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def composed():
    """Gives the resolved config of a line's overrides and top-level values; each line is composed once."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from experiments.config.options import CONF

    @functools.cache
    def compose_once(overrides, conf):
        with initialize_config_dir(str(conf), version_base="1.3"):
            return compose("config", [*overrides])

    def resolved(*overrides, conf=CONF, **values):
        config = OmegaConf.merge(compose_once(overrides, conf), values)
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)

    return resolved


@pytest.fixture
def changed_package(tmp_path):
    """Gives two copies of this package, the second with a line more in one file."""

    def copies(file, line):
        for name in ("before", "after"):
            shutil.copytree(Path(experiments.__file__).parent, tmp_path / name)
        with (tmp_path / "after" / file).open("a") as source:
            source.write(f"{line}\n")
        return tmp_path / "before", tmp_path / "after"

    return copies
