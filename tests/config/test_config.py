"""Every option of every group and every recipe composes, and every key is accepted by its target's signature."""

import importlib
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from experiments.config import checks
from experiments.config.checks import GROUPS, check
from experiments.config.errors import ConfigError
from experiments.config.keys import Role, config_hash, effective
from experiments.config.options import CONF

SRC = Path(checks.__file__).parents[1]
OPTIONS = [(group, path.stem) for group in (*GROUPS, "experiment") for path in sorted((CONF / group).glob("*.yaml"))]
MANDATORY = {  # what a person must type with an option
    "model=saved": ["model.name=owner/model"],
    "data=hub": ["data.path=owner/data"],
    "data=table": [f"data.train={Path(__file__).with_name('pages.csv')}"],
    "model=reranker": ["model.name=owner/model", "experiment=reranker"],
    "experiment=reranker": ["model.name=owner/model"],
    "loss=library": ["loss._target_=sentence_transformers.sentence_transformer.losses.triplet.TripletLoss"],
    "loss=reranker_mnrl": ["experiment=reranker_any_to_any", "data.num_negatives=0"],
    **{
        option: ["experiment=reranker_any_to_any"]  # what is for rerankers alone
        for option in (
            *("data=doodles", "data=drawings", "loss=bce", "trainer=reranker", "trainer=reranker_tiny"),
            *("evaluator=reranking", "evaluator=reranking_tiny"),
        )
    },
    **{
        f"model={kind}{twin}": [f"experiment={kind}{twin}"]
        for kind in ("reranker_any_to_any", "reranker_features")
        for twin in ("", "_tiny")
    },
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
ARTICLE_RERANKER = {
    "model.name": "Qwen/Qwen3.5-0.8B",
    "model.true_token": "1",
    "model.false_token": "0",
    "model.prompts.image_to_text": "Given the image, judge whether the text matches it. "
    "Respond with 1 if they match, 0 if they don't.",
    "model.prompts.text_to_image": "Given the text, judge whether the image matches it. "
    "Respond with 1 if they match, 0 if they don't.",
    "data.path": "julianmoraes/doodles-captions-manual",
    "data.num_negatives": 4,
    "data.eval_fraction": 0.1,
    "trainer.num_train_epochs": 1,
    "trainer.per_device_train_batch_size": 8,
    "trainer.per_device_eval_batch_size": 32,
    "trainer.gradient_accumulation_steps": 4,
    "trainer.learning_rate": 5e-6,
    "trainer.warmup_steps": 0.1,
    "trainer.eval_steps": 0.25,
    "trainer.save_steps": 0.25,
    "trainer.save_total_limit": 2,
    "trainer.logging_steps": 0.1,
    "evaluator.num_candidates": 101,
}


def targets(node):
    if isinstance(node, dict):
        yield from [node["_target_"]] if "_target_" in node else []
        node = list(node.values())
    for value in node if isinstance(node, list) else []:
        yield from targets(value)


def check_here(config):
    """Check a config as where flash attention is installed: by name it is refused elsewhere (test_checks.py)."""
    if config["model"].get("attn_implementation") == "flash_attention_2":
        config["model"]["attn_implementation"] = "auto"
    check(config)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_option_composes_and_its_target_accepts_every_key(composed, group, option):
    check_here(composed(f"{group}={option}", *MANDATORY.get(f"{group}={option}", [])))


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_option_resolves_to_something_callable(composed, group, option):
    config = composed(f"{group}={option}", *MANDATORY.get(f"{group}={option}", []))
    for target in targets(config.get(group, {})):
        module, _, name = target.rpartition(".")
        assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize("group", GROUPS)
def test_planted_wrong_key_is_refused(composed, tmp_path, group):
    """The check would be worth nothing if it let a misspelt key in an option file through."""
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    option = next(path for path in (conf / group).glob("*.yaml") if path.stem == _default(group))
    option.write_text(option.read_text().rstrip() + "\nplanted_wrong_key: 1\n")
    with pytest.raises(ConfigError, match=f"{group}.planted_wrong_key is unknown"):
        check(composed(f"{group}={option.stem}", conf=conf))


RECIPES = [path.stem for path in sorted((CONF / "experiment").glob("*.yaml"))]


def _missing(recipe):
    return MANDATORY.get(f"experiment={recipe}", [])


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_says_its_command_and_what_it_needs(recipe):
    text = (CONF / "experiment" / f"{recipe}.yaml").read_text()
    header = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    assert text.startswith("# @package _global_\n")
    assert re.search(rf"python -m experiments\.\w+ .*experiment={recipe}\b", header)
    assert "Needs" in header or "offline" in header.lower()


@pytest.mark.parametrize("group", ["model", "data", "loss", "trainer", "evaluator"])
def test_planted_wrong_key_in_a_recipe_is_refused(composed, tmp_path, group):
    planted = yaml.safe_load((CONF / "experiment" / "router_tiny.yaml").read_text())
    planted[group] = (planted.get(group) or {}) | {"planted_wrong_key": 1}
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "planted.yaml").write_text(
        "# @package _global_\n" + yaml.safe_dump(planted, sort_keys=False)
    )
    config = composed(f"hydra.searchpath=[file://{tmp_path}]", "experiment=planted")
    with pytest.raises(ConfigError, match=f"{group}.planted_wrong_key is unknown"):
        check_here(config)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("group", ["model", "data", "loss", "trainer", "evaluator"])
