"""A Hub in a bad mood: one clear line each, nothing half taken for whole, nothing downloaded twice."""

import json
import shutil

import numpy as np
import pytest
from hub_standins import DOODLES
from huggingface_hub import constants, snapshot_download
from safetensors.numpy import save_file

from experiments.config.hub import adapter_bases, check_sources, commit

CLIP = "sentence-transformers/clip-ViT-L-14"
EVALUATE = "python -m experiments.evaluate data=vdr_en data.num_eval_rows=2 tracking=none model=saved model.name="


@pytest.fixture
def model(hub, standins, request):
    """A model under a name of its own, which no other test has in the cache."""
    name = f"moods/{request.node.name.partition('[')[0][5:60]}"
    hub.publish("models", name, standins / "models" / CLIP)
    yield name
    hub.moods.clear()


def downloads(typed):
    return [seen.path for seen in typed.requests if seen.method == "GET" and "/resolve/" in seen.path]


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (401, "RepoNotFound", "the Hub has no such repository, or shows it to others alone: check the name, or run"),
        (401, "", "the Hub doesn't accept the token (401): run `hf auth login`"),
        (404, "RepoNotFound", "the Hub has no such repository, or shows it to others alone: check the name, or run"),
        (404, "RevisionNotFound", "the Hub has no such revision of it: see "),
    ],
)
def test_a_refusal_is_one_line_that_says_what_to_do(status, code, reason, typed, hub, model, tmp_path):
    hub.refuse(f"^/api/models/{model}", status, code)
    done = typed(f"{EVALUATE}{model}")
    assert done.code == 2, done.output
    assert done.last.startswith(f"error: model.name={model}: {reason}")
    assert "Traceback" not in done.output
    assert not list(tmp_path.glob("outputs/20*"))


def test_what_is_gated_is_refused_before_anything_is_downloaded(typed, hub, model, standins):
    hub.repositories["models", model].gated = True
    done = typed(f"{EVALUATE}{model}")
    reason = f"the Hub gives it to those alone who were granted access: ask at {hub.url}"
    assert (done.code, done.last[:300].partition(", then")[0]) == (2, f"error: model.name={model}: {reason}/{model}")
    assert downloads(done) == []
    hub.publish("datasets", "moods/gated", standins / "datasets" / DOODLES)
    hub.repositories["datasets", "moods/gated"].gated = True
    done = typed("python -m experiments.train data=hub data.path=moods/gated tracking=none")
    assert done.last.startswith(f"error: data.path=moods/gated: {reason}/datasets/moods/gated, then run")
    assert downloads(done) == []


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("no-such-model", "the Hub has no such repository"),
        ("'a b/c d'", "no folder, and no name on the Hub, which is OWNER/NAME"),
        (f"{CLIP} +model.revision={'ab' * 20}", "the Hub has no such revision of it: see "),
    ],
)
def test_a_mistyped_name_or_revision_is_refused_before_anything_is_downloaded(more, reason, typed, tmp_path):
    done = typed(f"{EVALUATE}{more}")
    assert done.code == 2, done.output
    assert reason in done.last
    assert downloads(done) == []
    assert not list(tmp_path.glob("outputs/20*"))


def test_offline_no_other_commit_is_taken_for_the_one_asked_for(typed, hub, tmp_path):
    other = f"+data.train.revision={'ab' * 20} +data.eval.revision={'ab' * 20}"
    done = typed(f"{EVALUATE}{CLIP} {other}", HF_HUB_OFFLINE="1")
    assert done.code == 2, done.output
    assert "it is not in the cache, and HF_HUB_OFFLINE is set: unset it" in done.last


def test_a_run_that_goes_on_takes_the_commit_that_it_began_with(hub, model, standins, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    began = hub.repositories["models", model].commits[-1].sha
    moved = hub.publish("models", model, standins / "models" / CLIP)
    config = {"model": {"_target_": "experiments.models.embedders.load_embedder", "name": model}}
    check_sources(config, begun_with={model: began})
    assert commit("model", model) == began != moved


def test_the_commit_of_an_adapters_base_is_known_once_it_is_loaded(hub, model, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": model}))
    adapter = hub.publish("models", "moods/adapter", tmp_path / "adapter")
    snapshot_download("moods/adapter", revision=adapter, cache_dir=tmp_path / "cache", endpoint=hub.url)
    target = {"_target_": "experiments.models.embedders.load_embedder"}
    for name in ("moods/adapter", str(tmp_path / "adapter")):
        config, found = {"model": target | {"name": name}}, {"moods/adapter": adapter}
        assert adapter_bases(config, found) == {}
    snapshot_download(model, allow_patterns="config.json", cache_dir=tmp_path / "cache", endpoint=hub.url)
    for name in ("moods/adapter", str(tmp_path / "adapter")):
        config, found = {"model": target | {"name": name}}, {"moods/adapter": adapter}
        assert adapter_bases(config, found) == {model: hub.repositories["models", model].commits[-1].sha}


def test_a_part_that_is_not_there_is_refused_before_the_weights_are_downloaded(typed, hub, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "qwen3_vl"}))
    weights = {"model.visual.norm.weight": np.zeros(1_000_000, np.float32)}
    save_file(weights, tmp_path / "model" / "model.safetensors")
    hub.publish("models", "moods/parts", tmp_path / "model")
    done = typed(f"{EVALUATE}moods/parts +model.freeze=[visul]")
    assert done.code == 2, done.output
    assert done.last == "error: model.freeze: the model has no part visul; did you mean visual?"
    asked = [s.status for s in done.requests if s.method == "GET" and s.path.endswith("model.safetensors")]
    assert {*asked} == {206}, "the header alone"


