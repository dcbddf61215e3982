import csv
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from types import SimpleNamespace

import PIL.Image
import pytest
from transformers import TrainerControl, TrainerState

from experiments.reports import sweep_dashboard
from experiments.runs.files import save_json
from experiments.runs.tracking import track

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
DIMS = (96, 48, 24, 12)


@pytest.fixture(scope="module")
def chromium():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        reason = "no chromium, chromium-browser or google-chrome on the path"
        if os.environ.get("EXPERIMENTS_REQUIRE_BROWSER") == "1":
            pytest.fail(f"{reason}, and EXPERIMENTS_REQUIRE_BROWSER=1")
        pytest.skip(reason)
    return found


def section(quality):
    values = {str(dim): quality * dim / (dim + 4) for dim in DIMS}
    return {
        "dimensions": {dim: {"cosine_ndcg@10": ndcg, "cosine_mrr@10": quality / 2} for dim, ndcg in values.items()}
    }


def track_a_run(folder, number, quality, mini_batch_size):
    """Track a job as training does, and leave the record that the sweep's table is made from."""
    config = {"model": {"max_pixels": 16384}, "loss": {"mini_batch_size": mini_batch_size}}
    choices = {"model": "qwen3vl_tiny", "data": "report_pages"}
    options = {"dir": folder / "trackio", "choices": choices, "energy": False, "group": "sweep"}
    with track(config, folder / str(number), name=f"mini_batch_size={mini_batch_size}", **options) as tracker:
        metrics = {"base": section(0.02), "final": section(quality)}
        tracker.log_before_training(metrics["base"])
        callback, state = tracker.callback("pages"), TrainerState(is_world_process_zero=True)
        for state.global_step in range(10, 60, 10):
            logs = {"loss": 3.0 / state.global_step, "learning_rate": 1e-3, "grad_norm": 1.0, "epoch": 1.0}
            logs |= {"eval_pages_cosine_ndcg@10": quality * state.global_step / 60}
            callback.on_log(None, state, TrainerControl(), logs=logs | {"eval_pages-48d_cosine_ndcg@10": 0.5})
        page = PIL.Image.new("RGB", (850, 1100), "lightsteelblue")
        page.save(folder / "training_curve.png")
        tracker.log_figure(folder / "training_curve.png")
        tracker.log_samples([("Which page shows sales in May?", 1, ("may.png", page), [("may.png", page)] * 3)])
        tracker.log_results(metrics)
    record = {"attempts": [], "status": "finished", "tracked": tracker.place}
    save_json(folder / str(number) / "run.json", record)
    return tracker


