import ast
import contextlib
import inspect
import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import codecarbon.core.resource_tracker
import codecarbon.external.hardware
import PIL.Image
import pytest
import sentence_transformers.base.model_card
from transformers import TrainerControl, TrainerState

import nvidia_host
from experiments.config.errors import ConfigError
from experiments.runs import energy, new_folders, trackio_run
from experiments.runs.tracking import no_tracking, track
from experiments.runs.trackio_run import flatten

CONFIG = {
    "seed": 42,
    "run_name": None,
    "model": {
        "_target_": "experiments.models.embedders.qwen3vl_tiny",
        "max_pixels": 16384,
        "card": {"language": "en"},
    },
    "data": {"_target_": "experiments.data.drawn.report_pages.load", "num_train_rows": 64},
    "loss": {
        "_target_": "experiments.training.losses.CachedMultipleNegativesRankingLoss",
        "mini_batch_size": None,
        "scale": 20.0,
    },
    "matryoshka": {"_target_": "experiments.training.losses.matryoshka", "default_dims": [96, 48]},
    "tracking": {"_target_": "experiments.runs.tracking.track", "dir": "somewhere"},
}
DIMENSIONS = {
    "96": {
        "cosine_ndcg@10": 0.9,
        "cosine_mrr@10": 0.8,
        "cosine_ndcg@10_ci95": [0.8, 0.95],
        "int8": {"cosine_ndcg@10": 0.88},
    },
    "48": {"cosine_ndcg@10": 0.7, "cosine_mrr@10": 0.6},
}
MEASURED = {"dimensions": DIMENSIONS, "directions": {"image_to_text": {"cosine_ndcg@10": 0.85, "cosine_mrr@10": 0.5}}}
METRICS = {
    **{"base": {"dimensions": {"96": {"cosine_ndcg@10": 0.1}}}, "final": MEASURED},
    **{"verdict": {"outcome": "better"}, "chance": {"all": {"cosine_ndcg@10": 0.02}}},
}


@pytest.fixture
def tracked(tmp_path):
    """Start a tracked run in a folder of the test's own, without the two seconds of the energy meter."""

    def start(name="first", **options):
        options = {
            "dir": tmp_path / "trackio",
            "energy": False,
            "choices": {"model": "tiny", "data": "pages"},
        } | options
        return track(CONFIG, tmp_path / "run", name=name, **options)

    return start


def stored(name, project="experiments"):
    """What Trackio holds of a run: its config, and its rows in the order of logging."""
    from trackio.sqlite_storage import SQLiteStorage

    run_id = SQLiteStorage.get_latest_run_record_by_name(project, name)["id"]
    return SQLiteStorage.get_all_run_configs(project)[run_id], SQLiteStorage.get_logs(project, name)


def values(rows, metric):
    return [(row["step"], row[metric]) for row in rows if metric in row]


def callback_logs(tracker, entries, *, main=True, resumed_history=None):
    callback = tracker.callback("pages")
    state = TrainerState(is_world_process_zero=main, log_history=resumed_history or [])
    state.global_step = resumed_history[-1]["step"] if resumed_history else 0
    callback.on_train_begin(None, state, TrainerControl())
    for step, logs in entries:
        state.global_step = step
        callback.on_log(None, state, TrainerControl(), logs=logs)


def test_config_becomes_top_level_scalars_named_by_group_and_option():
    flat = flatten(CONFIG, {"model": "tiny", "data": "pages", "loss": "cached", "tracking": "trackio"})
    assert flat == {
        "seed": 42,
        "run_name": None,
        "model": "tiny",
        "model/max_pixels": 16384,
        "data": "pages",
        "data/num_train_rows": 64,
        "loss": "cached",
        "loss/mini_batch_size": None,
        "loss/scale": 20.0,
        "matryoshka/default_dims": "96, 48",
    }


