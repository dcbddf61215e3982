import csv
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

import PIL.Image
import pytest

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


def track_a_run(folder, name, quality, mini_batch_size):
    config = {"model": {"max_pixels": 16384}, "loss": {"mini_batch_size": mini_batch_size}}
    choices = {"model": "qwen3vl_tiny", "data": "report_pages"}
    with track(config, folder / name, name=name, dir=folder / "trackio", choices=choices, energy=False) as tracker:
        for step in range(10, 60, 10):
            tracker.log({"train/loss": 3.0 / step, "train/learning_rate": 1e-3}, step)
            tracker.log({f"eval/ndcg@10_dim{dim:04d}": quality * step / 60 * dim / 96 for dim in DIMS}, step)
        tracker.step = 50
        sections = {"base": section(0.02), "final": section(quality)}
        for label, metrics in sections.items():
            tracker.log_evaluation(metrics, label)
        page = PIL.Image.new("RGB", (850, 1100), "lightsteelblue")
        page.save(folder / "training_curve.png")
        tracker.log_figure(folder / "training_curve.png")
        tracker.log_samples([("Which page shows sales in May?", page, [page] * 3, 1)])
    return tracker


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory):
    """The address of a dashboard over two finished runs and a failed one, started with the line that a run prints."""
    folder = tmp_path_factory.mktemp("dashboard")
    track_a_run(folder, "first", 0.8, 4)
    tracker = track_a_run(folder, "second", 0.9, 16)
    third = track({}, folder, name="third", dir=folder / "trackio", choices={}, energy=False)
    with pytest.raises(RuntimeError), third:
        raise RuntimeError("loss is NaN")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        tracker.show_command,
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
        yield address
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


def test_dashboard_shows_both_runs_and_compares_their_final_metrics(page, dashboard, tmp_path):
    body = shown(page, f"{dashboard}?project=experiments&smoothing=0", "ndcg@10_dim0096")
    assert {"first", "second"} <= set(body.split())
    for dim in DIMS:
        for kind in ("base", "final", "eval"):
            assert page.locator(f'[data-metric="{kind}/ndcg@10_dim{dim:04d}"]').count() == 1
    bars = drawn(page, "final/ndcg@10_dim0096")
    page.screenshot(path=tmp_path / "bars.png")
    assert {row["run"]: float(row["final/ndcg@10_dim0096"]) for row in bars} == {
        "first": pytest.approx(0.8 * 96 / 100),
        "second": pytest.approx(0.9 * 96 / 100),
    }


def test_dashboard_draws_the_matryoshka_curve_over_the_dimension(page, dashboard, tmp_path):
    metric = "matryoshka/final_ndcg@10_by_dimension"
    shown(page, f"{dashboard}?project=experiments&smoothing=0", "final_ndcg@10_by_dimension")
    curve = drawn(page, metric)
    page.screenshot(path=tmp_path / "curve.png")
    points = {(row["run"], int(row["step"])): float(row[metric]) for row in curve}
    assert sorted(points) == sorted((run, dim) for run in ("first", "second") for dim in DIMS)
    assert points["second", 48] == pytest.approx(0.9 * 48 / 52)


def test_dashboard_shows_samples_and_figures(page, dashboard, tmp_path):
    body = shown(page, f"{dashboard}media?project=experiments", "Tables (")
    assert "Which page shows sales in May?" in body and "figures/training_curve" in body
    thumbnails = page.locator("img.table-image")
    assert thumbnails.count() == 2 * (1 + 3)
    thumbnails.first.scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelector('img.table-image').naturalHeight === 160")
    page.screenshot(path=tmp_path / "samples.png")


def test_dashboard_offers_the_config_to_group_by_and_shows_how_a_failed_run_ended(page, dashboard):
    shown(page, f"{dashboard}reports?project=experiments", "RuntimeError: loss is NaN")
    page.goto(f"{dashboard}?project=experiments")
    page.get_by_label("Group by").first.click()
    for option in ("loss/mini_batch_size", "model", "status"):
        page.get_by_role("option", name=option, exact=True).wait_for()
