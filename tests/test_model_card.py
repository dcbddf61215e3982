"""What a model card says and shows of the data that the model was trained on."""

import csv
import json
import logging
import shutil

import pytest
import yaml
from PIL import Image

from experiments.config.cards import corrected, is_own
from experiments.train import train

SMALL = [
    *("trainer.num_train_epochs=1", "trainer.per_device_train_batch_size=4", "trainer.eval_strategy=no"),
    *("trainer.save_strategy=epoch", "data.num_eval_rows=4", "evaluator.num_bootstrap=10", "evaluator.cache_dir=null"),
    *("evaluator.precisions=[float32]", "tracking=none"),
]
SECRET = "the figures of the merger"
OF_THE_RECIPE = ["model=qwen3vl_2b", "data=vdr_en"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Pages and queries that are nobody else's business."""
    folder = tmp_path_factory.mktemp("own")
    with (folder / "rows.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["query", "page"])
        for number in range(12):
            Image.new("RGB", (64, 64), (number * 20, 0, 0)).save(folder / f"{number}.png")
            writer.writerow([f"{SECRET}, part {number}", f"{number}.png"])
    return folder / "rows.csv"


def trained(config, overrides, folder):
    """Run a training as the command line would, with what was typed beside it; returns the card's folder."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    train(config, folder, name="card", choices={"model": "qwen3vl_tiny", "data": "table"})
    return folder / "final"


@pytest.mark.parametrize(("card_examples", "shown"), [("auto", False), ("true", True)])
def test_own_rows_and_pages_are_on_the_card_only_if_asked_for(composed, table, tmp_path, caplog, card_examples, shown):
    typed = [f"trainer.card_examples={card_examples}", "data=table", f"data.train={table}", *SMALL]
    typed += ["+model.card.license=mit"] * shown
    caplog.set_level(logging.INFO)
    final = trained(composed(*typed), typed, tmp_path / "run")
    for folder in (final, *(tmp_path / "run" / "checkpoints").glob("checkpoint-*")):
        card = (folder / "README.md").read_text()
        assert (SECRET in card) == shown
        assert (folder / "assets").exists() == shown
        assert "* Size: 8 training samples" in card
        assert ("license: mit" in card) == shown
        assert "Tiny Qwen3-VL" not in card and "language:" not in card and "apache-2.0" not in card
    said = json.loads((tmp_path / "run" / "metrics.json").read_text())["warning"]
    assert said.startswith("model=qwen3vl_tiny is a tiny model")
    messages = [record.message for record in caplog.records if record.name.startswith("experiments")]
    assert messages[0] == said  # before the work, and after the verdict
    assert [before[:8] for before, text in zip(messages, messages[1:], strict=False) if text == said] == ["Verdict:"]
    quoted = [line.strip("> ") for line in (tmp_path / "run" / "report.md").read_text().split("|")[0].splitlines()]
    assert {f"**Warning:** {said.strip()}".splitlines()[0], *map(str.strip, said.splitlines()[1:])} <= {*quoted}
    shutil.rmtree(tmp_path / "run")


def test_the_card_has_licence_language_and_name_from_the_data_or_the_user_not_from_another_recipe(composed):
    own = composed("model=qwen3vl_2b", "data=table", "data.train=rows.csv")["data"]
    choices = {"model": "qwen3vl_2b", "data": "table", "experiment": "null"}
    nothing = {"language": [], "license": None, "model_name": None}
    assert corrected(own, choices, []) == nothing
    assert corrected(own, choices, ["model.card.license=mit", "seed=1"]) == {"language": [], "model_name": None}
    assert corrected(own, choices, ["++model.card={language: de}"]) == {}
    assert corrected(own, choices | {"model": "mine"}, []) == {}  # an option of one's own
    assert corrected(composed(*OF_THE_RECIPE)["data"], choices, []) == {}
    of_language = ("experiment=vdr_multilingual", "data.language=it")
    assert corrected(composed(*of_language)["data"], choices, []) == {"language": ["it"]}
    assert corrected(composed(*of_language, "data.path=copy")["data"], choices, []) == nothing | {"language": ["it"]}
    assert corrected(composed(*of_language)["data"], choices, ["model.card.language=de"]) == {}


@pytest.mark.parametrize(
    ("data", "own"),
    [
        *((name, False) for name in ("vdr_en", "vdr_en_full", "vdr_multilingual", "vdr_multilingual_tiny", "doodles")),
        *((name, False) for name in ("doodles_pairs", "drawings", "drawings_pairs", "report_pages")),
        *((f"{name} data.path=FOLDER", True) for name in ("hub", "vdr_en", "doodles_pairs")),
        ("table data.train=rows.csv", True),
    ],
)
def test_data_is_ones_own_unless_it_is_drawn_or_a_recipe_names_it(composed, data, own):
    assert is_own(composed(*f"data={data}".split())["data"]) == own
