"""What someone new is likely to type is answered with the line that is meant, which is one that works."""

import importlib.util
import json
import shlex
import subprocess
import sys

import pytest

from experiments import cli, plan
from experiments.config import tables
from experiments.config.checks import check
from experiments.config.errors import ConfigError

LINES = {  # as typed -> as meant
    "batch_size=8": "trainer.per_device_train_batch_size=8",
    "epochs=2 lr=1e-5 dtype=bfloat16 output_dir=x": "trainer.num_train_epochs=2 trainer.learning_rate=1e-5"
    " model.dtype=bfloat16 hydra.run.dir=x",
    "learning_rate=1e-5 max_steps=10 loss=mnrl": "trainer.learning_rate=1e-5 +trainer.max_steps=10 loss=mnrl",
    "-m output_dir=x seed=1,2": "-m hydra.sweep.dir=x seed=1,2",
    "--epochs 3": "trainer.num_train_epochs=3",
    "--batch-size 8 --lr=1e-5 seed 3 --bf16": "trainer.per_device_train_batch_size=8 trainer.learning_rate=1e-5"
    " seed=3 trainer.bf16=true",
    "--model saved model.name=a/b --data drawings_pairs": "model=saved model.name=a/b data=drawings_pairs",
    "seed = 3 epochs 2": "seed=3 trainer.num_train_epochs=2",
    "clip_tiny": "model=clip_tiny",
    "model=Qwen3-VL-Embedding-2B data=owner/name": "model=qwen3vl_2b data=hub data.path=owner/name",
    "model=owner/name": "model=saved model.name=owner/name",
    "model=owner/a-reranker": "experiment=reranker model.name=owner/a-reranker",
    "-m model=Qwen/Qwen3-VL-Embedding-2B,clip_tiny": "-m model=qwen3vl_2b,clip_tiny",
    "model=run": "model=saved model.name=run/final",
    "model=cross": "experiment=reranker model.name=cross",
    "data=llamaindex/vdr-multilingual-train": "data=vdr_multilingual",
    "data=pages": "data=table data.train=pages/train.csv data.eval=pages/my_eval.csv data.corpus=pages/corpus.jsonl",
    "dataset=others.csv": "data=table data.train=others.csv data.columns.query=question data.columns.positive=scan",
    "data=saved": "data=hub data.path=saved data.eval=null",
    "data.train=pages/train.csv": "data=table data.train=pages/train.csv",
    "pages/train.csv": "data=table data.train=pages/train.csv",
    "device=cuda seed=1": "seed=1",
    "data=a=b,c/(1).csv": "data=table 'data.train=\"a=b,c/(1).csv\"'",
    "--data a=b,c/(1).csv": "data=table 'data.train=\"a=b,c/(1).csv\"'",
    "data=größen.csv": "data=table 'data.train=\"größen.csv\"' data.columns.query=Seite"
    " 'data.columns.positive=\" Größe (cm)\"'",
    "data=table data.train=two words/train.csv": "data=table 'data.train=two words/train.csv'",
    "data.train=two words/train.csv seed=1": "data=table 'data.train=two words/train.csv' seed=1",
    "trainer.output_dir=out": "hydra.run.dir=out",
    "trainer.report_to=wandb": "tracking=trackio",
    "--report_to none": "tracking=none",
    "wandb": "tracking=trackio",
    "--resume seed=1": "trainer.resume=auto seed=1",
    "model.name=run": "model=saved model.name=run/final",
    "model.name=cross": "experiment=reranker model.name=cross",
    "run": "model=saved model.name=run/final",
    "outputs/foo": "model=saved model.name=outputs/foo",
    "Qwen/Qwen3-VL-Embedding-2B": "model=qwen3vl_2b",
    "model.device=cuda seed=1": "seed=1",
    "model=~/a=b": "model=saved 'model.name=\"~/a=b/final\"'",
}