def test_a_data_set_that_is_not_there_is_one_line(typed):
    done = typed("python -m experiments.train data=hub data.path=nobody/nothing tracking=none")
    assert done.code == 2
    assert done.last.startswith("error: data.path=nobody/nothing: the Hub has no such repository")


def test_a_busy_hub_is_asked_again_when_it_says(typed, hub, model):
    hub.refuse(f"^/api/models/{model}", 429, times=1, Retry_After="1")
    done = typed(f"{EVALUATE}{model}")
    assert done.code == 0, done.output
    assert "The Hub is too busy (429): asking again in 1 s" in done.output


def test_a_hub_that_stays_busy_is_one_line(typed, hub, model):
    hub.refuse(f"^/api/models/{model}", 429, Retry_After="3600")
    done = typed(f"{EVALUATE}{model}")
    assert done.code == 2
    assert done.last.startswith(
        f"error: model.name={model}: the Hub is asked too often (429): try again in a few minutes"
    )


def test_a_hub_that_fails_twice_is_asked_three_times(typed, hub, model):
    hub.refuse(f"^/api/models/{model}", 500, times=2)
    hub.refuse(f"^/{model}/resolve/.*safetensors", 500, times=2)
    done = typed(f"{EVALUATE}{model}")
    assert done.code == 0, done.output
    assert done.output.count("The Hub is too busy (500)") == 2


def test_a_download_that_is_cut_goes_on_where_it_was(typed, hub, model, standins):
    hub.cut(f"^/{model}/resolve/.*safetensors")
    done = typed(f"{EVALUATE}{model}")
    assert done.code == 0, done.output
    statuses = [s.status for s in done.requests if s.method == "GET" and s.path.endswith("safetensors")]
    assert statuses == [200, 206]


def test_a_download_that_stays_cut_is_one_line_and_no_part_is_taken_for_whole(typed, hub, model):
    hub.cut(f"^/{model}/resolve/.*safetensors", times=100)
    done = typed(f"{EVALUATE}{model}")
    assert done.code == 2, done.output
    assert done.last.startswith(f"error: model.name={model}: ")
    hub.moods.clear()
    assert typed(f"{EVALUATE}{model}").code == 0


def test_a_slow_hub_is_waited_for(typed, hub, model):
    hub.delay(f"^/{model}/resolve/", 4.0)
    assert typed(f"{EVALUATE}{model}").code == 0


def test_a_second_run_downloads_nothing_and_a_third_needs_no_hub(typed, hub, model):
    first = typed(f"{EVALUATE}{model}")
    second = typed(f"{EVALUATE}{model}")
    assert (first.code, second.code) == (0, 0)
    assert [path for path in downloads(first) if model in path]
    assert downloads(second) == []
    third = typed(f"{EVALUATE}{model}", HF_ENDPOINT="http://127.0.0.1:9")
    assert third.code == 0, third.output
    assert "The Hub can't be reached" in third.output
    assert "what was downloaded before is taken" in third.output


def test_a_revision_that_moves_between_two_runs_is_recorded(typed, hub, model, standins, tmp_path):
    assert typed(f"{EVALUATE}{model}").code == 0
    moved = tmp_path / "moved"
    shutil.copytree(standins / "models" / CLIP, moved)
    (moved / "NOTES.md").write_text("another state")
    sha = hub.publish("models", model, moved)
    assert typed(f"{EVALUATE}{model}").code == 0
    records = [json.loads(file.read_text()) for file in sorted(tmp_path.glob("outputs/*/*/run.json"))]
    commits = [record["commits"][model] for record in sorted(records, key=lambda record: record["start"])]
    assert len(set(commits)) == 2
    assert commits[-1] == sha