def test_wrong_key_in_a_group_that_a_recipe_chooses_is_refused(composed, recipe, group):
    config = composed(f"experiment={recipe}", *_missing(recipe))
    config[group]["planted_wrong_key"] = 1
    with pytest.raises(ConfigError, match=f"{group}.planted_wrong_key is unknown"):
        check_here(config)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_with_a_dimension_above_its_models_is_refused(composed, recipe):
    config = composed(f"experiment={recipe}", *_missing(recipe))
    own = config["model"].get("embedding_dim")
    for key in ("matryoshka_dims", "default_dims"):
        assert own is None or max(config["matryoshka"].get(key) or [0]) <= own, f"matryoshka.{key}"
    if own is None:
        pytest.skip("its model declares no dimension")
    config["matryoshka"] |= {"_target_": "experiments.training.losses.matryoshka", "matryoshka_dims": [own + 1]}
    with pytest.raises(ConfigError, match=f"{own + 1} is above the model's {own} dimensions"):
        check_here(config)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_with_a_loss_that_its_columns_do_not_fit_is_refused(composed, recipe):
    config = composed(f"experiment={recipe}", *_missing(recipe))
    kind = config["loss"]["_target_"].partition(".losses")[0].removeprefix("experiments")
    if "cross_encoder" in kind or "rerank" in kind:
        planted = "sentence_transformers.cross_encoder.losses.list_net.ListNetLoss"
    elif "multi_vector" in kind:
        pytest.skip("the losses of late interaction have no labels to lack")
    else:
        planted = "sentence_transformers.sentence_transformer.losses.softmax.SoftmaxLoss"
    config["loss"] = {"_target_": planted, "_partial_": True}
    with pytest.raises(ConfigError, match=f"loss: {planted.rpartition('.')[2]}"):
        check_here(config)


TWINS = [option for group, option in OPTIONS if group == "model" and option.endswith("_tiny")]


@pytest.mark.parametrize("twin", TWINS)
def test_another_seed_of_a_twin_is_no_other_setting(composed, twin):
    """As experiments.compare groups runs: whatever takes its value from the seed must be known as one."""
    first, second = (composed(f"model={twin}", seed=seed) for seed in (1, 2))
    assert effective(first) != effective(second)
    assert effective(first, Role.SEED) == effective(second, Role.SEED)


def _default(group):
    defaults = yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]
    return next(entry[group] for entry in defaults if isinstance(entry, dict) and group in entry)