@pytest.fixture(autouse=True)
def _typed(monkeypatch):
    main = importlib.util.find_spec("experiments.train")  # of a process of pytest-xdist it is none
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", main)


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A folder with tables, a saved data set, a run and a reranker."""
    folder = tmp_path_factory.mktemp("guesses")
    for name in ("pages", "saved", "run/final", "cross", "a=b,c", "a=b/final", "two words"):
        (folder / name).mkdir(parents=True)
    (folder / "pages" / "train.csv").write_text("query,page\nwhat,a\n")
    (folder / "two words" / "train.csv").write_text("query,page\nwhat,a\n")
    (folder / "pages" / "my_eval.csv").write_text("query,page\nwho,b\n")
    (folder / "pages" / "corpus.jsonl").write_text('{"page": "c"}\n')
    (folder / "others.csv").write_text("question;scan\nwhat, or who;a\n")
    (folder / "a=b,c" / "(1).csv").write_text("query,page\nwho,b\n")
    (folder / "größen.csv").write_text("Seite, Größe (cm)\na,1\n")
    (folder / "two.csv").write_text("Frage\tSeite\nwas\ta\n")
    (folder / "three.csv").write_text("a,b,c\n1,2,3\n")
    (folder / "saved" / "state.json").write_text("{}")
    embedder = "SentenceTransformer"
    for name, kind in (("run/final", embedder), ("a=b/final", embedder), ("cross", "CrossEncoder")):
        (folder / name / "config_sentence_transformers.json").write_text(json.dumps({"model_type": kind}))
        (folder / name / "modules.json").write_text("[]")
    return folder


def said(typed, **more):
    return cli.explain(ConfigError("as it was"), shlex.split(typed), **more)


@pytest.mark.parametrize("typed", LINES)
def test_a_likely_guess_is_answered_with_the_line_that_is_meant(typed, there, composed, monkeypatch):
    monkeypatch.chdir(there)
    monkeypatch.setenv("HOME", str(there))
    answer = said(typed)
    command, words = shlex.split(LINES[typed].removeprefix("-m ")), shlex.split(answer)
    assert answer.endswith(f" {LINES[typed]}") and "not understood" in answer and "\n" not in answer
    assert words[words.index("type") + 1 :][:2] == ["python", "-m"]
    first = [each.partition(",")[0] if typed.startswith("-m") else each for each in command]
    check(composed(*first))  # the line that is offered works


@pytest.mark.parametrize(
    "typed", ["seed=3", "--nope 3", "foo 3", "--multirn", "modle=saved", "loss.mini_batch_size=1,4"]
)
def test_what_is_no_guess_is_explained_as_before(typed):
    assert said(typed) == "as it was"


def test_what_is_not_there_is_said(there, monkeypatch):
    monkeypatch.chdir(there)
    assert "; there is no train.csv here; type " in said("data=train.csv")
    assert "; there is no a/b here, so it is looked for on the Hub; type " in said("data=a/b")
    assert "; cross has no table; write one, with columns query and page " in said("data=cross")
    assert said("--model nothing").endswith(" model=NAME") and "--help lists them" in said("--model nothing")


def test_a_gpu_is_named_in_the_environment():
    assert "type CUDA_VISIBLE_DEVICES=1 python -m" in said("gpu=1")
    assert "type CUDA_VISIBLE_DEVICES= python -m" in said("--device cpu")
    assert "type torchrun --nproc_per_node 4 -m" in said("gpus=4")
    assert said("gpu=4090 seed=1", also=["--gpu"]).endswith(" --gpu 4090 seed=1")


def test_a_guess_is_one_line_with_exit_code_2_and_leaves_nothing(tmp_path):
    (tmp_path / "rows.csv").write_text("query,page\n")
    command = [sys.executable, "-m", "experiments.evaluate", "batch_size=8", "data=rows.csv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, [*tmp_path.iterdir()]) == (2, [tmp_path / "rows.csv"])
    line = "python -m experiments.evaluate evaluator.batch_size=8 data=table data.eval=rows.csv"
    assert done.stderr == f"error: batch_size=8 and data=rows.csv are not understood; type {line}\n"


@pytest.mark.parametrize("command", [["experiments"], ["experiments.evaluate"]])
def test_the_version_is_ours_with_the_libraries(command, tmp_path):
    done = subprocess.run([sys.executable, "-m", *command, "--version"], cwd=tmp_path, capture_output=True, text=True)
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert (done.returncode, names) == (0, ["experiments", "sentence-transformers", "transformers", "torch"])


def test_evaluate_has_a_help_of_its_own(tmp_path):
    command = [sys.executable, "-m", "experiments.evaluate", "--help"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "python -m experiments.evaluate model=saved model.name=RUN data=table data.eval=FILE" in said
    assert "  model: " in said and "  trainer: " not in said and "experiments.train" not in said


def test_the_word_help_is_help(tmp_path):
    done = subprocess.run([sys.executable, "-m", "experiments.train", "help"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0 and b"Groups and their options" in done.stdout and not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ["data.train=pages"],
            "a folder; type data.train=pages/train.csv data.eval=pages/my_eval.csv data.corpus=pages/corpus",
        ),
        (["data.train=run"], "with no table in it; type data=hub data.path=run for a data set"),
        (["data.train=others.csv"], "question, scan: type data.columns.query=question data.columns.positive=scan"),
        (["data.train=two.csv"], "it has Frage, Seite: type data.columns.query=Frage data.columns.positive=Seite"),
        (["data.train=three.csv"], "it has a, b, c: type data.columns.query=NAME data.columns.positive=NAME"),
        (
            ["data.train=pages/train.csv", "data.columns.negatives=[pge]"],
            "no column pge; it has query, page: did you mean",
        ),
        (["data.train=run/final/modules.txt"], "there is no such file"),
    ],
)
def test_a_table_that_is_none_or_has_other_columns_is_refused_before_anything_is_loaded(
    overrides, says, there, composed, monkeypatch
):
    monkeypatch.chdir(there)
    with pytest.raises(ConfigError, match="data.train") as caught:
        check(composed("data=table", *overrides))
    assert says in str(caught.value)


def test_columns_are_those_of_the_first_rows_and_a_tsv_s_are_parted_by_tabs(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"query": "a"}\n{"query": "a", "page": "b"}\n')
    (tmp_path / "rows.tsv").write_text("query, or text\tpage\na\tb\n")
    assert tables.column_names(tmp_path / "rows.jsonl") == ["query", "page"]
    assert tables.column_names(tmp_path / "rows.tsv") == ["query, or text", "page"]


def test_a_table_as_the_path_of_a_data_set_is_refused(there, composed, monkeypatch):
    monkeypatch.chdir(there)
    with pytest.raises(ConfigError, match="type data=table data.train=others.csv"):
        check(composed("data=hub", "data.path=others.csv"))


def test_plan_says_for_which_models_a_gpu_is_counted(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["plan", "--gpu", "H100"])
    assert plan.main() == 0
    assert "GPU:    H100 (80 GB): memory and time on a GPU are counted for Qwen3-VL" in capsys.readouterr().out


def test_plan_understands_the_same_and_a_card_by_its_number(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["plan", "epochs=2", "--gpu", "4090"])
    assert plan.main() == 2
    assert capsys.readouterr().err.endswith(" trainer.num_train_epochs=2 --gpu 4090\n")
