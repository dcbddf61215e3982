import io
import json
import threading
import warnings
import weakref

import numpy as np
import pytest
import pytrec_eval
from datasets import Dataset, Features, Image, Value
from PIL import Image as PILImage
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from experiments.config.errors import ConfigError
from experiments.data.document_names import DocumentName
from experiments.data.types import Direction
from experiments.evaluation.retrieval import RetrievalEvaluator
from experiments.evaluation.samples import misses_first, samples, worst_first
from experiments.evaluation.trec import Ranking
from experiments.models.embedders import load_embedder
from experiments.runs.files import load_json, save_json
from experiments.runs.metrics_file import PRIMARY_METRIC
from experiments.stages import evaluate_base, trained_dimensions

ONLY = "query_to_document"
DIMS = [96, 48, 24, 12]
COLORS = ["red", "green", "blue", "yellow", "black", "white", "purple", "orange"]


@pytest.fixture(scope="module")
def model(tiny_folder):
    return load_embedder(str(tiny_folder), embedding_dim=96, min_pixels=784, max_pixels=16384)


def page(rng, size):
    pixels = np.full((size[1], size[0], 3), rng.integers(256, size=3), dtype=np.uint8)
    pixels[: size[1] // 2] = rng.integers(256, size=3)
    file = io.BytesIO()
    PILImage.fromarray(pixels).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def make_data(seed):
    """Sixteen queries; a fourth of them have two relevant pages among forty, the ids in no order."""
    rng = np.random.default_rng(seed)
    ids = [f"{number:08x}" for number in rng.permutation(2**20)[:40]]
    pages = [page(rng, (48 + 16 * (row % 4), 64)) for row in range(40)]
    corpus = Dataset.from_dict(
        {"corpus_id": ids, "document": pages},
        features=Features({"corpus_id": Value("string"), "document": Image()}),
    )
    texts = [f"a {first} page with a {second} head" for first in COLORS[:4] for second in COLORS[4:]]
    queries = Dataset.from_dict({"query_id": [f"q{row}" for row in range(16)], "query": texts})
    relevant_docs = {f"q{row}": {ids[row], ids[39 - row]} if row % 4 == 0 else {ids[row]} for row in range(16)}
    return queries, corpus, relevant_docs


@pytest.fixture(scope="module")
def data():
    return make_data(0)


def one_direction(*inputs):
    return {ONLY: Direction(*inputs)}


def library_metrics(model, data, truncate_dim):
    queries, corpus, relevant_docs = data
    evaluator = InformationRetrievalEvaluator(
        dict(zip(queries["query_id"], queries["query"], strict=True)),
        dict(zip(corpus["corpus_id"], corpus["document"], strict=True)),
        relevant_docs,
        write_csv=False,
        truncate_dim=truncate_dim,
    )
    return evaluator(model)


def test_metrics_equal_the_library_evaluators_at_every_dimension(model, data):
    evaluation = RetrievalEvaluator(one_direction(*data), truncate_dims=DIMS, batch_size=7).evaluate(model)
    assert list(evaluation.dimensions) == DIMS
    for dim in DIMS:
        expected = library_metrics(model, data, dim)
        assert list(evaluation.dimensions[dim].metrics) == list(expected)
        assert evaluation.dimensions[dim].metrics == pytest.approx(expected, abs=1e-5)


def test_trec_files_give_pytrec_eval_the_reported_metrics(model, data, tmp_path):
    evaluation = RetrievalEvaluator(one_direction(*data), truncate_dims=DIMS).evaluate(model)
    evaluation.write(tmp_path / "rankings", "final")
    names = [
        "final.npz",
        "final_dim0012.trec",
        "final_dim0024.trec",
        "final_dim0048.trec",
        "final_dim0096.trec",
        "qrels.trec",
    ]
    assert sorted(path.name for path in (tmp_path / "rankings").iterdir()) == names
    with (tmp_path / "rankings" / "qrels.trec").open() as file:
        qrels = pytrec_eval.parse_qrel(file)
    measures = {"ndcg_cut_10": "ndcg@10", "map_cut_100": "map@100", "success_3": "accuracy@3", "recall_5": "recall@5"}
    for dim in DIMS:
        with (tmp_path / "rankings" / f"final_dim{dim:04d}.trec").open() as file:
            run = pytrec_eval.parse_run(file)
        by_query = pytrec_eval.RelevanceEvaluator(qrels, {*measures}).evaluate(run)
        for theirs, ours in measures.items():
            values = [by_query[query_id][theirs] for query_id in evaluation.dimensions[96].query_ids]
            assert evaluation.dimensions[dim].metrics[f"cosine_{ours}"] == pytest.approx(np.mean(values), abs=1e-12)
        ndcg = [by_query[query_id]["ndcg_cut_10"] for query_id in evaluation.dimensions[96].query_ids]
        assert evaluation.dimensions[dim].values[PRIMARY_METRIC] == pytest.approx(ndcg, abs=1e-12)


def test_a_base_evaluation_is_taken_up_unless_the_version_before_wrote_it(model, data, tmp_path):
    evaluator = RetrievalEvaluator(one_direction(*data), truncate_dims=[48])
    saved = tmp_path / "rankings" / "base.json"
    save_json(saved, {"base": {"96": {PRIMARY_METRIC: 0.5}}, "base_from_cache": False})
    measured = evaluate_base(evaluator, model, tmp_path)
    assert [*measured["base"]["dimensions"]] == ["96", "48"] and load_json(saved) == measured
    save_json(saved, measured | {"base_from_cache": "kept"})
    assert evaluate_base(evaluator, model, tmp_path)["base_from_cache"] == "kept"


def test_equal_pages_are_ranked_by_descending_id_as_trec_eval_does(model):
    copies = Dataset.from_dict({"corpus_id": ["b", "d", "a", "c"], "document": ["the same page"] * 4})
    queries = Dataset.from_dict({"query_id": ["q"], "query": ["a page"]})
    evaluation = RetrievalEvaluator(one_direction(queries, copies, {"q": {"c"}})).evaluate(model)
    for dim in DIMS:
        assert evaluation.rankings[f"dim{dim:04d}"][ONLY].document_ids.tolist() == [["d", "c", "b", "a"]]
        assert evaluation.dimensions[dim].metrics["cosine_mrr@10"] == 0.5


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_page_is_decoded_once_and_at_most_two_batches_are_in_memory(model, num_workers):
    queries, corpus, relevant_docs = make_data(1 + num_workers)  # pages that no evaluation has kept yet
    lock, decoded, num_alive = threading.Lock(), [], []

    def count(rows):
        with lock:
            decoded.extend(weakref.ref(image) for image in rows.get("document", []))
            num_alive.append(sum(image() is not None for image in decoded))
        return rows

    evaluator = RetrievalEvaluator(
        one_direction(queries, corpus.with_transform(count), relevant_docs), batch_size=8, num_workers=num_workers
    )
    decoded.clear(), num_alive.clear()  # a transform runs on the whole row, even for the ids
    evaluator.evaluate(model)
    assert len(decoded) == 40
    assert max(num_alive) <= 2 * 8


def test_workers_change_nothing_and_warn_of_nothing(model, data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with_workers = RetrievalEvaluator(one_direction(*data), num_workers=2, batch_size=8)(model)
    assert with_workers == RetrievalEvaluator(one_direction(*data), num_workers=0, batch_size=8)(model)


def test_metrics_carry_the_names_that_the_trainer_and_the_card_expect(model, data):
    expected = library_metrics(model, data, None)[PRIMARY_METRIC]
    model.model_card_data.eval_results_dict.clear()
    evaluator = RetrievalEvaluator(one_direction(*data), name="pages", truncate_dims=[48])
    assert evaluator.primary_metric == "pages_cosine_ndcg@10"
    metrics = evaluator(model, epoch=1.0, steps=10)
    assert len(metrics) == 2 * 15
    assert metrics["pages_cosine_ndcg@10"] == pytest.approx(expected, abs=1e-5)
    assert "pages-48d_cosine_ndcg@10" in metrics
    evaluator(model, epoch=1.0, steps=20)
    on_card = {shown.name: shown.primary_metric for shown in model.model_card_data.eval_results_dict}
    assert on_card == {"pages": "pages_cosine_ndcg@10", "pages-48d": "pages-48d_cosine_ndcg@10"}
    assert model.model_card_data.training_logs[-1].keys() == {"Epoch", "Step", *on_card.values()}
    [table] = model.model_card_data.format_eval_metrics()["eval_metrics"]  # one, with a column per dimension
    assert table["dataset_name"] == ["pages", "pages-48d"]


def test_the_trainer_prefixes_the_metrics_with_eval(model, data, tmp_path):
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True),
        evaluator=RetrievalEvaluator(one_direction(*data), name="pages", truncate_dims=[48]),
    )
    logged = trainer.evaluate()
    assert {"eval_pages_cosine_ndcg@10", "eval_pages-48d_cosine_ndcg@10", "eval_pages-48d_cosine_map@100"} <= set(
        logged
    )


