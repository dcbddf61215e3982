"""Parts to freeze and layers to adapt are looked for in the names of the weights, before anything is loaded."""

import json
import subprocess
import sys

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save_file

from experiments.config.checks import check
from experiments.config.errors import ConfigError
from experiments.config.hub import sources
from experiments.config.model_files import check_parts, trained_dims, weights_here
from experiments.config.options import CONF

LAYERS = [f"model.language_model.layers.{i}.self_attn.{name}_proj" for i in range(12) for name in "qkvo"]
WEIGHTS = [f"{name}.weight" for name in (*LAYERS, "model.visual.blocks.0.attn.qkv", "model.language_model.norm")]
QWEN = {"model_type": "qwen3_vl", "architectures": ["Qwen3VLForConditionalGeneration"]}
LORA = ".*language_model.*\\.({}|k_proj_x)"


def write(folder, config=QWEN, shards=1):
    """Write the config and the weights of a checkpoint whose layers have a weight each."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    files = ["model.safetensors"] if shards == 1 else [f"model-{i}.safetensors" for i in range(shards)]
    for i, file in enumerate(files):
        save_file({name: np.zeros(1, np.float32) for name in WEIGHTS[i::shards]}, folder / file)
    if shards > 1:
        where = {name: files[i % shards] for i, name in enumerate(WEIGHTS)}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


def keys_of(found):
    return [source.what.partition("=")[0] for source in found]


def refused(composed, folder, *overrides):
    """Return why a config with the model in a folder is refused; None if it isn't."""
    try:
        check(composed("model=saved", f"model.name={folder}", *overrides))
    except ConfigError as error:
        return str(error)


@pytest.mark.parametrize("shards", [1, 3])
def test_a_part_that_the_weights_do_not_name_is_refused_with_the_nearest(composed, tmp_path, shards):
    folder = write(tmp_path / "model", shards=shards)
    expected = "model.freeze: the model has no part visul; did you mean visual?"
    assert refused(composed, folder, "+model.freeze=[visul]") == expected
    assert "no part vision_tower; known: " in refused(composed, folder, "+model.freeze=[vision_tower]")
    assert "did you mean" in refused(composed, folder, "+model.freeze=[visual,language_model.layer]")
    for part in ("visual", "language_model.layers.3", "0.model.language_model.norm", "layers.0.self_attn", "lm_head"):
        assert refused(composed, folder, f"+model.freeze=[{part}]") is None, part


def test_target_modules_that_match_no_layer_are_refused_with_the_nearest(composed, tmp_path):
    folder = write(tmp_path / "model")

    def typed(targets):
        return refused(composed, folder, "+model/peft=lora", f"model.peft.target_modules={targets}")

    message = "model.peft.target_modules=[q_prj]: the model has no such layer; did you mean q_proj?"
    assert typed("[q_prj]") == message
    assert "did you mean q_proj?" in typed(f"'{LORA.format('q_porj')}'")
    assert refused(composed, folder, "+model/peft=lora") is None
    fitting = ("[q_prj,k_proj]", "self_attn.q_proj", "all-linear", f"'{LORA.format('q_proj')}'", "'['")
    assert [typed(targets) for targets in ("[self_attn.q_proj]", *fitting[:1], *fitting[2:])] == [None] * 5


def test_weights_that_transformers_renames_are_left_until_they_are_loaded(composed, tmp_path):
    renamed = {"model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"]}
    assert refused(composed, write(tmp_path / "renamed", renamed), "+model.freeze=[visul]") is None
    prefixed = {"model_type": "qwen3_5", "text_config": {"model_type": "qwen3_5_text"}}  # loses a part of names alone
    assert "no part visul" in refused(composed, write(tmp_path / "prefixed", prefixed), "+model.freeze=[visul]")
    trusted = ("+model.freeze=[visul]", "+model.trust_remote_code=true")
    assert refused(composed, tmp_path / "prefixed", *trusted) is None


def test_other_files_do_not_tell(composed, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(QWEN))
    assert refused(composed, tmp_path, "+model.freeze=[visul]") is None
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    assert refused(composed, tmp_path, "+model.freeze=[visul]") is None


