import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib import metadata

import numpy as np
import pytest
import torch
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image

from experiments.config.keys import digest
from experiments.data.types import Direction
from experiments.evaluate import evaluate
from experiments.evaluation import embedding_cache
from experiments.evaluation.embedding_cache import EMBEDS, key_parts, load_or_compute
from experiments.evaluation.retrieval import RetrievalEvaluator
from experiments.models.embedders import load_embedder
from experiments.models.ready import set_pixel_bounds
from experiments.runs.provenance import code_hash


def queries(first="a red page"):
    return Dataset.from_dict({"query_id": ["q0", "q1"], "query": [first, "a longer query for a blue page"]})


def corpus(pixel=(255, 0, 0)):
    pages = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue", "green")]
    pages[0].putpixel((3, 3), pixel)
    return Dataset.from_dict({"corpus_id": ["a", "b", "c"], "document": pages}).cast_column("document", ImageFeature())


def parts(model, first="a red page", pixel=(255, 0, 0), batch_size=32, prompt=None):
    return key_parts(model, queries(first), corpus(pixel), batch_size, prompt)


@pytest.fixture(scope="module")
def reference(tiny_folder):
    """What the key of the unchanged model is made of."""
    return parts(load_embedder(str(tiny_folder), min_pixels=784, max_pixels=16384))


def change_one_weight(model):
    weight = next(model.parameters()).data.view(-1)
    weight[7] = torch.nextafter(weight[7], torch.tensor(1.0))


def change_a_buffer(model):
    next(model.buffers()).mul_(1.5)


def change_the_template(model):
    model.processor.chat_template = model.processor.chat_template.replace("<|im_end|>", "<|im_end|> ")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (change_one_weight, "weights"),
        (change_a_buffer, "weights"),
        (lambda model: model.to(torch.bfloat16), "weights"),
        (lambda model: setattr(model[1], "pooling_mode", "mean"), "modules"),
        (lambda model: model[0].model.set_attn_implementation("eager"), "modules"),
        (lambda model: setattr(model[0].model.config.text_config, "rms_norm_eps", 1e-3), "modules"),
        (lambda model: setattr(model[0].model.visual.blocks[0].norm1, "eps", 1e-3), "modules"),
        (lambda model: model.pop(2), "modules"),
        (lambda model: set_pixel_bounds(model, 784, 8192), "processor"),
        (lambda model: set_pixel_bounds(model, 4096, 16384), "processor"),
        (change_the_template, "processor"),
        (lambda model: setattr(model.tokenizer, "model_max_length", 16), "processor"),
        (lambda model: model.prompts.update(query="find: "), "prompts"),
        (lambda model: setattr(model, "truncate_dim", 48), "truncate_dim"),
    ],
)
def test_a_change_of_the_model_misses(tiny_model, reference, change, part):
    change(tiny_model)
    changed = parts(tiny_model)
    assert changed[part] != reference[part]
    assert {name for name in changed if changed[name] != reference[name]} <= {part, "modules", "source"}


def test_a_change_of_data_batch_threads_versions_or_source_misses(tiny_model, reference, monkeypatch):
    def changed(**options):
        now = parts(tiny_model, **options)
        return {name for name in now if now[name] != reference[name]}

    assert changed() == set()
    assert changed(first="a red pagf") == {"queries"}
    assert changed(pixel=(254, 0, 0)) == {"corpus"}
    assert changed(batch_size=16) == {"batch_size"}
    assert changed(prompt="image_to_text") == {"prompts"}
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    assert changed() == {"device"}
    torch.set_num_threads(threads)
    with monkeypatch.context() as patch:
        patch.setattr(metadata, "version", lambda name: "0.0")
        assert changed() == {"versions"}
    with monkeypatch.context() as patch:
        patch.setattr(embedding_cache, "EMBEDS", ("data",))
        assert changed() == {"source"}
    assert len({digest(reference), digest(reference | {"truncate_dim": 1})}) == 2


@pytest.mark.parametrize(
    ("file", "misses"),
    [
        ("data/media.py", True),
        ("evaluation/embedding.py", True),
        ("models/routers.py", True),
        ("training/losses.py", False),
        ("reports/tables.py", False),
    ],
)
def test_code_that_decides_embeddings_is_in_the_key(changed_package, file, misses):
    before, after = (code_hash(*EMBEDS, package=package) for package in changed_package(file, "NEW = 1"))
    assert (before != after) is misses


def test_neither_the_folder_nor_earlier_use_changes_the_key(tiny_folder, tiny_model, reference, tmp_path):
    tiny_model.encode_query(["one", "another one, which is longer"])
    tiny_model.encode_document([Image.new("RGB", (40, 90))])
    assert parts(tiny_model) == reference
    shutil.copytree(tiny_folder, tmp_path / "elsewhere")
    moved = load_embedder(str(tmp_path / "elsewhere"), min_pixels=784, max_pixels=16384)
    assert parts(moved) == reference


def test_a_hit_embeds_nothing_and_gives_the_same_evaluation(tiny_model, tmp_path):
    forwards = []
    tiny_model.register_forward_pre_hook(lambda *_: forwards.append(1))
    relevant = {"q0": {"a"}, "q1": {"b", "c"}}

    def found(cached, cache_dir=tmp_path):
        forwards.clear()
        direction = Direction(queries(), corpus(), relevant, {"q0": {"colour": "b"}})
        evaluator = RetrievalEvaluator({"query_to_document": direction}, cache_dir=str(cache_dir))
        evaluation = evaluator.evaluate(tiny_model, cached=cached)
        return evaluation, len(forwards)

    plain, num_plain = found(False)
    assert num_plain
    assert not list(tmp_path.iterdir())
    first, num_first = found(True)
    again, num_again = found(True)
    assert (num_first, num_again) == (num_plain, 0)
    assert (first.cache_file, again.cache_file.parent) == (None, tmp_path)
    for each in (first, again):
        assert each.to_json() == plain.to_json()
        assert each.attributes == plain.attributes
        for dim, ranking in plain.rankings.items():
            ours, theirs = (found["query_to_document"].scores for found in (each.rankings[dim], ranking))
            assert np.array_equal(ours, theirs)
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    assert found(True, blocked)[0].to_json() == plain.to_json()


