import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from peft import LoraConfig, inject_adapter_in_model
from transformers import Qwen3VLConfig, Qwen3VLModel

from experiments.config import architecture
from experiments.config.architecture import Architecture, read_architecture
from experiments.config.errors import ConfigError
from experiments.config.options import CONF
from experiments.runs import footprint

SIDE, IMAGE = (
    18,
    990,
)  # patches of a page's side: 324 is no width of a layer, by which weights are told from activations
PAGE_TOKENS, TEXT_TOKENS = (SIDE // 2) ** 2, 6
QWEN = "Qwen/Qwen3-VL-Embedding-2B"
RECIPE = ["model=qwen3vl_2b", "data=vdr_en"]


def composed(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=[*RECIPE, *overrides])
    return OmegaConf.to_container(config, resolve=True)


def small(num_text=2, num_vision=3):
    text = {"hidden_size": 128, "intermediate_size": 384, "num_attention_heads": 4, "num_key_value_heads": 2}
    text |= {"head_dim": 48, "num_hidden_layers": num_text, "vocab_size": 1000}
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [10, 7, 7], "mrope_interleaved": True}
    vision = {"hidden_size": 64, "intermediate_size": 256, "num_heads": 4, "out_hidden_size": 128, "depth": num_vision}
    config = Qwen3VLConfig(
        text_config=text | {"rope_parameters": rope},
        vision_config=vision | {"deepstack_visual_indexes": [0, 1], "patch_size": 16, "num_position_embeddings": 400},
        **{"image_token_id": IMAGE, "video_token_id": 991, "vision_start_token_id": 992, "vision_end_token_id": 993},
    )
    torch.manual_seed(0)
    return Qwen3VLModel(config)


def architecture_of(model):
    config = model.config
    return Architecture(config.text_config.to_dict(), config.vision_config.to_dict())


def kept_bytes(model):
    """Return the bytes of what a forward pass of a page keeps, beside weights and their copies."""
    shapes = {tuple(each.shape) for each in model.parameters() if each.dim() == 2}
    shapes |= {shape[::-1] for shape in shapes}
    known = {each.untyped_storage().data_ptr() for each in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known and tuple(tensor.shape) not in shapes:
            kept.setdefault(storage.data_ptr(), (storage.nbytes(), tensor))
        return tensor

    ids = torch.tensor([[5, 6, 992, *[IMAGE] * PAGE_TOKENS, 993, 7, 8]])
    pixels = torch.randn(SIDE**2, 1536).to(next(model.parameters()).dtype)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda each: each), torch.autocast("cpu", torch.bfloat16):
        model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == IMAGE).int(),
            pixel_values=pixels,
            image_grid_thw=torch.tensor([[1, SIDE, SIDE]]),
        )
    return sum(size for size, _ in kept.values())


def counted(model, dtype, **adapter):
    page, text = (architecture_of(model).kept_per_token(dtype, page=page, **adapter) for page in (True, False))
    return PAGE_TOKENS * page + TEXT_TOKENS * text


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_layers_keep_for_the_backward_pass_is_counted_as_torch_keeps_it(dtype):
    model = small().to(getattr(torch, dtype))
    deeper = small(num_text=4, num_vision=5).to(getattr(torch, dtype))
    kept, more = kept_bytes(model), kept_bytes(deeper)
    assert counted(model, dtype) == pytest.approx(kept, rel=0.02)
    # Of a layer: what is true of two is true of 28.
    assert counted(deeper, dtype) - counted(model, dtype) == pytest.approx(more - kept, rel=0.01)


def test_weights_are_counted_as_they_are():
    model = small()
    assert architecture_of(model).num_parameters() == pytest.approx(
        sum(each.numel() for each in model.parameters()), rel=0.02
    )
    assert read_architecture({"name": "Qwen/Qwen3-VL-Embedding-2B"}).num_parameters() == pytest.approx(
        2.127e9, rel=0.001
    )


def test_an_adapter_has_the_weights_that_peft_gives_it_and_keeps_what_torch_keeps():
    model = small()
    targets = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    names = [name for name, _, _ in architecture_of(model).text_linears()]
    assert set(names) <= {name for name, _ in model.named_modules()}
    adapted = [each for each in architecture_of(model).text_linears() if footprint.is_target(f"x.{each[0]}", targets)]
    wrapped = inject_adapter_in_model(LoraConfig(r=4, target_modules=targets), model.to(torch.bfloat16))
    trained = sum(each.numel() for each in wrapped.parameters() if each.requires_grad)
    assert sum(4 * (a + b) for _, a, b in adapted) == trained
    assert counted(model, "bfloat16", adapter=True) == pytest.approx(kept_bytes(wrapped), rel=0.05)


def test_the_articles_recipe_fits_the_cards_that_it_is_said_to():
    config = composed("model.dtype=float32")
    model = read_architecture(config["model"])
    found = footprint.footprint(config, model)
    assert (found.weights + found.gradients + found.optimizer) / footprint.GIB == pytest.approx(31.6, abs=0.15)
    assert found.page_tokens == 352
    with pytest.raises(
        ConfigError, match=r"needs about 5\d\.\d GiB .* 24 GB has 22\.5 GiB: type model\.dtype=bfloat16"
    ):
        footprint.check(config, model, footprint.parse_gpu("24GB"))
    footprint.check(config, model, footprint.parse_gpu("A100 80GB"))
    for size in (24, 48, 80):  # what is advised fits
        overrides = footprint.fitting(config, model, footprint.parse_gpu(f"{size} GB").memory)
        assert footprint.footprint(composed("model.dtype=float32", *overrides), model).gpu <= size * 2**30


