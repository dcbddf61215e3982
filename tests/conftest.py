import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes run the tests
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest  # noqa: E402


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