COMPUTE = """
import os, sys, time
import numpy as np
from pathlib import Path
from experiments.evaluation.embedding_cache import load_or_compute

def compute():
    with open(sys.argv[2], "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(float(sys.argv[3]))
    return np.full((2, 3), 0.5, np.float32), np.ones((4, 3), np.float32)

(queries, documents), path = load_or_compute(Path(sys.argv[1]), {"weights": "w"}, compute)
print(float(queries.sum() + documents.sum()), path is not None)
"""


def start(folder, seconds):
    command = [sys.executable, "-c", COMPUTE, str(folder / "cache"), str(folder / "computed"), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_of_processes_at_once_one_computes(tmp_path):
    outputs = [process.communicate()[0].split() for process in [start(tmp_path, 1.5) for _ in range(4)]]
    assert len((tmp_path / "computed").read_text().split()) == 1
    assert sorted(outputs) == [["15.0", "False"], *[["15.0", "True"]] * 3]


def test_a_killed_holder_lets_the_next_one_compute(tmp_path):
    holder = start(tmp_path, 60)
    while not (tmp_path / "computed").exists():
        time.sleep(0.01)
    waiting = start(tmp_path, 0)
    time.sleep(0.5)
    assert waiting.poll() is None
    os.kill(holder.pid, signal.SIGKILL)
    assert waiting.communicate()[0].split() == ["15.0", "False"]
    holder.communicate()
    assert start(tmp_path, 0).communicate()[0].split() == ["15.0", "True"]


def test_a_damaged_entry_is_computed_again(tmp_path):
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(5, 8)).astype(np.float32), rng.normal(size=(9, 8)).astype(np.float32)
    assert load_or_compute(tmp_path, {}, lambda: embeddings)[1] is None
    (path,) = tmp_path.glob("*.npz")
    whole = path.read_bytes()
    damaged = [whole[:length] for length in (0, 1, 100, len(whole) // 2, len(whole) - 1)]
    for place in (200, 300, 500):  # headers and data
        damaged.append(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    for content in damaged:
        path.write_bytes(content)
        found, cached = load_or_compute(tmp_path, {}, lambda: embeddings)
        assert cached is None
        assert all(np.array_equal(ours, theirs) for ours, theirs in zip(found, embeddings, strict=True))
        assert path.stat().st_size == len(whole)
    found, cached = load_or_compute(tmp_path, {}, lambda: pytest.fail("computed"))
    assert cached == path
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(found, embeddings, strict=True))


def test_what_was_used_last_stays_when_the_folder_is_full(tmp_path, monkeypatch):
    embeddings = np.zeros((10, 100), np.float32), np.zeros((10, 100), np.float32)  # 8 kB and headers
    monkeypatch.setattr(embedding_cache, "LIMIT_BYTES", 30_000)
    (tmp_path / ".killed.1.tmp").touch()
    os.utime(tmp_path / ".killed.1.tmp", (0, 0))
    for number in range(3):
        load_or_compute(tmp_path, {"n": number}, lambda: embeddings)
        path = tmp_path / f"{digest({'n': number})}.npz"
        os.utime(path, (1000 + number, 1000 + number))
    assert load_or_compute(tmp_path, {"n": 0}, lambda: embeddings)[1] is not None
    load_or_compute(tmp_path, {"n": 3}, lambda: embeddings)
    kept = {path.stem for path in tmp_path.glob("*.npz")}
    assert kept == {digest({"n": number}) for number in (0, 2, 3)}
    assert len(list(tmp_path.iterdir())) == 3


def test_evaluations_share_embeddings_say_so_and_call_the_model_model(composed, tmp_path, caplog):
    overrides = ["data.num_train_rows=16", "data.num_eval_rows=8", "evaluator.num_bootstrap=20", "tracking=none"]
    overrides += [f"data.cache_dir={tmp_path}/data", f"evaluator.cache_dir={tmp_path}/embeddings"]
    config = composed(*overrides)
    choices = {"model": "qwen3vl_tiny", "data": "report_pages"}
    with caplog.at_level("INFO"):
        one, two = (evaluate(config, tmp_path / name, name=name, choices=choices) for name in ("one", "two"))
    assert (one.pop("from_cache"), two.pop("from_cache")) == (False, True)
    assert one == two
    assert sum("Evaluation: embeddings from the cache" in record.message for record in caplog.records) == 1
    report = (tmp_path / "two" / "report.md").read_text()
    assert "- evaluation: embeddings from the cache" in report
    assert re.search(r"\| dimensions \| +model \| % of full", report)
    assert "base" not in "".join(report.partition("## What ran")[::2])
    shown = next(record.message for record in caplog.records if "% of full" in record.message)
    assert re.search(r"dimensions +model +% of full", shown)
    assert "base" not in shown
    assert not [*(tmp_path / "two" / "rankings").glob("base*")]
    assert (tmp_path / "one" / "rankings" / "model_dim0096.trec").read_text() == (
        tmp_path / "two" / "rankings" / "model_dim0096.trec"
    ).read_text()