def test_a_smaller_gpu_gets_smaller_mini_batches_unless_they_are_typed():
    config, gpu = composed("model.dtype=float32"), footprint.parse_gpu("48GB")
    assert footprint.loss_that_fits(config, gpu) == config["loss"] | {"default_num_tokens": 512}
    assert footprint.loss_that_fits(config, footprint.parse_gpu("80GB")) == config["loss"]
    assert footprint.loss_that_fits(config, None) == config["loss"]
    with pytest.raises(ConfigError, match=r"type loss\.mini_batch_num_tokens=512$"):
        footprint.loss_that_fits(composed("model.dtype=float32", "loss.mini_batch_num_tokens=4096"), gpu)
    twin = composed("model=qwen3vl_tiny", "data=report_pages")
    assert footprint.loss_that_fits(twin, footprint.parse_gpu("1GB")) == twin["loss"]  # it fits anywhere
    frozen = composed("model.dtype=float32", "+model.freeze=[visual]")
    footprint.check(frozen, read_architecture(frozen["model"]), gpu)


def test_processes_of_torchrun_hold_gradients_once_more(monkeypatch):
    config = composed()
    model = read_architecture(config["model"])
    alone = footprint.footprint(config, model).gradients
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert footprint.footprint(config, model).gradients == 2 * alone


def test_only_what_surely_does_not_fit_is_refused(caplog):
    gpu = footprint.parse_gpu("24GB")
    recipe, own = ["loss.mini_batch_size=16"], ["data=hub", "data.path=mine", "loss.mini_batch_size=16"]
    with pytest.raises(ConfigError, match=r"needs about 5\d\.\d GiB .*: type loss\.mini_batch_size=1$"):
        footprint.loss_that_fits(composed(*recipe), gpu)
    for line in (own, [*recipe, "model.max_pixels=null"]):  # pages may be small
        config = composed(*line)
        assert footprint.loss_that_fits(config, gpu) == config["loss"]
        assert "needs about" in caplog.text and "loss.mini_batch_size=1" in caplog.text
        caplog.clear()
    saved = composed("model.max_pixels=null")
    assert footprint.loss_that_fits(saved, gpu)["default_num_tokens"] == 512
    with pytest.raises(ConfigError, match="needs about"):  # whatever the pages
        footprint.loss_that_fits(composed(*own, "model.dtype=float32"), gpu)


@pytest.mark.parametrize(
    "option",
    [
        "+activation_checkpointing=true",
        "+auto_find_batch_size=true",
        "+use_cpu=true",
        "optim=adafactor",
        "optim=adamw_bnb_8bit",
    ],
)
def test_a_training_whose_memory_is_not_counted_passes(option):
    sign, option = ("+", option[1:]) if option[0] == "+" else ("", option)
    config = composed("model.dtype=float32", f"{sign}trainer.{option}")
    footprint.check(config, read_architecture(config["model"]), footprint.parse_gpu("24GB"))


def test_a_loss_without_mini_batches_gets_a_smaller_batch():
    config = composed("loss=mnrl")
    with pytest.raises(ConfigError, match=r"type trainer\.per_device_train_batch_size=8$"):
        footprint.loss_that_fits(config, footprint.parse_gpu("80GB"))
    del config["trainer"]["per_device_train_batch_size"]  # the library's is 8
    footprint.loss_that_fits(config, footprint.parse_gpu("80GB"))


def test_an_adapter_without_a_rank_has_pefts():
    lora = composed("+model/peft=lora")
    model = read_architecture(lora["model"])
    lora["model"]["peft"]["r"] = 8
    expected = footprint.footprint(lora, model)
    del lora["model"]["peft"]["r"]
    assert footprint.footprint(lora, model) == expected


def test_a_model_that_is_no_qwen3_vl_embedder_is_not_counted(tmp_path):
    sizes = json.loads(Path(architecture.__file__).with_name("architectures.json").read_text())[QWEN]
    for name in ("router", "whole", "adapter"):  # a saved Router has no config.json of its own
        (tmp_path / name).mkdir()
    for name in ("whole", "adapter"):
        (tmp_path / name / "config.json").write_text(json.dumps(sizes))
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": QWEN}))
    assert read_architecture({"name": str(tmp_path / "whole")}) is not None
    for name in (tmp_path / "router", tmp_path / "adapter", "no/such/name"):
        assert read_architecture({"name": str(name)}) is None
    assert read_architecture({"name": QWEN, "_target_": "experiments.models.rerankers.load_reranker"}) is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("RTX 4090", "RTX 4090 (24 GB)"),
        ("rtx4090", "RTX 4090 (24 GB)"),
        ("NVIDIA H100 80GB HBM3", "H100 (80 GB)"),
        ("A100-SXM4-80GB", "A100-80GB (80 GB)"),  # no A10
        ("NVIDIA L40S", "L40S (48 GB)"),
        ("24gb", "24 GB"),
    ],
)
def test_a_gpu_is_named_by_its_card_or_its_size(text, name):
    assert footprint.parse_gpu(text).name == name


def test_a_gpu_that_is_neither_is_refused():
    assert footprint.peak_of("NVIDIA L40") is None  # no L4
    with pytest.raises(ConfigError, match="--gpu=big: type a size such as 24GB, or one of RTX 3090"):
        footprint.parse_gpu("big")
