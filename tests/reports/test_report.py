import csv
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image
from sentence_transformers.cross_encoder.model_card import CrossEncoderModelCardData
from sentence_transformers.sentence_transformer.model_card import SentenceTransformerModelCardData

from experiments import report
from experiments.config.checks import check
from experiments.config.errors import ConfigError
from experiments.config.options import CONF
from experiments.reports import figures, run_report
from experiments.reports.run_answer import comparison_table
from experiments.reports.sweep_summary import answer_sentence, verdict_text, write_summary
from experiments.runs.files import load_json, save_json
from finished import BASE, EVALUATION, FINETUNED, finished_run, section


def write_hydra(folder):
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text("- data.num_eval_rows=50\n- trainer.resume=auto\n- seed=42\n")
    (folder / ".hydra" / "hydra.yaml").write_text("hydra: {runtime: {choices: {data: report_pages}}}\n")


@pytest.fixture
def run_dir(tmp_path):
    history = [{"step": 5, "loss": 3.2}, {"step": 5, "eval_report-pages-hard_cosine_ndcg@10": 0.4}]
    folder = finished_run(
        tmp_path / "one",
        name="tiny one",
        training={"history": history},
        attributes={"chart kind": 0.91, "color": 0.78},
        selected_on_this_set=["truncate_dim 48"],
    )
    (folder / "final").mkdir()
    write_hydra(folder)
    return folder


def test_run_report_says_result_cost_selection_and_how_to_reload(run_dir, monkeypatch):
    monkeypatch.chdir(run_dir.parent)
    text = run_report.write_run_report(Path("one"))
    assert text == (run_dir / "report.md").read_text()
    for line in (
        "# tiny one",
        "**nDCG@10 0.016 → 0.874 [0.844, 0.904] on report-pages-hard: 100 queries, 500 documents**",
        "48 of 96 dimensions keep 98.9% at half the bytes.",
        "Selected on this set: truncate_dim 48.",
        "2.12 Wh (estimated)",
        "0.81 g with the electricity of USA",
        "- data fingerprint: data-fingerprint",
        "- model parameters: 1.32 M",
        'SentenceTransformer; model = SentenceTransformer("one/final")\'',
        "python -m experiments.train data.num_eval_rows=50 seed=42 trainer.resume=one",
        "python -m experiments.evaluate model=saved model.name=one data.num_eval_rows=50 seed=42",
        "trackio show --project experiments",
    ):
        assert line in text


@pytest.mark.parametrize(
    ("recipe", "kind", "chosen"),
    [
        ("article", "SentenceTransformer", {"data": "vdr_en", "evaluator": "retrieval", "matryoshka": "default"}),
        ("router", "SentenceTransformer", {"data": "vdr_en", "evaluator": "retrieval", "matryoshka": "default"}),
        ("reranker_any_to_any_tiny", "CrossEncoder", {"data": "drawings", "evaluator": "reranking_tiny"}),
    ],
)
def test_model_is_evaluated_again_as_it_was_evaluated_with_what_auto_became(tmp_path, composed, recipe, kind, chosen):
    config = composed(f"experiment={recipe}", "data.num_eval_rows=7", "seed=3")
    model = {"name": "a", "dtype": "bfloat16", "attn_implementation": "flash_attention_2", "max_pixels": 360000}
    folder = finished_run(tmp_path / "run", config=config, model=model)
    save_json(folder / "final" / "config_sentence_transformers.json", {"model_type": kind})
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.dump(["data.num_eval_rows=7", "seed=3"]))
    runtime = {
        "choices": chosen | {"experiment": recipe},
        "config_sources": [{"path": "hydra.conf", "provider": "hydra"}, {"path": str(CONF), "provider": "main"}],
    }
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.dump({"hydra": {"runtime": runtime}}))
    lines = [line for line in run_report.write_run_report(folder).splitlines() if "experiments.evaluate" in line]
    (again,) = (composed(*shlex.split(line)[3:]) for line in lines)
    for group in ("data", "evaluator"):
        unused = {"num_train_rows": None}  # by an evaluation, but for data that are drawn
        assert again[group] | unused == config[group] | unused
    elsewhere = {"name": "owner/model", "attn_implementation": "sdpa"}
    check(again | {"model": again["model"] | elsewhere}, "evaluate")
    assert again["model"]["dtype"] == "bfloat16" and again["model"]["attn_implementation"] == "flash_attention_2"