@pytest.mark.parametrize(
    ("group", "option"),
    [each for each in OPTIONS if each[0] in ("data", "evaluator") or each[0] == "model" and each[1].endswith("_tiny")],
)
def test_another_cache_is_no_other_run(composed, group, option):
    overrides = [f"{group}={option}", *MANDATORY.get(f"{group}={option}", [])]
    here, elsewhere = composed(*overrides), composed(*overrides, cache_dir="elsewhere")
    assert here != elsewhere and config_hash(here) == config_hash(elsewhere)
    assert "outputs/.cache" not in json.dumps(elsewhere)


def test_recipes_alone_choose_other_groups_and_what_the_embedded_twins_share():
    choosing = {path.relative_to(CONF) for path in CONF.rglob("*.yaml") if "override /" in path.read_text()}
    assert {str(path) for path in choosing if path.parts[0] != "experiment"} == {"model/base/tiny.yaml"}


def test_every_folder_of_conf_is_a_known_group():
    folders = {path.name for path in CONF.iterdir() if path.is_dir()}
    assert folders - {"hydra"} == {*GROUPS, "experiment"}


def test_article_recipe_has_the_article_values(composed):
    config = OmegaConf.create(composed("model=qwen3vl_2b", "data=vdr_en"))
    for key, value in ARTICLE.items():
        assert OmegaConf.select(config, key, throw_on_missing=True) == value, key


def test_a_model_is_saved_with_all_dimensions_but_by_the_articles_own_recipe(composed):
    recipes = {file.stem: yaml.safe_load(file.read_text()) for file in (CONF / "experiment").glob("*.yaml")}
    saved = {name: found.get("matryoshka", {}).get("truncate_dim") for name, found in recipes.items()}
    assert {name: dim for name, dim in saved.items() if dim is not None} == {"article": 1024}
    assert composed("experiment=article")["matryoshka"]["truncate_dim"] == 1024
    for line in ((), ("model=qwen3vl_2b", "data=vdr_en"), ("matryoshka=none",)):
        assert composed(*line)["matryoshka"]["truncate_dim"] is None


def test_rows_of_the_evaluation_loss_are_as_in_training_but_in_the_articles_own_recipe(composed):
    files = {option: CONF / "data" / f"{option}.yaml" for group, option in OPTIONS if group == "data"}
    asked = {option: yaml.safe_load(file.read_text()).get("num_eval_negatives") for option, file in files.items()}
    assert {*asked.values()} == {None}
    assert composed("experiment=article")["data"]["num_eval_negatives"] == 4


def test_models_of_the_leaderboard_are_those_that_are_published():
    published = yaml.safe_load((SRC / "reports" / "published.yaml").read_text())
    listed = yaml.safe_load((CONF / "experiment" / "leaderboard.yaml").read_text())["hydra"]["sweeper"]["params"][
        "model"
    ]
    files = [CONF / "model" / f"{option}.yaml" for option in listed.replace(" ", "").split(",")]
    options = {yaml.safe_load(file.read_text())["name"]: file for file in files}
    assert list(options) == [*dict.fromkeys(options)] and {*options} == {*published["models"]}
    for name, file in options.items():
        header, (parameters, ndcg) = file.read_text().partition("defaults:")[0], published["models"][name]
        assert f"nDCG@10 {ndcg:.3f}" in header, file.name
        if stated := re.search(rf"{name}, ([\d.]+) billion parameters", header):  # but for the article's base
            assert float(stated[1]) == round(parameters / 1e9, 2), file.name
    dims = yaml.safe_load(options["Qwen/Qwen3-VL-Embedding-2B"].read_text())["embedding_dim"]
    assert dims == max(published["dimensions"])
    assert all(yaml.safe_load(file.read_text()).get("embedding_dim") for file in files)


@pytest.mark.parametrize("experiment", ["reranker_any_to_any", "reranker_features"])
def test_reranker_recipes_have_the_articles_values(composed, experiment):
    config = OmegaConf.create(composed(f"experiment={experiment}"))
    for key, value in ARTICLE_RERANKER.items():
        assert OmegaConf.select(config, key, throw_on_missing=True) == value, key


def test_header_of_each_option_says_what_it_is():
    for group, option in OPTIONS:
        first = Path(CONF / group / f"{option}.yaml").read_text().splitlines()[0]
        assert first.startswith("# "), f"{group}/{option}.yaml"