def job(number, quality, mini_batch_size):
    job = {"number": number, "dir": str(number), "status": "finished", "reused": False, "metric": "cosine_ndcg@10"}
    return job | {"point": {"loss.mini_batch_size": str(mini_batch_size)}, "value": quality, "time_s": 60.0}


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory):
    """A dashboard over a sweep of two and a failed run, started with the line that a sweep prints."""
    folder = tmp_path_factory.mktemp("dashboard")
    track_a_run(folder, 0, 0.8, 4)
    tracker = track_a_run(folder, 1, 0.9, 16)
    sweep = {"name": "mini_batch_size-2026", "status": "ended", "keys": ["loss.mini_batch_size"]}
    save_json(folder / "summary.json", sweep | {"jobs": [job(0, 0.8, 4), job(1, 0.9, 16)]})
    third = track({}, folder, name="third", dir=folder / "trackio", choices={}, energy=False)
    with pytest.raises(RuntimeError), third:
        raise RuntimeError("loss is NaN")
    with socket.socket() as free, pytest.MonkeyPatch.context() as patch:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        patch.setenv("GRADIO_SERVER_PORT", str(port))
        told = sweep_dashboard.lines(folder)
    server = subprocess.Popen(
        told[0].removeprefix("Dashboard: "),
        shell=True,
        # It takes its port from the environment, and would open a browser of its own.
        env=os.environ | {"GRADIO_SERVER_PORT": str(port), "GRADIO_NUM_PORTS": "1", "BROWSER": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        address = f"http://127.0.0.1:{port}/"
        wait_until_it_answers(address, server)
        yield SimpleNamespace(address=address, curves=told[1].split()[-1], table=told[2].split()[-1], run=tracker)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_until_it_answers(address, server, seconds=90):
    for _ in range(seconds * 4):
        if server.poll() is not None:
            pytest.fail(f"the dashboard ended with exit code {server.returncode}")
        try:
            return urllib.request.urlopen(address, timeout=5)
        except OSError:
            time.sleep(0.25)
    pytest.fail(f"the dashboard did not answer within {seconds} s")


@pytest.fixture(scope="module")
def browser(chromium, tmp_path_factory):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("chromium"),
            executable_path=chromium,
            args=FLAGS,
            viewport={"width": 1600, "height": 1200},
        )
        yield context
        context.close()


@pytest.fixture
def page(browser, dashboard):
    page = browser.new_page()
    yield page
    page.close()


def shown(page, address, text):
    """Open an address, wait for a text and return everything on the page."""
    page.goto(address)
    page.get_by_text(text).first.wait_for(timeout=60_000)
    return page.inner_text("body")


def drawn(page, metric):
    """What a chart draws, from the dashboard's own CSV of it."""
    chart = page.locator(f'[data-metric="{metric}"]')
    chart.scroll_into_view_if_needed()
    chart.hover()
    with page.expect_download() as download:
        chart.get_by_label("data as a CSV file").first.click()
    return list(csv.DictReader(download.value.path().read_text().splitlines()))


def charts(page):
    """The charts in the order in which the page shows them, by group."""
    shown = page.locator("[data-metric]").evaluate_all("all => all.map(each => each.dataset.metric)")
    return [*dict.fromkeys(shown)]


def test_dashboard_opens_on_the_primary_metric_and_the_loss_and_has_few_charts(page, dashboard, tmp_path):
    shown(page, dashboard.curves, "training loss")
    found = charts(page)
    page.screenshot(path=tmp_path / "first.png")
    first = page.locator("[data-metric]").nth(0).bounding_box()
    second = page.locator("[data-metric]").nth(1).bounding_box()
    assert first["y"] == second["y"] < 200 and second["y"] + second["height"] < 1200  # both at once, at the top
    assert found[:3] == ["nDCG@10", "training loss", "summary/nDCG@10"]
    assert found[3:6] == [f"summary/nDCG@10 {dim:04d}" for dim in (12, 24, 48)]
    assert [name for name in found[6:] if not name.startswith("system/")] == [
        "training/gradient norm",
        "training/learning rate",
    ]
    assert len(found) <= 12


def test_the_printed_address_shows_the_sweep_s_jobs_alone_by_what_was_swept_and_unsmoothed(page, dashboard):
    shown(page, dashboard.curves, "training loss")
    curve = drawn(page, "nDCG@10")
    points = {(row["run"], int(row["step"])): float(row["nDCG@10"]) for row in curve}
    runs = ("mini_batch_size=4", "mini_batch_size=16")
    assert sorted(points) == sorted((run, step) for run in runs for step in range(0, 60, 10))
    assert points["mini_batch_size=4", 0] == pytest.approx(0.02 * 96 / 100)
    assert points["mini_batch_size=16", 50] == pytest.approx(0.9 * 50 / 60)
    bars = {row["run"]: float(row["summary/nDCG@10 0048"]) for row in drawn(page, "summary/nDCG@10 0048")}
    assert bars == {runs[0]: pytest.approx(0.8 * 48 / 52), runs[1]: pytest.approx(0.9 * 48 / 52)}


def test_the_table_of_a_sweep_has_the_best_job_first_and_sorts_by_a_click(page, dashboard, tmp_path):
    page.goto(dashboard.table)
    first = page.locator("tbody tr").first
    assert page.locator("th").all_inner_texts()[:4] == ["job", "mini_batch_size", "status", "nDCG@10"]
    assert first.locator("td").all_inner_texts()[:4] == ["1", "16", "finished", "0.900"]
    head = page.get_by_role("columnheader", name="mini_batch_size")
    head.click()
    head.click()
    page.screenshot(path=tmp_path / "table.png")
    assert first.locator("td").all_inner_texts()[1] == "4" and head.get_attribute("aria-sort") == "ascending"
    page.get_by_role("link", name="1").click()
    page.get_by_text("training loss").first.wait_for(timeout=60_000)
    assert page.url.endswith(f"run_ids={dashboard.run.place['id']}")


def test_dashboard_shows_samples_with_names_and_figures(page, dashboard, tmp_path):
    body = shown(page, f"{dashboard.address}media?project=experiments", "Tables (")
    assert "Which page shows sales in May?" in body and "may.png" in body and "figures/training_curve" in body
    assert body.index("finetuned") < body.index("Which page shows")  # the answer first
    thumbnails = page.locator("img.table-image")
    assert thumbnails.count() == 2 * (1 + 3)
    thumbnails.first.scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelector('img.table-image').naturalHeight === 160")
    page.screenshot(path=tmp_path / "samples.png")


def test_dashboard_offers_the_config_to_group_by_and_shows_how_a_failed_run_ended(page, dashboard):
    shown(page, f"{dashboard.address}reports?project=experiments", "RuntimeError: loss is NaN")
    page.goto(f"{dashboard.address}?project=experiments")
    page.get_by_label("Group by").first.click()
    for option in ("loss/mini_batch_size", "model", "status"):
        page.get_by_role("option", name=option, exact=True).wait_for()