def test_a_recipe_that_says_nothing_adds_nothing_to_the_command(tmp_path, composed):
    folder = finished_run(tmp_path / "run", config=composed(), model={"name": "a"})
    save_json(folder / "final" / "config_sentence_transformers.json", {"model_type": "SentenceTransformer"})
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# to be written\n")
    sources = [{"path": str(tmp_path), "provider": "command-line"}, {"path": str(CONF), "provider": "main"}]
    runtime = {"choices": {"experiment": "mine", "data": "vdr_en"}, "config_sources": sources}
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text("[]")
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.dump({"hydra": {"runtime": runtime}}))
    assert "data=vdr_en\n" in run_report.write_run_report(folder)


def test_tables_of_a_run_report_hold_every_dimension_precision_metric_and_attribute(run_dir):
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in run_report.write_run_report(run_dir).splitlines()
        if line.startswith("|")
    ]
    assert ["48", "0.015 [0.000, 0.045]", "0.865 [0.835, 0.895]", "98.9%", "192"] in rows
    assert ["12", "0.624", "48", "0.623", "12", "0.613", "2"] in rows
    assert ["cosine_accuracy@1", "0.008", "0.437"] in rows
    assert ["color", "78.0%"] in rows


def test_a_rerankers_report_has_a_row_for_each_direction_and_no_dimensions(tmp_path):
    values = [
        {"ndcg@10": value, "ndcg@10_ci95": [0.1, 0.9], "end_to_end_ndcg@10": value - 0.1} for value in (0.4, 0.8)
    ]
    base, final = ({"directions": {"all": each, "image_to_text": each}} for each in values)
    folder = finished_run(tmp_path / "one", name="reranker", base=None, final=None)
    metrics = json.loads((folder / "metrics.json").read_text())
    save_json(folder / "metrics.json", metrics | {"primary_metric": "ndcg@10", "base": base, "final": final})
    (folder / "final").mkdir()
    (folder / "final" / "config_sentence_transformers.json").write_text('{"model_type": "CrossEncoder"}')
    text = run_report.write_run_report(folder)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert rows[0] == ["direction", "base", "finetuned"] and "## Directions" not in text
    assert ["image_to_text", "0.400 [0.100, 0.900]", "0.800 [0.100, 0.900]"] in rows
    assert ["end_to_end_ndcg@10", "0.300", "0.700"] in rows
    assert "Precision" not in text and "import CrossEncoder" in text and "model=reranker " in text
    table, written = report.write_report([tmp_path], tmp_path)
    assert "0.800 [0.100, 0.900]" in table and written[1].exists()


def test_figures_are_written_and_embedded(run_dir):
    text = run_report.write_run_report(run_dir)
    for name in ("matryoshka.png", "training.png"):
        assert f"](figures/{name})" in text
        with Image.open(run_dir / "figures" / name) as image:
            assert image.width > 900


def test_axis_of_dimensions_speaks_of_percentages_only_where_one_is_shown(run_dir, tmp_path):
    metrics = load_json(run_dir / "metrics.json")
    for base, final in ((BASE, FINETUNED), ({96: 0.0}, {96: 0.5})):
        figures.dimensions_against_quality(
            metrics | {"base": section(base), "final": section(final)}, "t", tmp_path / "a.svg"
        )
        is_said = "<!-- dimensions (percentages: share of the full dimension) -->" in (tmp_path / "a.svg").read_text()
        assert is_said == (len(final) > 1)


def test_evaluate_only_run_is_reported_without_finetuned_values(tmp_path):
    text = run_report.write_run_report(finished_run(tmp_path, name="as it is", base=FINETUNED, final=None))
    assert "**nDCG@10 0.874 [0.844, 0.904] on report-pages-hard" in text
    assert "finetuned" not in text
    assert "training.png" not in text


