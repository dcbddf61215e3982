"""Every option of every group composes, and every key is accepted by its target's signature."""

import importlib
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from experiments.checks import GROUPS, check
from experiments.cli import CONF
from experiments.errors import ConfigError

OPTIONS = [(group, path.stem) for group in (*GROUPS, "experiment") for path in sorted((CONF / group).glob("*.yaml"))]
MANDATORY = {  # what a person must type with an option
    "model=saved": ["model.name=owner/model"],
    "data=hub": ["data.path=owner/data"],
    "data=table": [f"data.train={__file__}"],
    **{
        f"model={path.stem}": ["model.trust_remote_code=true"]
        for path in (CONF / "model").glob("*.yaml")
        if "needs_remote_code: true" in path.read_text()
    },
}
ARTICLE = {
    "model.name": "Qwen/Qwen3-VL-Embedding-2B",
    "model.min_pixels": 28 * 28,
    "model.max_pixels": 600 * 600,
    "model.card.language": "en",
    "model.card.license": "apache-2.0",
    "data.path": "tomaarsen/llamaindex-vdr-en-train-preprocessed",
    "data.name": "vdr-eval-hard",
    "data.num_train_rows": 10_000,
    "data.num_eval_rows": 300,
    "data.num_negatives": 1,
    "data.columns.negatives": ["negative_0", "negative_1", "negative_2", "negative_3"],
    "matryoshka.default_dims": [2048, 1536, 1024, 512, 256, 128, 64],
    "matryoshka.truncate_dim": 1024,
    "trainer.num_train_epochs": 1,
    "trainer.per_device_train_batch_size": 64,
    "trainer.per_device_eval_batch_size": 64,
    "trainer.learning_rate": 2e-5,
    "trainer.warmup_steps": 0.1,
    "trainer.eval_steps": 0.1,
    "trainer.save_steps": 0.1,
    "trainer.save_total_limit": 2,
    "trainer.logging_steps": 0.05,
}


def composed(*overrides, conf=CONF):
    """Return the resolved config that a command line gives."""
    with initialize_config_dir(str(conf), version_base="1.3"):
        config = compose("config", [*overrides])
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def targets(node):
    if isinstance(node, dict):
        yield from [node["_target_"]] if "_target_" in node else []
        node = list(node.values())
    for value in node if isinstance(node, list) else []:
        yield from targets(value)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_option_composes_and_its_target_accepts_every_key(group, option):
    config = composed(f"{group}={option}", *MANDATORY.get(f"{group}={option}", []))
    if find_spec("flash_attn") is None and config["model"].get("attn_implementation") == "flash_attention_2":
        with pytest.raises(ConfigError, match="isn't installed"):  # it is refused here for that alone
            check(config)
        config["model"]["attn_implementation"] = "auto"
    check(config)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_option_resolves_to_something_callable(group, option):
    config = composed(f"{group}={option}", *MANDATORY.get(f"{group}={option}", []))
    for target in targets(config.get(group, {})):
        module, _, name = target.rpartition(".")
        assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize("group", GROUPS)
def test_planted_wrong_key_is_refused(tmp_path, group):
    """The check would be worth nothing if it let a misspelt key in an option file through."""
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    option = next(path for path in (conf / group).glob("*.yaml") if path.stem == _default(group))
    option.write_text(option.read_text().rstrip() + "\nplanted_wrong_key: 1\n")
    with pytest.raises(ConfigError, match=f"{group}.planted_wrong_key is unknown"):
        check(composed(f"{group}={option.stem}", conf=conf))


def _default(group):
    defaults = yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]
    return next(entry[group] for entry in defaults if isinstance(entry, dict) and group in entry)


def test_every_folder_of_conf_is_a_known_group():
    folders = {path.name for path in CONF.iterdir() if path.is_dir()}
    assert folders - {"hydra"} == {*GROUPS, "experiment"}


def test_article_recipe_has_the_article_values():
    config = OmegaConf.create(composed("model=qwen3vl_2b", "data=vdr_en"))
    for key, value in ARTICLE.items():
        assert OmegaConf.select(config, key, throw_on_missing=True) == value, key


def test_header_of_each_option_says_what_it_is():
    for group, option in OPTIONS:
        first = Path(CONF / group / f"{option}.yaml").read_text().splitlines()[0]
        assert first.startswith("# "), f"{group}/{option}.yaml"
