"""What makes a job another one: whatever its config names, in a folder, behind a table or on the Hub."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from PIL import Image as Pixels

from experiments.runs.identity import file_stamps, job_identity, stamps_hash

SAVED = {"_target_": "experiments.models.embedders.load_embedder"}
ENCODER = {"_target_": "experiments.models.routers.load_encoder"}
TABLE = "experiments.data.sources.table.load"
HUB = "experiments.data.sources.hub.load"


@pytest.fixture
def lies(tmp_path):
    """A page, a model and an adapter of it, tables of each format that name the page, and a saved data set."""
    (tmp_path / "pages").mkdir()
    Pixels.new("RGB", (8, 8)).save(tmp_path / "pages" / "a.png")
    rows = {"query": ["what"], "page": ["pages/a.png"]}
    (tmp_path / "rows.csv").write_text("query,page\nwhat,pages/a.png\n")
    (tmp_path / "semicolons.csv").write_text("query;page\nwhat, or who;pages/a.png\n")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"query": "what", "negatives": ["pages/a.png"]}) + "\n")
    (tmp_path / "rows.json").write_text(json.dumps([{"query": "what", "page": "pages/a.png"}]))
    image = pa.array([{"bytes": None, "path": "pages/a.png"}])
    pq.write_table(pa.table({"query": ["what"], "page": image}), tmp_path / "rows.parquet")
    (tmp_path / "outside").mkdir()
    texts = Dataset.from_dict({"query": ["what"], "page": [str(tmp_path / "pages" / "a.png")]})
    texts.save_to_disk(str(tmp_path / "saved" / "texts"))
    Dataset.from_dict(rows).remove_columns("page").save_to_disk(str(tmp_path / "saved" / "rows"))
    for name in ("model", "base", "adapter"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    adapter = json.dumps({"base_model_name_or_path": str(tmp_path / "base")})
    (tmp_path / "adapter" / "adapter_config.json").write_text(adapter)
    return tmp_path


CASES = {  # what a config names -> the file that decides, too
    "csv": ({"data": {"_target_": TABLE, "train": "rows.csv"}}, "pages/a.png"),
    "csv with semicolons": ({"data": {"_target_": TABLE, "train": "semicolons.csv"}}, "pages/a.png"),
    "eval": ({"data": {"_target_": TABLE, "train": "rows.parquet", "eval": "rows.json"}}, "rows.json"),
    "json": ({"data": {"_target_": TABLE, "train": "rows.json"}}, "pages/a.png"),
    "jsonl": ({"data": {"_target_": TABLE, "train": "rows.jsonl"}}, "pages/a.png"),
    "parquet": ({"data": {"_target_": TABLE, "train": "rows.parquet"}}, "pages/a.png"),
    "saved data set": ({"data": {"_target_": HUB, "path": "saved/rows"}}, "saved/rows/state.json"),
    "its pages": ({"data": {"_target_": HUB, "path": "saved/texts"}}, "pages/a.png"),
    "model": ({"model": SAVED | {"name": "model"}}, "model/config.json"),
    "adapter's base": ({"model": SAVED | {"name": "adapter"}}, "base/config.json"),
    "encoder": ({"model": {"encoders": {"text": ENCODER | {"name": "model"}}}}, "model/config.json"),
    "retriever": ({"evaluator": {"retriever": SAVED | {"name": "model"}}}, "model/config.json"),
    "any other file": ({"trainer": {"deepspeed": "rows.json"}}, "rows.json"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_job_is_another_one_once_a_file_that_it_names_has_changed(case, lies, monkeypatch):
    config, file = CASES[case]
    monkeypatch.chdir(lies)
    stamps_hash.cache_clear()
    before = job_identity(config)
    os.utime(lies / file, (1, 1))
    stamps_hash.cache_clear()
    assert job_identity(config) != before


def test_what_libraries_keep_beside_the_data_and_folders_that_are_not_meant_change_nothing(lies, monkeypatch):
    monkeypatch.chdir(lies)
    config = {"data": {"_target_": HUB, "path": "saved/rows", "name": "outside", "train": {"split": "pages"}}}
    stamps_hash.cache_clear()
    before = job_identity(config)
    (lies / "saved" / "rows" / "cache-1.arrow").write_bytes(b"x")
    (lies / "saved" / "rows" / ".cache").mkdir()
    (lies / "saved" / "rows" / ".cache" / "x").write_bytes(b"x")
    (lies / "outside" / "x").write_bytes(b"x")
    (lies / "pages" / "a.png").touch()
    stamps_hash.cache_clear()
    assert job_identity(config) == before


def test_files_are_looked_at_once_for_all_jobs_that_name_them(lies, monkeypatch):
    monkeypatch.chdir(lies)
    stamps_hash.cache_clear()
    data = {"_target_": HUB, "path": "pages"}
    assert len({job_identity({"data": data, "seed": seed}) for seed in range(3)}) == 3
    assert (stamps_hash.cache_info().misses, stamps_hash.cache_info().hits) == (1, 2)


def test_what_runs_leave_in_a_folder_of_data_changes_nothing(lies, monkeypatch):
    monkeypatch.chdir(lies)
    data = {"_target_": "experiments.data.sources.hub.load", "path": "."}
    before = job_identity({"data": data})
    for folder in ("outputs/day", "multirun/day"):
        (lies / folder).mkdir(parents=True)
        (lies / folder / "metrics.json").write_text("{}")
    stamps_hash.cache_clear()
    assert job_identity({"data": data}) == before


def test_links_in_a_circle_are_followed_once(lies):
    (lies / "model" / "back").symlink_to(lies / "model")
    (lies / "model" / "pages").symlink_to(lies / "pages")
    stamps_hash.cache_clear()
    names = [os.path.relpath(file, lies / "model") for file, *_ in file_stamps(str(lies / "model"))]
    assert names == ["config.json", "pages/a.png"]


def test_a_job_is_another_one_with_another_commit_another_push_and_other_workers_that_are_swept():
    config = {"trainer": {"push_to_hub": False, "hub_model_id": "a/b", "dataloader_num_workers": 0}}
    pushed, elsewhere = (
        {"trainer": config["trainer"] | {"push_to_hub": True} | more} for more in ({}, {"hub_model_id": "a/c"})
    )
    workers = {"trainer": config["trainer"] | {"dataloader_num_workers": 2}}
    swept = ["trainer.dataloader_num_workers"]
    assert job_identity(config) == job_identity(workers)
    assert job_identity(config) == job_identity({"trainer": config["trainer"] | {"hub_model_id": "a/c"}})
    jobs = [job_identity(each) for each in (config, pushed, elsewhere)]
    jobs += [job_identity(config, commits={"a/b": commit}) for commit in ("1", "2")]
    jobs += [job_identity(each, swept=keys) for each in (config, workers) for keys in (swept, ["trainer"])]
    assert len({*jobs}) == 7  # the key and its group are the same
