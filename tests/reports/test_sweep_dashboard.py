import json

import pytest

from experiments.reports import sweep_dashboard
from experiments.runs import trackio_run
from experiments.runs.files import load_json, save_json
from experiments.runs.tracking import track
from finished import finished_run


@pytest.fixture
def sweep(tmp_path):
    """A sweep of three on disk: a finished job that is tracked, one that waits and one that was refused."""
    folder = finished_run(tmp_path / "0")
    with track({}, tmp_path, name="a", dir=tmp_path / "trackio", choices={}, energy=False) as tracker:
        pass
    save_json(folder / "run.json", load_json(folder / "run.json") | {"tracked": tracker.place})
    jobs = [
        {"status": "finished", "reused": False, "value": 0.5, "metric": "cosine_ndcg@10", "interval": [0.4, 0.6]}
        | {"chance": 0.045},
        {"status": "pending"},
        {"status": "refused", "error": "no <b>such</b> key"},
    ]
    for number, job in enumerate(jobs):
        job |= {"number": number, "dir": str(number), "point": {"run_name": f"<{number}>"}}
    return {"name": "run_name-2026", "status": "running", "keys": ["run_name"], "jobs": jobs}


def test_a_sweep_s_table_is_one_page_that_is_brought_up_to_date(sweep, tmp_path):
    from trackio.sqlite_storage import SQLiteStorage

    file = sweep_dashboard.update(tmp_path, sweep)
    before = file.read_text()
    sweep["jobs"][1] |= {"status": "finished", "reused": False, "value": 0.75, "metric": "cosine_ndcg@10"}
    assert sweep_dashboard.update(tmp_path, sweep) == file and file.is_relative_to(tmp_path / "trackio" / "media")
    assert "0.750" in file.read_text() and "0.750" not in before
    assert "A random order of the documents gives nDCG@10 0.045." in before
    assert file.read_text().index("&lt;1&gt;") < file.read_text().index("&lt;0&gt;")  # the best first
    assert "<b>" not in file.read_text() and "no &lt;b&gt;such&lt;/b&gt; key" in file.read_text()
    (row,) = SQLiteStorage.get_logs("experiments", "sweep run_name-2026")
    assert (tmp_path / "trackio" / "media" / row["runs"]["file_path"]) == file
    assert SQLiteStorage.get_runs("experiments") == ["a", "sweep run_name-2026"]


def test_a_job_that_was_killed_says_so_in_the_dashboard_and_not_that_it_runs(sweep, tmp_path):
    from trackio.sqlite_storage import SQLiteStorage

    def statuses():
        return {config.get("status") for config in SQLiteStorage.get_all_run_configs("experiments").values()}

    place = load_json(tmp_path / "0" / "run.json")["tracked"]
    killed = trackio_run.start(tmp_path / "trackio", "experiments", "b", None, {"status": "running", "seed": 7})
    killed.finish()
    (tmp_path / "1").mkdir()
    save_json(tmp_path / "1" / "run.json", {"attempts": [], "tracked": place | {"name": "b", "id": killed.id}})
    sweep["jobs"][1]["status"] = "running"
    sweep_dashboard.update(tmp_path, sweep)
    assert statuses() == {"finished", "running", None}  # the table's own
    sweep["jobs"][1]["status"] = "killed"
    sweep_dashboard.update(tmp_path, sweep)
    assert statuses() == {"finished", "killed", None}
    assert SQLiteStorage.get_all_run_configs("experiments")[killed.id]["seed"] == 7


def test_a_sweep_s_whole_addresses_are_told_and_of_one_without_tracked_jobs_none(sweep, tmp_path):
    save_json(tmp_path / "summary.json", sweep)
    tracked = json.loads((tmp_path / "0" / "run.json").read_text())["tracked"]
    command, curves, table = sweep_dashboard.lines(tmp_path)
    assert command.startswith(f"Dashboard: TRACKIO_DIR={tmp_path / 'trackio'} ")
    assert curves.startswith("  curves:  http://127.0.0.1:7860/?project=experiments&smoothing=0&plots_per_row=2")
    assert curves.endswith(f"&run_ids={tracked['id']}")
    place = tmp_path / "trackio" / "media" / "experiments" / "sweep%20run_name-2026" / "0" / "page.html"
    assert table == f"  table:   http://127.0.0.1:7860/file?path={place}"
    (tmp_path / "0" / "run.json").unlink()
    assert sweep_dashboard.lines(tmp_path) == [] and sweep_dashboard.update(tmp_path, sweep) is None
