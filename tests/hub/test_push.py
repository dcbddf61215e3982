"""Pushing a finished model to a Hub on loopback, and what is refused before the work."""

import json

import pytest
from hub_server import ORG, USER

FEW = "data.num_train_rows=4 data.num_eval_rows=2 trainer.eval_strategy=no trainer.save_strategy=no tracking=none"
PUSH = f"python -m experiments.train model=qwen3vl_2b data=vdr_en {FEW} trainer.push_to_hub=true"
LOAD = "from sentence_transformers import SentenceTransformer as S; print(S('{}').encode('a page').shape)"


def test_a_model_is_pushed_to_a_new_and_to_an_existing_repository(typed, hub, tmp_path):
    name = f"{USER}/vdr"
    first = typed(f"{PUSH} trainer.hub_model_id={name}")
    assert first.code == 0, first.output
    repository = hub.repositories["models", name]
    assert repository.private
    assert "model.safetensors" in " ".join(repository.commits[-1].files)
    commits = len(repository.commits)

    again = typed(f"{PUSH} trainer.hub_model_id={name} seed=1")
    assert again.code == 0, again.output
    assert "it exists: a new commit" in again.output
    assert len(repository.commits) == commits + 1

    loaded = typed(f'python -c "{LOAD.format(name)}"', HF_HOME=str(tmp_path / "another_home"))
    assert loaded.code == 0, loaded.output
    assert "(2048,)" in loaded.output.splitlines()


def test_what_the_hub_refuses_at_the_end_costs_no_finished_model(typed, hub, tmp_path):
    hub.refuse("/commit/", 403)
    done = typed(f"{PUSH} trainer.hub_model_id={USER}/refused")
    hub.moods.clear()
    assert done.code == 1, done.output
    assert "the model is finished, but not pushed: the token may not do that (403)" in done.last
    assert f"then type hf upload {USER}/refused " in done.last
    (record,) = tmp_path.glob("outputs/*/*/run.json")
    assert json.loads(record.read_text())["status"] == "finished"
    assert (record.parent / "final" / "modules.json").is_file()


@pytest.mark.parametrize(
    ("more", "token", "reason"),
    [
        (f"trainer.hub_model_id={USER}/vdr", None, "run `hf auth login`"),
        (
            f"trainer.hub_model_id={USER}/vdr",
            "hf_wrong",
            "the Hub doesn't accept the token (401): run `hf auth login`",
        ),
        ("trainer.hub_model_id=somebody/vdr", "hf_loopback", f"type one of {USER}, {ORG}/vdr"),
        ("trainer.hub_model_id=a/b/c", "hf_loopback", "trainer.hub_model_id=a/b/c"),
    ],
)
def test_what_could_not_be_pushed_is_refused_before_the_work(more, token, reason, typed, tmp_path):
    done = typed(f"{PUSH} {more}", token=token)
    assert done.code == 2, done.output
    assert reason in done.last
    assert all(seen.path.startswith("/api/") for seen in done.requests)  # nothing is downloaded