def test_section_holds_interval_and_precisions_beside_each_dimensions_metrics(model, data):
    evaluation = RetrievalEvaluator(one_direction(*data), truncate_dims=[96, 12]).evaluate(model)
    assert [*evaluation.to_json()] == ["dimensions"]
    section = evaluation.to_json()["dimensions"]
    assert list(section) == ["96", "12"]
    low, high = section["96"]["cosine_ndcg@10_ci95"]
    assert low < section["96"]["cosine_ndcg@10"] < high
    assert set(section["96"]["int8"]) == set(section["96"]["binary"]) == set(evaluation.dimensions[96].metrics)
    assert "int8" in section["12"] and "binary" not in section["12"]  # 12 bits are no whole bytes


def test_int8_ranks_by_cosine_of_the_integers_and_binary_by_hamming_distance(model, data):
    from sentence_transformers.util.quantization import quantize_embeddings

    queries, corpus, relevant_docs = data
    evaluation = RetrievalEvaluator(one_direction(*data)).evaluate(model)
    query_vectors = model.encode_query(queries["query"][:])
    document_vectors = model.encode_document(corpus["document"][:])
    ids = np.array(corpus["corpus_id"])

    def mrr(scores):
        values = []
        for query_id, row in zip(queries["query_id"], scores, strict=True):
            ranked = sorted(zip(row, ids, strict=True), reverse=True)
            first = next(rank for rank, (_, id_) in enumerate(ranked, start=1) if id_ in relevant_docs[query_id])
            values.append(1 / first if first <= 10 else 0)
        return np.mean(values)

    ranges = np.stack([document_vectors.min(axis=0), document_vectors.max(axis=0)])
    int8 = [quantize_embeddings(v, "int8", ranges=ranges).astype(float) for v in (query_vectors, document_vectors)]
    cosine = (int8[0] @ int8[1].T) / np.outer(*(np.linalg.norm(codes, axis=1) for codes in int8))
    assert evaluation.dimensions[96].precisions["int8"]["cosine_mrr@10"].mean() == pytest.approx(mrr(cosine))
    hamming = ((query_vectors > 0)[:, None] != (document_vectors > 0)[None]).sum(axis=2)
    assert evaluation.dimensions[96].precisions["binary"]["cosine_mrr@10"].mean() == pytest.approx(mrr(-hamming))