def test_model_of_one_dimension_has_no_retention_sentence(tmp_path):
    text = run_report.write_run_report(finished_run(tmp_path, name="one", base={96: 0.0}, final={96: 0.8}))
    assert "keep" not in text


@pytest.mark.parametrize("rest", ["\n## Training Details\n\nLong.\n", ""])
def test_comparison_stands_before_a_cards_training_details_or_at_its_end(tmp_path, rest):
    card, metrics = tmp_path / "README.md", {"primary_metric": "cosine_ndcg@10", "base": section(BASE)}
    card.write_text(f"# Model\n{rest}")
    run_report.add_comparison(card, metrics)
    table = comparison_table(metrics)
    assert card.read_text() == f"# Model\n\n## Base against finetuned\n\nnDCG@10 [95% interval]:\n\n{table}\n{rest}"


@pytest.mark.parametrize("card", [SentenceTransformerModelCardData, CrossEncoderModelCardData])
def test_librarys_cards_have_the_heading_that_the_comparison_stands_before(card):
    assert card.template_path.read_text().count(f"\n{run_report.AFTER_COMPARISON}\n") == 1


def test_leaderboard_is_sorted_by_the_primary_metric(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    finished_run(tmp_path / "outputs" / "a", name="weaker", final={96: 0.70, 48: 0.6})
    finished_run(tmp_path / "multirun" / "0", name="stronger", final={96: 0.90, 48: 0.8})
    finished_run(tmp_path / "outputs" / "b", name="evaluated|only", base={96: 0.80}, final=None)
    assert report.main([]) == 0
    printed = capsys.readouterr().out
    places = [printed.index(name) for name in ("stronger", "evaluated\\|only", "weaker")]
    assert places == sorted(places)
    assert "0.900 [0.870, 0.930]" in printed and "outputs/report.md" in printed
    assert (tmp_path / "outputs" / "report.md").read_text().count("| weaker") == 1
    assert report.main(["--all"]) == 0
    page = (tmp_path / "outputs" / "report.md").read_text()
    assert page.count("| weaker") == 3  # what it cost, and by dimension, too
    assert (tmp_path / "outputs" / "figures" / "quality.png").stat().st_size > 10_000


def test_a_default_folder_that_is_absent_is_left_out_and_files_between_folders_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert report.main([]) == 2
    assert capsys.readouterr().err == (
        "error: neither outputs nor multirun is here; name directories that hold runs\n"
    )
    finished_run(tmp_path / "multirun" / "0", evaluation=EVALUATION | {"num_queries": 1})
    (tmp_path / "multirun" / "a.db").touch()
    for arguments in ([], ["multirun/a.db", "multirun/0"]):
        assert report.main(arguments) == 0
    assert "1 query, 500 documents" in capsys.readouterr().out
    assert "`python -m experiments.report multirun --all`" in (tmp_path / "multirun" / "report.md").read_text()


def test_runs_on_different_queries_are_never_ranked_together(tmp_path, capsys):
    finished_run(tmp_path / "a", name="one")
    finished_run(tmp_path / "b", name="two", evaluation=EVALUATION | {"fingerprint": "other"})
    assert report.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.count("## nDCG@10 on") == 2
    assert len(list((tmp_path / "out" / "figures").glob("quality*.png"))) == 2


def test_missing_directory_and_no_finished_run_are_one_line_and_exit_2(tmp_path, capsys):
    for folder in (tmp_path / "missing", tmp_path):
        assert report.main([str(folder)]) == 2
        output = capsys.readouterr()
        assert output.err.count("\n") == 1 and str(folder) in output.err and not output.out


def as_before(run_dir):
    """Make a run's metrics such as the version before wrote them."""
    metrics = load_json(run_dir / "metrics.json")
    for tag in ("base", "final"):
        metrics[tag] = metrics[tag]["dimensions"]
    save_json(run_dir / "metrics.json", metrics)


def test_runs_of_the_version_before_are_left_out_with_a_count_and_alone_refused_in_one_line(tmp_path):
    for name in ("old", "older"):
        finished_run(tmp_path / name, name=name)
        as_before(tmp_path / name)
    command = [sys.executable, "-m", "experiments.report", str(tmp_path)]
    alone = subprocess.run(command, capture_output=True, text=True, check=False)
    assert alone.returncode == 2 and alone.stderr.count("\n") == 1
    assert "2 runs of a version before" in alone.stderr and "evaluate its model again" in alone.stderr
    finished_run(tmp_path / "new", name="new")
    beside = subprocess.run(command, capture_output=True, text=True, check=False)
    assert beside.returncode == 0 and "older" not in beside.stdout
    assert "left out: 2 runs of a version before" in beside.stderr
    with pytest.raises(ConfigError, match="version before"):
        run_report.write_run_report(tmp_path / "old")


def test_unfinished_runs_are_left_out(tmp_path, capsys):
    finished_run(tmp_path / "good", name="good")
    finished_run(tmp_path / "killed", name="killed")
    fields = json.loads((tmp_path / "killed" / "run.json").read_text())
    save_json(tmp_path / "killed" / "run.json", fields | {"status": "running"})
    report.main([str(tmp_path)])
    assert "killed" not in capsys.readouterr().out


def test_a_jobs_verdict_is_told_in_words():
    told = {outcome: verdict_text({"outcome": outcome, "difference": 0.095}) for outcome in ("better", "not shown")}
    assert told == {"better": "better +0.095", "not shown": "no improvement shown (+0.095)"}


@pytest.fixture
def sweep_dir(tmp_path):
    """A sweep of six jobs, one of them out of memory."""
    jobs = []
    for number, (rate, pixels) in enumerate((rate, pixels) for rate in ("1e-3", "2e-4") for pixels in ("4096", "900")):
        value = 0.5 + number / 10
        finished_run(tmp_path / str(number), name=f"job {number}", final={96: value, 48: value - 0.05})
        point = {"trainer.learning_rate": rate, "model.max_pixels": pixels}
        entry = {
            "number": number,
            "dir": str(number),
            "status": "finished",
            "point": point,
            "metric": "cosine_ndcg@10",
        }
        entry |= {"value": value, "interval": [value - 0.03, value + 0.03], "peak_memory_bytes": (number + 1) * 2**28}
        jobs.append(entry)
    jobs.append(
        {"number": 4, "dir": "4", "status": "OOM", "point": {"trainer.learning_rate": "1", "model.max_pixels": ""}}
    )
    keys = ["trainer.learning_rate", "model.max_pixels"]
    save_json(tmp_path / "summary.json", {"jobs": jobs, "keys": keys})
    return tmp_path


def test_report_on_a_sweep_draws_its_keys_bytes_and_memory(sweep_dir, capsys):
    assert report.main([str(sweep_dir)]) == 0
    text, printed = (sweep_dir / "report.md").read_text(), capsys.readouterr().out
    runs = [line.split("|")[1].strip() for line in text.splitlines() if line[:1] == "|"]
    points = [f"learning_rate={rate}, max_pixels={pixels}" for rate in ("1e-3", "2e-4") for pixels in (4096, 900)]
    assert runs[2:] == [*points, "qwen3vl_tiny before training"]  # in the sweep's order
    assert text.splitlines()[2].startswith(f"**Best: {points[-1]}, nDCG@10 0.800 ")
    assert "4 of the sweep's 5 jobs have a result; the others: job 4 OOM." in text
    for name in ("sweep_keys.png", "sweep_bytes.png", "sweep_memory.png"):
        assert f"](figures/{name})" in text and str(sweep_dir / "figures" / name) in printed
        with Image.open(sweep_dir / "figures" / name) as image:
            assert image.width > 800 and len(image.convert("RGB").getcolors(1 << 24)) > 50


def test_sweep_without_known_memory_has_no_figure_of_it(sweep_dir):
    sweep = load_json(sweep_dir / "summary.json")
    for job in sweep["jobs"]:
        job["peak_memory_bytes"] = None
    save_json(sweep_dir / "summary.json", sweep)
    assert report.main([str(sweep_dir)]) == 0
    assert not (sweep_dir / "figures" / "sweep_memory.png").exists()
    assert (sweep_dir / "figures" / "sweep_bytes.png").exists()


def test_jobs_of_a_sweep_over_data_are_drawn_by_evaluation(sweep_dir, capsys):
    for number in "23":
        metrics = load_json(sweep_dir / number / "metrics.json")
        metrics["evaluation"]["fingerprint"] = "other"
        save_json(sweep_dir / number / "metrics.json", metrics)
    assert report.main([str(sweep_dir)]) == 0
    assert len([*(sweep_dir / "figures").glob("sweep_bytes*.png")]) == 2


def test_swept_values_are_in_the_order_of_their_size():
    from experiments.reports.sweep_figures import order

    assert sorted(["none", "16", "2e-3", "4", "default"], key=order) == ["2e-3", "4", "16", "default", "none"]


def test_a_sweeps_summary_says_the_answer_first_with_each_jobs_verdict_and_chance(tmp_path):
    worse = {"outcome": "worse", "difference": -0.0512, "interval": [-0.08, -0.02], "p": 0.0012}
    chance = {"all": {"cosine_ndcg@10": 0.009}}
    finished_run(tmp_path / "0", verdict=worse | {"metric": "cosine_ndcg@10", "against": "base"}, chance=chance)
    finished_run(tmp_path / "1", final=None)  # of a version before: without chance
    job = {"status": "finished", "reused": False, "log": "log", "rerun": "again"}
    jobs = [job | {"number": number, "dir": str(number), "point": {"loss.scale": str(number)}} for number in range(2)]
    sweep = {"name": "sweep", "command": "train -m", "status": "finished", "keys": ["loss.scale"], "jobs": jobs}
    write_summary(tmp_path, sweep)
    lines = (tmp_path / "summary.md").read_text().splitlines()
    assert lines[2] == "**Highest: scale=0, nDCG@10 0.874 [0.844, 0.904]. Worse after training: scale=0.**"
    rows = [[cell.strip() for cell in line.split("|")[1:]] for line in lines if line[:1] == "|"]
    assert lines[4][:1] == "|" and rows[0][:3] == ["run", "nDCG@10 [95% interval]", "verdict"]
    assert [(row[0], row[2]) for row in rows[2:]] == [("scale=0", "worse -0.051"), ("scale=1", "–"), ("chance", "")]
    peak = f"{load_json(tmp_path / '0' / 'run.json')['peak_memory_bytes'] / 2**20:,.0f} MiB"
    assert rows[2][rows[0].index("peak memory")] == peak  # of a job that is reused the record alone tells it
    assert rows[-1][1] == "0.009"
    first, second = csv.DictReader((tmp_path / "summary.csv").read_text().splitlines())
    assert (first["outcome"], first["difference"], first["p"]) == ("worse", "-0.0512", "0.0012")
    assert (first["run"], first["loss.scale"], first["chance"]) == ("scale=0", "0", "0.009")
    assert second["outcome"] == second["chance"] == ""


def test_a_sweeps_answer_names_what_is_worse_with_the_better_step_and_what_is_not_above_chance(tmp_path):
    verdicts = [
        {"outcome": "better", "against": "base", "above_chance": True},
        {"outcome": "worse", "against": "base", "above_chance": False, "best": {"step": 6, "value": 0.46}},
        {"outcome": "worse", "against": "retriever", "above_chance": True},
    ]
    points = [{"loss.scale": str(number)} for number in range(3)]
    jobs = [
        {"number": number, "point": point, "value": 0.5 - number / 10, "metric": "cosine_ndcg@10", "verdict": verdict}
        for number, (point, verdict) in enumerate(zip(points, verdicts, strict=True))
    ]
    assert answer_sentence(jobs) == (
        "Highest: scale=0, nDCG@10 0.500. Finetuning helped: scale=0. "
        "Worse after training: scale=1 (step 6 was better, 0.460). "
        "Worse than the retriever alone: scale=2. Not above chance: scale=1."
    )


def test_report_imports_no_torch():
    code = "import sys, experiments.report; sys.exit('torch' in sys.modules or 'hydra' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
