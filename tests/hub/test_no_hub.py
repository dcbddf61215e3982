"""Where no Hub is needed none is asked: a folder's name is told to nobody."""

SMALL = (
    "data.num_train_rows=16 data.num_eval_rows=4 trainer.per_device_train_batch_size=8 trainer.num_train_epochs=1 "
    "trainer.eval_strategy=no trainer.save_strategy=no evaluator.num_bootstrap=10"
)


def test_the_embedded_default_asks_nothing(typed):
    done = typed(f"python -m experiments.train {SMALL}")
    assert done.code == 0, done.output
    assert done.requests == []


def test_a_model_from_a_folder_asks_nothing(typed, standins):
    folder = standins / "models" / "sentence-transformers" / "clip-ViT-L-14"
    done = typed(
        f"python -m experiments.train {SMALL} model=saved model.name={folder} matryoshka=none loss.mini_batch_size=8"
    )
    assert done.code == 0, done.output
    assert done.requests == []


def test_a_reranker_and_its_retriever_from_folders_ask_nothing(typed, standins):
    recipe = "experiment=reranker_any_to_any data=drawings evaluator.num_candidates=10"
    few = "data.num_train_rows=8 data.num_eval_rows=4 trainer.eval_strategy=no trainer.save_strategy=no"
    done = typed(f"python -m experiments.train {recipe} {few} model.name={standins / 'models/Qwen/Qwen3.5-0.8B'}")
    assert done.code == 0, done.output
    assert done.requests == []