def test_attributes_are_the_share_of_right_pages_that_beat_the_page_differing_in_them(model, data):
    queries, corpus, relevant_docs = data
    ids = corpus["corpus_id"][:]
    negatives = {"q1": {"color": ids[20], "itself": ids[1]}, "q2": {"color": ids[21]}}
    evaluation = RetrievalEvaluator(one_direction(*data, negatives)).evaluate(model)
    rank_of = [
        {id_: rank for rank, id_ in enumerate(evaluation.rankings["dim0096"][ONLY].document_ids[row].tolist())}
        for row in (1, 2)
    ]
    wins = [rank_of[0][ids[1]] < rank_of[0][ids[20]], rank_of[1][ids[2]] < rank_of[1][ids[21]]]
    assert evaluation.attributes == {"color": np.mean(wins), "itself": 0.0}  # a tie is no win


def test_a_saved_models_truncate_dim_is_its_full_dimension(model, data):
    with model.truncate_embeddings(48):
        evaluation = RetrievalEvaluator(one_direction(*data)).evaluate(model)
        assert list(evaluation.dimensions) == [48, 24, 12, 6]
        with pytest.raises(ConfigError, match="48"):
            RetrievalEvaluator(one_direction(*data), truncate_dims=DIMS)(model)


def test_texts_are_documents_too_and_unanswered_queries_are_left_out(model):
    corpus = Dataset.from_dict({"corpus_id": ["1", "2"], "document": ["a red page", "one blue sheet of paper"]})
    queries = Dataset.from_dict({"query_id": ["a", "b", "c"], "query": ["red", "a red page", "blue"]})
    evaluation = RetrievalEvaluator(one_direction(queries, corpus, {"b": {"1"}, "c": set()})).evaluate(model)
    assert evaluation.dimensions[96].query_ids == ["b"]
    assert evaluation.dimensions[96].metrics["cosine_accuracy@1"] == 1


