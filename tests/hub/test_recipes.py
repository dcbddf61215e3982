"""Every real command that README, conf/ and --help show, letter by letter, against a Hub on loopback.

Nothing is overridden but the number of rows. `python -m pytest tests/hub/test_recipes.py -n 0 -rP` prints a table.
"""

import json
import re
from pathlib import Path

import pytest
from hub_standins import DOODLES, MINILM, MODELS, MULTILINGUAL, QWEN3_5, VDR
from omegaconf import OmegaConf
from sentence_transformers import SentenceTransformer

CONF = Path(__file__).parents[2] / "conf"
FEW = "data.num_train_rows=6 data.num_eval_rows=2"
FEW_PAIRS = "data.num_train_rows=6 data.num_eval_rows=5"  # each has four negatives of its own
HEADLINE = "python -m experiments.train model=qwen3vl_2b data=vdr_en"
COMMANDS = [  # as they are shown
    "python -m experiments.train experiment=instruct",
    "python -m experiments.train experiment=router",
    "python -m experiments.train experiment=router_tasks",
    "python -m experiments.train experiment=lora",
    "python -m experiments.train experiment=lora model.merge_adapter=true",
    "python -m experiments.train experiment=doodles",
    "python -m experiments.train experiment=vdr_multilingual data.language=it",
    "python -m experiments.train experiment=reranker_any_to_any",
    "python -m experiments.train experiment=reranker_features",
    "python -m experiments.train experiment=reranker_lora",
    "python -m experiments.train experiment=reranker_any_to_any loss=reranker_mnrl data.num_negatives=0",
    "python -m experiments.train experiment=reranker_any_to_any loss.pos_weight=4",
    "python -m experiments.train experiment=reranker_any_to_any "
    "'+evaluator.retriever={_target_:experiments.models.embedders.load_embedder,name:Qwen/Qwen3-VL-Embedding-2B}' "
    "evaluator.num_candidates=100",
    "python -m experiments.train model=qwen3vl_2b data=vdr_en_full",
    "python -m experiments.train model=qwen3vl_2b data=vdr_multilingual data.language=it",
    "python -m experiments.train model=qwen3vl_2b data=vdr_en +model/peft=lora",
]
REFUSED = {  # rightly, on a machine without a GPU
    "python -m experiments.train experiment=article": "attn_implementation=flash_attention_2: it isn't installed",
}
ELSEWHERE = {
    "python -m experiments.evaluate -m experiment=leaderboard ++model.trust_remote_code=true"
}  # test_sweeps.py


def finished_run(folder):
    (record,) = folder.glob("outputs/*/*/run.json")
    assert json.loads(record.read_text())["status"] == "finished"
    return record.parent


def test_the_headline_command_letter_by_letter(typed, tmp_path):
    done = typed(HEADLINE)
    assert done.code == 0, done.output
    run = finished_run(tmp_path)
    metrics = json.loads((run / "metrics.json").read_text())
    assert list(metrics["final"]["dimensions"]) == ["2048", "1536", "1024", "512", "256", "128", "64"]
    assert metrics["training"]["steps"] == 2
    record = json.loads((run / "run.json").read_text())
    assert set(record["commits"]) == {"Qwen/Qwen3-VL-Embedding-2B", VDR}
    assert all(re.fullmatch("[0-9a-f]{40}", commit) for commit in record["commits"].values())
    assert SentenceTransformer(str(run / "final")).encode("a page").shape == (2048,)


def test_the_http_clients_lines_are_in_the_log_and_not_on_the_terminal(typed, tmp_path):
    done = typed(f"{HEADLINE.replace('train', 'evaluate')} data.num_eval_rows=2")
    assert done.code == 0, done.output
    assert "HTTP Request" not in done.output
    (log,) = tmp_path.glob("outputs/*/*/evaluate.log")
    assert "HTTP Request: GET" in log.read_text()


@pytest.mark.parametrize("line", COMMANDS)
def test_a_real_command_runs_to_its_end(line, typed, tmp_path):
    done = typed(f"{line} {FEW_PAIRS if 'reranker' in line else FEW}")
    assert done.code == 0, done.output
    assert (finished_run(tmp_path) / "final").is_dir()


@pytest.mark.parametrize(("line", "reason"), REFUSED.items())
def test_a_real_command_is_refused_where_it_cannot_run(line, reason, typed, tmp_path):
    done = typed(line)
    assert (done.code, done.requests) == (2, [])
    assert reason in done.last
    assert not list(tmp_path.glob("outputs/*/*"))


def test_every_recipe_and_real_data_set_is_run_here():
    lines = " ".join([HEADLINE, *COMMANDS, *REFUSED, *ELSEWHERE])
    for group in ("experiment", "data"):
        for file in (CONF / group).glob("*.yaml"):
            names_hub = group == "experiment" or "/" in str(OmegaConf.load(file).get("path") or "")
            if names_hub and not file.stem.endswith("_tiny"):
                recipes = f"{group}={file.stem}" in lines or any(
                    _chooses(recipe, group, file.stem) for recipe in re.findall(r"experiment=(\w+)", lines)
                )
                assert recipes, f"{group}={file.stem} is not run against the Hub: add it to COMMANDS"


def _chooses(recipe: str, group: str, option: str) -> bool:
    text = (CONF / "experiment" / f"{recipe}.yaml").read_text()
    return re.search(rf"override /{group}: {option}$", text, re.MULTILINE) is not None or any(
        _chooses(base, group, option) for base in re.findall(r"^  - (\w+)$", text, re.MULTILINE)
    )


def test_the_real_commands_of_readme_conf_and_help_are_among_them():
    known = {HEADLINE, *COMMANDS, *REFUSED, *ELSEWHERE}
    found = set()
    for source in [CONF.parent / "README.md", *CONF.rglob("*.yaml")]:
        text = re.sub(r" \\\n#?\s*", " ", source.read_text())  # a line that goes on in the next one
        for line in re.findall(r"python -m experiments\.train [^\n`]*", text):
            command = " ".join(re.split(r"\s{2,}|\s\[|\s#", line)[0].split())
            if re.search(r"experiment=(?!\w+_tiny\b)\w+|model=qwen3vl_2b", command):
                found.add(command)
                assert command in known, f"{source.name}: {command} is not run against the Hub: add it to COMMANDS"
    assert HEADLINE in found


def test_the_stand_ins_bear_the_names_that_the_options_declare():
    names = {OmegaConf.load(file).get("name") for file in (CONF / "model").glob("*.yaml")}
    assert {*MODELS} - {"google/siglip2-base-patch16-224"} <= names
    assert QWEN3_5 in names
    routers = (CONF / "model" / "router_minilm_siglip2.yaml").read_text()
    assert MINILM in routers and "google/siglip2-base-patch16-224" in routers
    paths = {OmegaConf.load(file).get("path") for file in (CONF / "data").glob("*.yaml") if "_tiny" not in file.stem}
    assert {VDR, MULTILINGUAL, DOODLES} <= paths
    for name, (_, dim, _) in MODELS.items():
        for file in (CONF / "model").glob("*.yaml"):
            option = OmegaConf.load(file)
            if option.get("name") == name and option.get("embedding_dim") is not None:
                assert option.embedding_dim == dim, file.name