def test_a_part_of_an_encoder_is_looked_for_in_its_weights(composed, tmp_path):
    write(tmp_path)
    config = composed("experiment=router_tiny")
    config["model"]["encoders"]["text"] = {
        "_target_": "experiments.models.routers.load_encoder",
        "name": str(tmp_path),
    }
    check_parts(config["model"] | {"freeze": ["text.0", "text", "text.0.visual"]}, weights_here)
    with pytest.raises(ConfigError, match="no part text.0.visul; did you mean"):
        check_parts(config["model"] | {"freeze": ["text.0.visul"]}, weights_here)


def test_what_the_hub_cache_holds_is_looked_at_without_asking(composed, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--owner--model"
    write(repository / "snapshots" / "0123")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    assert "no part visul; did you mean" in refused(composed, "owner/model", "+model.freeze=[visul]")
    assert refused(composed, "owner/other", "+model.freeze=[visul]") is None


def test_every_part_of_a_real_model_is_found(composed, tiny_model, tmp_path):
    tiny_model.save_pretrained(str(tmp_path))
    holding = {name.rpartition(".")[0] for name, _ in tiny_model.named_parameters()}
    known = [each.split(".", number)[-1] for each in holding for number in range(each.count(".") + 1)]
    assert len(known) > 100
    model = composed("model=saved", f"model.name={tmp_path}")["model"]
    check_parts(model | {"freeze": known}, weights_here)
    with pytest.raises(ConfigError, match="no part visul; did you mean"):
        check_parts(model | {"freeze": ["visul"]}, weights_here)


@pytest.mark.parametrize("command", ["train", "plan"])
def test_it_is_refused_before_torch_is_imported(command, tmp_path):
    folder = write(tmp_path / "model")
    arguments = ["model=saved", f"model.name={folder}", "+model.freeze=[visul]"]
    blocked = f"import sys; sys.modules['torch'] = None; sys.argv[1:] = {arguments}; import runpy;"
    run = f"runpy.run_module('experiments.{command}', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", blocked + run], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "model.freeze: the model has no part visul; did you mean" in done.stdout + done.stderr


def test_every_name_on_the_hub_is_asked_for(composed):
    """Nothing need be listed for a new source or loader: a name is known by what its target takes."""
    options = [("model", path.stem) for path in (CONF / "model").glob("*.yaml")]
    options += [("data", path.stem) for path in (CONF / "data").glob("*.yaml")]
    missing = {"saved": ["model.name=a/b"], "reranker": ["model.name=a/b"], "hub": ["data.path=a/b"]}
    missing["table"] = [f"data.train={__file__}"]
    found = {}
    for group, option in options:
        node = composed(f"{group}={option}", *missing.get(option, []))[group]
        found[option] = keys_of(sources({group: node}))
        nodes = [node] if group == "data" else [node, *node.get("encoders", {}).values()]
        names = [each.get("path" if group == "data" else "name") for each in nodes]
        on_hub = [name for name in names if isinstance(name, str) and not name.startswith("package:")]
        assert len(found[option]) == len(on_hub), option
    assert found["qwen3vl_2b"] == ["model.name"] and found["vdr_en"] == found["vdr_multilingual"] == ["data.path"]
    assert found["router_minilm_siglip2"] == ["model.encoders.text.name", "model.encoders.image.name"]
    retriever = {"_target_": "experiments.models.embedders.load_embedder", "name": "a/b"}
    assert keys_of(sources({"evaluator": {"retriever": retriever}})) == ["evaluator.retriever.name"]


def test_the_dimensions_that_a_model_was_trained_for_are_on_its_card_or_there_are_none(tmp_path, monkeypatch):
    card = 'Loss: MatryoshkaLoss\n{\n "matryoshka_dims": [\n 768,\n 256\n ],\n "matryoshka_weights": [1, 1]\n}\n'
    assert trained_dims(str(write(tmp_path / "model"))) == []
    (tmp_path / "model" / "README.md").write_text(f"MatryoshkaLoss(model, loss, matryoshka_dims=[64])\n{card}{card}")
    assert trained_dims(str(tmp_path / "model")) == [768, 256]
    (tmp_path / "model" / "config_sentence_transformers.json").write_text('{"truncate_dim": 512}')
    assert trained_dims(str(tmp_path / "model")) == [768, 512, 256]
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert trained_dims("owner/model", "0" * 40) == []
    snapshot = tmp_path / "cache" / "models--owner--model" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "README.md").write_text(card)
    assert trained_dims("owner/model", "0" * 40) == [768, 256]