@pytest.mark.parametrize("truncate_dims", [None, [96, 48, 24, 12], [48], [8, 8], []])
@pytest.mark.parametrize("saved_dim", [None, 96, 48, 40])
def test_dimensions_are_a_set_to_which_the_full_and_the_saved_one_belong(model, data, truncate_dims, saved_dim):
    evaluation = RetrievalEvaluator(one_direction(*data), truncate_dims=truncate_dims, saved_dim=saved_dim).evaluate(
        model
    )
    chosen = {48, 24, 12} if truncate_dims is None else {*truncate_dims}
    assert [*evaluation.dimensions] == sorted({96, *chosen} | {saved_dim or 96}, reverse=True)


def test_no_relevant_document_at_all_is_a_config_error(data):
    with pytest.raises(ConfigError, match="no query"):
        RetrievalEvaluator(one_direction(data[0], data[1], {}))


def test_samples_are_misses_first_with_pages_that_are_decoded_when_read(model, data):
    evaluation = RetrievalEvaluator(one_direction(*data)).evaluate(model)
    ranking, direction = evaluation.rankings["dim0096"][ONLY], Direction(*data)
    found = [*samples(ranking, direction, misses_first(ranking, direction.relevant_docs))]
    missed = [sample.right[0].rank != 1 for sample in found]
    assert missed == sorted(missed, reverse=True)
    assert sum(missed) == round(16 * (1 - evaluation.dimensions[96].metrics["cosine_accuracy@1"]))
    for sample in found:
        assert sample.read() == data[0][int(sample.query_id[1:])]["query"]
        assert isinstance(sample.right[0].read(), PILImage.Image)
        assert [hit.rank for hit in sample.top] == [1, 2, 3, 4, 5]
        assert [hit.score for hit in sample.top] == sorted((hit.score for hit in sample.top), reverse=True)
        in_top = [hit for hit in sample.right if hit.rank is not None and hit.rank <= 5]
        assert [hit.document_id for hit in sample.top if hit.is_relevant] == [hit.document_id for hit in in_top]


def test_the_worst_queries_are_those_of_the_lowest_value_then_those_whose_right_page_is_farthest_down():
    corpus = Dataset.from_dict({"corpus_id": [*"abc"], "document": ["first", "second", "third"]})
    queries = Dataset.from_dict({"query_id": [*"pqrs"], "query": ["well", "badly", "worse", "nearly"]})
    names = {id_: DocumentName(f"{id_}.png", 0, None, f"{id_}.png", 1) for id_ in "abc"}
    direction = Direction(queries, corpus, {"p": {"a"}, "q": {"b"}, "r": {"c"}, "s": {"b"}}, names=names)
    ranking = Ranking([*"pqrs"], np.array([["a", "b"]] * 4), np.array([[0.9, 0.5]] * 4))
    values = np.array([1.0, 0.0, 0.0, 0.6])
    rows = worst_first(ranking, direction.relevant_docs, values)
    found = [*samples(ranking, direction, rows)]
    assert [sample.read() for sample in found] == ["worse", "badly", "nearly"]
    [beyond] = found[0].right  # below the ranking's end
    assert (beyond.read(), beyond.name, beyond.rank, beyond.score) == ("third", "c.png", None, None)
    [right] = found[1].right
    assert (right.read(), right.rank, right.score) == ("second", 2, 0.5)
    assert [(hit.name, hit.is_relevant) for hit in found[1].top] == [("a.png", False), ("b.png", True)]


def test_an_evaluation_is_at_dimensions_that_were_typed_or_chosen_or_that_the_model_was_trained_for(
    composed, tiny_model, tiny_folder, tmp_path
):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "README.md").write_text('"matryoshka_dims": [\n 96,\n 32\n]')

    def dims(*typed, name=tiny_folder, option="default"):
        (tmp_path / ".hydra" / "overrides.yaml").write_text(json.dumps(typed))
        config = composed("model=saved", f"model.name={name}", *typed)
        return trained_dimensions(config, {"matryoshka": option}, tiny_model, tmp_path, {}).dims

    assert dims() == (96,)
    assert dims(name=tmp_path / "trained") == (96, 32)
    assert dims("matryoshka=default") == dims("matryoshka.default_dims=[512,64]") == (96, 64)
    assert dims("matryoshka.matryoshka_dims=[24,16]") == (24, 16)
    assert dims("matryoshka=tiny", option="tiny") == (96, 48, 24, 12)  # as an offline twin's option does