def test_finished_run_holds_config_group_and_status(tracked, tmp_path):
    with tracked():
        pass
    config, _ = stored("first")
    assert config["model"] == "tiny" and config["model/max_pixels"] == 16384
    assert config["_Group"] == "pages" and config["status"] == "finished"
    assert config["output_dir"] == str(tmp_path / "run")


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError("loss is NaN"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_run_that_ends_early_keeps_its_metrics_and_says_how_it_ended(tracked, error, status):
    from trackio.sqlite_storage import SQLiteStorage

    with pytest.raises(type(error)), tracked() as tracker:
        tracker.log({"train/loss": 1.5}, step=3)
        raise error
    config, rows = stored("first")
    assert config["status"] == status
    assert values(rows, "train/loss") == [(3, 1.5)]
    alert = SQLiteStorage.get_alerts("experiments")[-1]
    assert alert["title"] == f"first {status}" and type(error).__name__ in alert["text"]


def test_a_refused_run_is_none_and_leaves_its_name(tracked):
    from trackio.sqlite_storage import SQLiteStorage

    with pytest.raises(ConfigError), tracked() as tracker:
        tracker.log_before_training(METRICS["base"])
        raise ConfigError("no such column")
    assert SQLiteStorage.get_runs("experiments") == []
    with tracked() as tracker:
        assert tracker.place["name"] == "first"
    assert SQLiteStorage.get_runs("experiments") == ["first"]


def test_a_refused_run_takes_the_folder_away_that_it_has_made(tracked, tmp_path):
    new_folders.expect(tmp_path / "trackio")
    with pytest.raises(ConfigError), tracked():
        raise ConfigError("no such column")
    assert not (tmp_path / "trackio").exists()


def test_what_has_trained_when_it_is_refused_is_kept_as_failed(tracked):
    with pytest.raises(ConfigError), tracked() as tracker:
        callback_logs(tracker, [(5, {"loss": 2.0})])
        raise ConfigError("no space on the disk")
    config, rows = stored("first")
    assert config["status"] == "failed" and values(rows, "training loss") == [(5, 2.0)]


def test_config_is_on_disk_at_once_and_again_when_it_grows(tracked):
    with tracked() as tracker:
        assert stored("first")[0]["status"] == "running"
        tracker.add_config({"model/parameters": 7})
        assert stored("first")[0]["model/parameters"] == 7 and stored("first")[0]["model"] == "tiny"


def test_trackio_s_private_state_is_known_to_one_function_and_is_there():
    import trackio

    def private(tree):
        attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        return {name for name in attributes | defined if name.startswith("_") and name != "_flush"}

    functions = ast.parse(Path(trackio_run.__file__).read_text()).body
    ours = {node.name for node in functions if isinstance(node, ast.FunctionDef)}
    known = {node.name: private(node) - ours for node in functions if isinstance(node, ast.FunctionDef)}
    names = known.pop("_local_run")
    assert not any(known.values())
    source = inspect.getsource(trackio.Run)
    assert names and all(f"self.{name}" in source for name in names)


def test_codecarbon_s_private_state_is_known_to_one_function_and_is_there():
    known = {}
    for function in ast.walk(ast.parse(Path(energy.__file__).read_text())):
        if isinstance(function, ast.FunctionDef):
            names = {node.attr for node in ast.walk(function) if isinstance(node, ast.Attribute)}
            known[function.name] = {name for name in names if re.match("_[a-z]", name)}
    assert known.pop("_methods") == {"_hardware", "_mode"} and not any(known.values())
    hardware = inspect.getsource(codecarbon.external.hardware)
    assert "tracker._hardware" in inspect.getsource(codecarbon.core.resource_tracker)
    assert "self._mode" in hardware and all(f'"{mode}"' in hardware for mode in energy.COUNTERS)
    card = inspect.getsource(sentence_transformers.base.model_card)
    assert "tracker._start_time" in card and "tracker._prepare_emissions_data()" in card


def test_a_card_s_template_without_the_lines_on_energy_is_refused():
    templates = [*Path(sentence_transformers.__file__).parent.glob("*/model_card_template.md")]
    assert len(templates) >= 3
    for path in templates:
        text = path.read_text()
        changed = energy.card_template(text, "estimated")
        assert "emissions were estimated using" in changed and changed.count("%.4g") == 2
        with pytest.raises(ValueError, match="no 'emissions were measured using'"):
            energy.card_template(text.replace("were measured", "have been measured"), "estimated")


def test_equal_names_are_made_unique(tracked):
    names = []
    for _ in range(3):
        with tracked("4 4096 (mini_batch_size max_pixels)") as tracker:
            names.append(tracker.place["name"])
    first = "4 4096 (mini_batch_size max_pixels)"
    assert names == [first, f"{first}-2", f"{first}-3"]
    with tracked("a/b: c") as tracker:
        assert tracker.place["name"] == "a-b- c"  # a folder of its media is called so


def test_what_is_logged_in_training_is_a_few_charts_the_primary_metric_and_the_losses_first(tracked):
    with tracked() as tracker:
        tracker.log_before_training(METRICS["base"])
        callback_logs(
            tracker,
            [
                (5, {"loss": 2.0, "learning_rate": 1e-3, "grad_norm": 0.5, "epoch": 0.5, "mini_batch_size": 4}),
                (5, {"eval_pages_cosine_ndcg@10": 0.4, "eval_pages-48d_cosine_ndcg@10": 0.3, "epoch": 0.5}),
                (5, {"eval_pages_cosine_mrr@10": 0.2, "eval_loss": 1.0, "eval_runtime": 3.0}),
                (10, {"loss": 1.0, "train_loss": 1.5, "train_runtime": 60.0, "eval_image_to_text_loss": 0.7}),
            ],
        )
    _, rows = stored("first")
    logged = {key for row in rows for key in row} - {"step", "timestamp"}
    assert values(rows, "nDCG@10") == [(0, 0.1), (5, 0.4)]
    assert values(rows, "training loss") == [(5, 2.0), (10, 1.0)]
    first = [key for key in sorted(logged) if "/" not in key]  # as the dashboard orders them
    assert first == ["nDCG@10", "training loss"]
    behind = {key.removeprefix("training/") for key in logged - {*first} if not key.startswith("system/")}
    losses = {"validation loss", "validation loss image_to_text"}
    assert behind == {"learning rate", "gradient norm"} | losses


def test_only_the_main_process_logs(tracked, monkeypatch, tmp_path):
    with tracked() as tracker:
        callback_logs(tracker, [(5, {"loss": 2.0})], main=False)
    assert values(stored("first")[1], "training loss") == []
    monkeypatch.setenv("RANK", "1")
    with tracked("second", dir=tmp_path / "other") as tracker:
        tracker.log({"train/loss": 1.0})
    assert not (tmp_path / "other").exists()


def go_on_with(tracker, folder):
    (folder / "run").mkdir(exist_ok=True)
    (folder / "run" / "run.json").write_text(json.dumps({"attempts": [], "tracked": tracker.place}))


def test_a_run_that_goes_on_is_the_same_run_without_double_or_missing_steps(tracked, tmp_path):
    from trackio.sqlite_storage import SQLiteStorage

    logs = [(5, {"loss": 2.0}), (10, {"loss": 1.0}), (15, {"loss": 0.7})]
    with pytest.raises(KeyboardInterrupt), tracked() as killed:
        killed.log_before_training(METRICS["base"])
        callback_logs(killed, [logs[0], logs[2]])  # of the second step nothing reached the disk
        raise KeyboardInterrupt
    go_on_with(killed, tmp_path)
    history = [{"loss": 2.0, "step": 5}, {"loss": 1.0, "step": 10}]
    with tracked() as tracker:
        tracker.log_before_training(METRICS["base"])
        callback_logs(tracker, [(15, {"loss": 0.8}), (20, {"loss": 0.6})], resumed_history=history)
        tracker.log_results(METRICS)
    assert tracker.place == killed.place
    assert SQLiteStorage.get_runs("experiments") == ["first"]
    config, rows = stored("first")
    assert sorted(values(rows, "training loss")) == [(5, 2.0), (10, 1.0), (15, 0.8), (20, 0.6)]
    assert values(rows, "nDCG@10") == [(0, 0.1), (20, 0.9)]
    assert config["resumed_at_step"] == 10 and config["status"] == "finished" and config["model"] == "tiny"


def test_a_run_that_goes_on_in_another_project_begins_there(tracked, tmp_path):
    with tracked() as tracker:
        pass
    go_on_with(tracker, tmp_path)
    with tracked(project="other") as again:
        assert again.place["id"] != tracker.place["id"] and again.place["name"] == "first"


def test_results_are_a_bar_a_dimension_the_full_one_first_and_a_table_of_the_rest(tracked):
    with tracked() as tracker:
        tracker.step = 96
        tracker.log_results(METRICS)
    config, rows = stored("first")
    charts = {key: row[key] for row in rows for key in row.keys() - {"step", "timestamp", "results"}}
    assert {name: value for name, value in charts.items() if not name.startswith("system/")} == {
        **{"nDCG@10": 0.9, "summary/nDCG@10": 0.9, "summary/nDCG@10 0048": 0.7, "summary/nDCG@10 image_to_text": 0.85},
    }
    assert {row["step"] for row in rows if len(row) > 2} == {96} and config["verdict"] == "better"
    table = values(rows, "results")[0][1]["_value"]
    assert {tuple(row) for row in table} == {("model", "dimension", "precision", "nDCG@10", "MRR@10")}
    assert [[*row.values()] for row in table] == [
        ["base", "96", "float32", "0.100", ""],
        ["finetuned", "96", "float32", "0.900", "0.800"],
        ["finetuned", "96", "int8", "0.880", ""],
        ["finetuned", "48", "float32", "0.700", "0.600"],
        ["chance", "", "", "0.020", ""],
    ]
    assert config["chance nDCG@10"] == 0.02


def test_the_last_step_of_the_curve_is_what_was_measured_there_not_the_checkpoint_that_is_kept(tracked):
    with tracked() as tracker:
        callback_logs(tracker, [(5, {"eval_pages_cosine_ndcg@10": 0.95}), (10, {"eval_pages_cosine_ndcg@10": 0.4})])
        tracker.log_results(METRICS)
    _, rows = stored("first")
    assert values(rows, "nDCG@10") == [(5, 0.95), (10, 0.4)] and values(rows, "summary/nDCG@10") == [(10, 0.9)]


def test_a_model_that_was_only_evaluated_is_called_model(tracked):
    with tracked() as tracker:
        tracker.log_results({"result": {"dimensions": {"96": {"cosine_ndcg@10": 0.1}}}})
    _, rows = stored("first")
    assert values(rows, "nDCG@10") == values(rows, "summary/nDCG@10") == [(0, 0.1)]
    assert values(rows, "results")[0][1]["_value"][0]["model"] == "model"


def test_a_rerankers_directions_take_the_place_of_dimensions(tracked):
    directions = {name: {"ndcg@10": value, "map": value / 2} for name, value in (("all", 0.6), ("image_to_text", 0.7))}
    with tracked() as tracker:
        callback_logs(tracker, [(5, {"eval_pages_ndcg@10": 0.5, "eval_pages-image_to_text_ndcg@10": 0.4})])
        tracker.log_results({"base": {}, "final": {"directions": directions}})
    _, rows = stored("first")
    assert values(rows, "nDCG@10") == [(5, 0.5)]
    assert values(rows, "summary/nDCG@10") == [(5, 0.6)]
    assert values(rows, "summary/nDCG@10 image_to_text") == [(5, 0.7)]
    assert [row["direction"] for row in values(rows, "results")[0][1]["_value"]] == ["all", "image_to_text"]


def test_samples_are_a_table_of_small_thumbnails(tracked, tmp_path):
    page = PIL.Image.new("RGBA", (850, 1100))  # transparent: white, as the model sees it
    with tracked() as tracker:
        images = [("a.png", page), ("b.png", page)]
        texts = [("train.csv row 1", "one"), ("train.csv row 2", "two")]
        tracker.log_samples(
            [("sales in May", 2, ("b.png", page), images), ("a query", None, ("x", "a text page"), texts)]
        )
    first, second = values(stored("first")[1], "samples")[0][1]["_value"]
    assert first["query"] == "sales in May" and first["rank of the right page"] == 2 and len(first["top pages"]) == 2
    assert second["rank of the right page"] == "not found" and second["top pages"] == "one | two"
    assert first["its name"] == "b.png" and first["their names"] == "a.png, b.png"
    assert second["their names"] == "train.csv row 1, train.csv row 2"
    with PIL.Image.open(tmp_path / "trackio" / "media" / first["right page"]["file_path"]) as thumbnail:
        assert max(thumbnail.size) == 160 and thumbnail.convert("RGB").getextrema() == ((255, 255),) * 3


def test_figures_are_copied_into_the_tracking_folder(tracked, tmp_path):
    PIL.Image.new("RGB", (20, 20)).save(tmp_path / "curve.png")
    with tracked() as tracker:
        tracker.log_figure(tmp_path / "curve.png")
    figure = values(stored("first")[1], "figures/curve")[0][1]
    assert (tmp_path / "trackio" / "media" / figure["file_path"]).is_file()


def test_each_run_writes_into_its_own_folder_within_one_process(tracked, tmp_path):
    for folder in ("one", "two"):
        with tracked(folder, dir=tmp_path / folder) as tracker:
            tracker.log({"train/loss": 1.0}, step=1)
            assert tracker.show_command.startswith(f"TRACKIO_DIR={tmp_path / folder} ")
        assert values(stored(folder)[1], "train/loss") == [(1, 1.0)]
        assert (tmp_path / folder / "experiments.db").is_file()


def test_file_system_is_that_of_the_nearest_mount_point_and_of_one_place_the_last():
    data = [("/data", "ext4"), ("/data", "fuse.sshfs")]
    mounts = [("/", "ext4"), ("/home", "nfs4"), ("/home/me/scratch", "lustre"), *data]
    places = ["/var/runs", "/home/me/runs", "/home/me/scratch/runs", "/homes/me", "/data/runs"]
    found = [trackio_run.file_system(Path(place), mounts) for place in places]
    assert found == ["ext4", "nfs4", "lustre", "ext4", "fuse.sshfs"]
    kinds = ["nfs4", "lustre", "fuse.sshfs", "9p", "ext4", "overlay", "tmpfs", "fuseblk", "xfs"]
    assert [kind for kind in kinds if trackio_run.SHARED.fullmatch(kind)] == kinds[:4]


@pytest.mark.parametrize(("kind", "journal"), [("nfs4", "delete"), ("ext4", "wal")])
def test_no_wal_is_written_where_several_hosts_write(tracked, tmp_path, monkeypatch, kind, journal):
    monkeypatch.setenv("TRACKIO_SQLITE_JOURNAL_MODE", "")
    mounted = SimpleNamespace(mountpoint=str(tmp_path), fstype=kind)
    monkeypatch.setattr("psutil.disk_partitions", lambda all: [mounted])
    with tracked() as tracker:
        tracker.log({"train/loss": 1.0}, step=1)
        with contextlib.closing(sqlite3.connect(tmp_path / "trackio" / "experiments.db")) as database:
            assert database.execute("PRAGMA journal_mode").fetchone() == (journal,)
    assert values(stored("first")[1], "train/loss") == [(1, 1.0)]
    is_said = tracker.show_command.startswith("TRACKIO_SQLITE_JOURNAL_MODE=delete TRACKIO_DIR=")
    assert is_said == (journal == "delete")


def test_command_and_address_can_be_pasted_and_show_this_run_unsmoothed_to_this_machine_alone(tracked, tmp_path):
    with tracked(dir=tmp_path / "my runs", project="my-project") as tracker:
        pass
    assert tracker.show_command.startswith(f"TRACKIO_DIR='{tmp_path}/my runs' ")
    assert tracker.show_command.endswith("trackio show --host 127.0.0.1 --project my-project")
    assert (
        tracker.address
        == f"http://127.0.0.1:7860/?project=my-project&smoothing=0&plots_per_row=2&run_ids={tracker.place['id']}"
    )


@pytest.mark.parametrize("broken", ["folder", "parent", "database"])
def test_folder_that_cannot_be_written_is_an_error_before_the_work(tracked, tmp_path, broken):
    folder = tmp_path / "blocked"
    if broken == "database":
        folder.mkdir()
        (folder / "experiments.db").write_text("this is no database, whatever its name says" * 100)
    else:
        folder.write_text("a file")
        folder = folder / "below" if broken == "parent" else folder
    with pytest.raises(ConfigError, match="cannot be written.*tracking=none"), tracked(dir=folder):
        pytest.fail("the work started")


def test_project_name_that_trackio_reserves_is_an_error(tracked):
    with pytest.raises(ConfigError, match="tracking.project=runs_system"), tracked(project="runs_system"):
        pytest.fail("the work started")


@pytest.mark.parametrize(
    ("code", "nearest"), [("Germany", "DEU"), ("GER", "DEU"), ("usa", "USA"), ("XYZ", "such as USA")]
)
def test_unknown_country_is_an_error_that_names_a_known_one(tracked, code, nearest):
    with pytest.raises(ConfigError, match=f"country_iso_code={code}.*{nearest}"):
        with tracked(energy=True, country_iso_code=code):
            pytest.fail("the work started")


def test_energy_is_the_same_in_trackio_and_on_the_card(tracked, tmp_path, tiny_model):
    (tmp_path / "run").mkdir()
    tiny_model.model_card_data.add_tags("generated_from_trainer")  # as the trainer does; else its old card is kept
    with tracked(energy=True, country_iso_code="FRA") as tracker:
        sum(number * number for number in range(2_000_000))
        energy = tracker.write_energy_to_card(tiny_model)
        tiny_model.save_pretrained(str(tmp_path / "during"))
    tiny_model.save_pretrained(str(tmp_path / "after"))
    assert energy["energy_kwh"] > 0 and energy["emissions_kg"] > 0 and energy["country"] == "FRA"
    assert energy["method"] in ("measured", "estimated") and energy["parts"]["ram"] == "estimated"
    json.dumps(energy)
    config, rows = stored("first")
    assert values(rows, "system/CO2 (kg)") == [(0, energy["emissions_kg"])]
    assert config["energy/method"] == energy["method"] and tracker.energy() == energy
    for card in (tmp_path / "during" / "README.md", tmp_path / "after" / "README.md"):
        assert f"Carbon emissions were {energy['method']} using" in card.read_text()
        assert f"- **Carbon Emitted**: {energy['emissions_kg']:.4g} kg of CO2" in card.read_text()
        assert f"emissions: {energy['emissions_kg'] * 1000}" in card.read_text()


def test_a_run_goes_on_where_codecarbon_cannot_start(tracked, monkeypatch, caplog):
    monkeypatch.setattr(codecarbon.OfflineEmissionsTracker, "start", lambda tracker: None)
    with tracked(energy=True) as tracker:
        callback_logs(tracker, [(5, {"loss": 2.0})])
        assert tracker.energy() is None and tracker.write_energy_to_card(None) is None
    assert values(stored("first")[1], "training loss") == [(5, 2.0)]
    assert "energy and CO2 are not measured" in caplog.text


def test_two_countries_differ_as_their_electricity_does(tracked, tmp_path):
    intensity = {}
    for country in ("FRA", "POL"):
        with tracked(energy=True, country_iso_code=country) as tracker:
            sum(number * number for number in range(1_000_000))
            energy = tracker.energy()
        assert tracker.energy() == energy  # as it was reported, once the run is over
        (tmp_path / "run" / "energy.json").unlink()  # of another run
        intensity[country] = energy["emissions_kg"] / energy["energy_kwh"]
    assert intensity["POL"] > 5 * intensity["FRA"]


def test_energy_of_one_host_of_several_is_said_to_be_that(tracked, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with tracked(energy=True) as tracker:
        assert tracker.energy()["method"].endswith("ed without the other hosts")


def test_energy_is_the_sum_over_the_attempts_of_a_run(tracked, tmp_path):
    with pytest.raises(RuntimeError), tracked(energy=True) as tracker:
        sum(number * number for number in range(2_000_000))
        callback_logs(tracker, [(1, {"loss": 1.0})])
        kept = json.loads((tmp_path / "run" / "energy.json").read_text())  # what a kill would leave
        raise RuntimeError
    ((first,),) = (json.loads((tmp_path / "run" / "energy.json").read_text()).values(),)
    assert 0 < next(iter(kept.values()))["energy_kwh"] <= first["energy_kwh"]
    with tracked(energy=True) as tracker:
        sum(number * number for number in range(2_000_000))
        energy = tracker.energy()
    first_again, second = json.loads((tmp_path / "run" / "energy.json").read_text()).values()
    assert first_again == first and second["energy_kwh"] > 0
    for key in ("energy_kwh", "emissions_kg", "duration_s"):
        assert energy[key] == first[key] + second[key]


def test_no_tracking_does_nothing(tmp_path):
    with no_tracking(CONFIG, tmp_path, name="run", choices={}) as tracker:
        tracker.log({"train/loss": 1.0})
        tracker.add_config({"a": 1})
        tracker.log_before_training(MEASURED)
        tracker.log_results(METRICS)
        tracker.log_figure(tmp_path / "missing.png")
        tracker.log_samples([("query", None, ("a", "page"), [])])
        callback_logs(tracker, [(1, {"loss": 1.0})])
    assert tracker.energy() is None and tracker.write_energy_to_card(None) is None and tracker.show_command == ""
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def connections():
    """The connections attempted, and the names looked up, while the test runs."""
    attempts, listening = [], [True]

    def hook(event, args):
        if listening and event in ("socket.connect", "socket.getaddrinfo"):
            attempts.append((event, args))

    sys.addaudithook(hook)  # can't be removed
    yield attempts
    listening.clear()


def test_no_connection_is_attempted_even_with_a_token_and_a_server_in_the_environment(
    tracked, connections, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    monkeypatch.setenv("TRACKIO_SERVER_URL", "http://trackio.invalid")
    monkeypatch.setenv("TRACKIO_SPACE_ID", "me/mine")
    with tracked(energy=True) as tracker:
        tracker.log({"train/loss": 1.0}, step=1)
    assert values(stored("first")[1], "train/loss") == [(1, 1.0)]
    assert connections == []


@pytest.mark.parametrize(
    ("gpus", "watts", "method"),
    [
        (nvidia_host.WHOLE, 100, "measured"),
        (f"{nvidia_host.WHOLE},{nvidia_host.DIVIDED}", 400, "measured"),
        (nvidia_host.INSTANCES[0], 0, "not measured"),
        ("", 0, None),
    ],
)
def test_a_run_is_billed_for_its_gpus_alone_and_what_counts_nothing_is_not_measured(tmp_path, gpus, watts, method):
    host = nvidia_host.install(tmp_path)
    path = os.pathsep.join([str(host), *map(str, sys.path)])
    environment = os.environ | {"PATH": f"{host}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": path}
    command = [sys.executable, nvidia_host.__file__, gpus]
    found = json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert found["watts"] == pytest.approx(watts, rel=0.1)
    assert found["parts"].get("gpu") == method
    assert ("without the gpu" in found["method"]) == (method == "not measured")
