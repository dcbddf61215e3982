import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import compare, report
from experiments.evaluation.metrics import CUTOFFS, paired_difference, per_query_metrics, rank
from experiments.evaluation.query_values import Part, pool, save_query_values
from experiments.reports.settings import load_settings
from experiments.runs.files import load_json, save_json
from experiments.runs.metrics_file import evaluations
from experiments.runs.record import keep_record
from experiments.runs.run import load_run

NUM_QUERIES, NUM_DOCUMENTS, DIMS = 40, 60, (16, 8)


def write_run(folder, *, seed=42, skill=1.0, dims=DIMS, config=None, num_queries=NUM_QUERIES, **evaluation):
    """Write a finished run whose scores of the relevant documents are `skill` above those of the others."""
    generator = np.random.default_rng(seed)
    query_ids = [f"q{number:02d}" for number in range(num_queries)]
    document_ids = np.array([f"d{NUM_DOCUMENTS - number:02d}" for number in range(NUM_DOCUMENTS)])
    relevant = {query_id: {document_ids[row], document_ids[-1]} for row, query_id in enumerate(query_ids)}
    found = {}
    for dim in dims:
        scores = generator.normal(size=(num_queries, NUM_DOCUMENTS))
        scores[np.arange(num_queries), np.arange(num_queries)] += skill * dim / 8
        columns, _ = rank([scores])
        hits = np.array(
            [[id_ in relevant[q] for id_ in document_ids[row]] for q, row in zip(query_ids, columns, strict=True)]
        )
        values = per_query_metrics(hits, np.full(num_queries, 2))
        found[str(dim)] = Part(query_ids, {f"cosine_{name}": value for name, value in values.items()})
    (folder / "rankings").mkdir(parents=True)
    save_query_values(folder / "rankings" / "final.npz", {"dimensions": found})
    full = {"seed": seed, "trainer": {"seed": seed, "learning_rate": 0.001}, "tracking": {"project": folder.name}}
    counts = {"num_queries": num_queries, "num_documents": NUM_DOCUMENTS}
    metrics = {
        "primary_metric": "cosine_ndcg@10",
        "evaluation": {"name": "pages", "fingerprint": "abc", **counts, **evaluation},
        "final": {"dimensions": {dim: part.to_json() for dim, part in found.items()}},
        "model": {"name": "tiny", "parameters": 1000},
        "chance": {"all": {"cosine_ndcg@10": 0.06}},
    }
    for key, value in (config or {}).items():
        full["trainer"][key] = value
    with keep_record(folder, full):
        save_json(folder / "metrics.json", metrics)
    return folder


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two settings of three seeds each, the second with a far higher skill."""
    folder = tmp_path_factory.mktemp("sweep")
    for number, seed in enumerate((42, 43, 44)):
        write_run(folder / f"{number}", seed=seed)
        write_run(folder / f"{number + 3}", seed=seed + 100, skill=4.0, config={"learning_rate": 0.002})
    return folder


def refusal(capsys, *arguments):
    assert compare.main([*map(str, arguments)]) == 2
    output = capsys.readouterr()
    assert output.err.count("\n") == 1 and not output.out
    return output.err


def rows_of(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_per_query_values_average_to_the_reported_metrics_exactly(sweep):
    setting, _ = load_settings([sweep / "0", sweep / "3"])
    for dim in DIMS:
        for metric, value in setting.runs[0].metrics["final"]["dimensions"][str(dim)].items():
            assert setting.matrix(str(dim), metric).mean() == value


def test_runs_that_differ_in_seeds_alone_are_one_setting(sweep):
    settings = load_settings([sweep])
    assert sorted([run.record["seed"] for run in setting.runs] for setting in settings) == [
        [42, 43, 44],
        [142, 143, 144],
    ]


def test_page_says_the_answer_first_and_with_all_what_differs_and_by_how_much(sweep, tmp_path, capsys):
    page = tmp_path / "out" / "page.md"
    assert compare.main([str(sweep), "--all", "--out", str(page)]) == 0
    printed = capsys.readouterr().out
    assert page.read_text() in printed and f"written: {page}" in printed
    weak, strong = "learning_rate=0.001", "learning_rate=0.002"
    assert printed.splitlines()[2].startswith(f"**{strong} is better than {weak}: nDCG@10 ")
    rows = rows_of(printed)
    assert [(row[0], row[-1]) for row in rows[2:5]] == [(weak, "worse"), (strong, "reference"), ("chance", "–")]
    assert rows[4][1] == "0.060"
    assert ["trainer.learning_rate", "0.001", "0.002"] in rows
    assert "Without effect: tracking.project." in printed
    first, second = load_settings([sweep])
    for dim in DIMS:
        mean = first.matrix(str(dim), "cosine_ndcg@10").mean() - second.matrix(str(dim), "cosine_ndcg@10").mean()
        (row,) = [row for row in rows if row[:2] == ["nDCG@10", str(dim)]]
        assert row[4].startswith(f"{mean:+.3f} [") and row[6] == strong
        assert "±" in row[2]
    assert len([row for row in rows if len(row) == 7 and row[1] == "16"]) == 3 * len(CUTOFFS) + 3
    assert f"**nDCG@10: {strong} is better than {weak} at 16, 8 dimensions.**" in printed


def test_without_all_there_is_one_table(sweep, capsys):
    assert compare.main([str(sweep)]) == 0
    printed = capsys.readouterr().out
    assert [row[0] for row in rows_of(printed)[2:]] == ["learning_rate=0.001", "learning_rate=0.002", "chance"]
    assert "They differ in learning_rate; --all adds every dimension" in printed


def test_reference_is_named_by_path_or_name_and_refused_if_it_is_none_of_the_runs(sweep, capsys):
    for typed in ("learning_rate=0.001", sweep / "1"):
        assert compare.main([str(sweep), "--reference", str(typed)]) == 0
        rows = rows_of(capsys.readouterr().out)
        assert [row[-1] for row in rows[2:4]] == ["reference", "better"]
    said = refusal(capsys, sweep, "--reference", "learning_rate=0.01")
    assert "is none of these runs; did you mean 'learning_rate=0.001'?" in said


def test_one_run_is_compared_with_itself_before_training(sweep, tmp_path, capsys):
    run = shutil.copytree(sweep / "3", tmp_path / "run")
    shutil.copy(sweep / "0" / "rankings" / "final.npz", run / "rankings" / "base.npz")
    base = load_json(sweep / "0" / "metrics.json")["final"]
    save_json(run / "metrics.json", load_json(run / "metrics.json") | {"base": base})
    assert compare.main([str(run)]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[2].startswith("**finetuned is better than base: nDCG@10 ")
    assert [(row[0], row[-1]) for row in rows_of(printed)[2:4]] == [("base", "reference"), ("finetuned", "better")]
    assert compare.main([str(run), "--all"]) == 0
    assert [row[1] for row in rows_of(capsys.readouterr().out) if row[0] == "nDCG@10" and len(row) == 7] == ["16", "8"]


def test_setting_is_called_better_only_where_the_interval_excludes_0(tmp_path, capsys):
    write_run(tmp_path / "a", seed=1)
    write_run(tmp_path / "b", seed=2, skill=1.05, config={"learning_rate": 1})
    assert compare.main([str(tmp_path / "a"), str(tmp_path / "b"), "--all"]) == 0
    printed = capsys.readouterr().out
    assert "**No difference is shown between learning_rate=" in printed
    assert "neither is shown to be better at 16, 8 dimensions" in printed
    assert {row[6] for row in rows_of(printed) if row[0] == "nDCG@10" and len(row) == 7} == {"–"}


def test_run_against_itself_is_no_difference(sweep, capsys):
    assert compare.main([str(sweep / "0"), str(sweep / "0")]) == 0
    assert "**No difference: tiny 0 (1) and tiny 0 (2) have the same nDCG@10" in capsys.readouterr().out


def test_runs_of_seeds_alone_give_mean_and_standard_deviation(sweep, capsys):
    assert compare.main([str(sweep / name) for name in "012"]) == 0
    printed = capsys.readouterr().out
    (setting,) = load_settings([sweep / name for name in "012"])
    means = setting.matrix("16", "cosine_ndcg@10").mean(axis=1)
    assert f"{means.mean():.3f} ± {means.std(ddof=1):.3f}" in printed
    assert "no other setting" in printed


def test_full_dimensions_that_differ_are_compared_and_the_common_ones(tmp_path, sweep, capsys):
    wide = write_run(tmp_path / "wide", dims=(32, 16), config={"learning_rate": 7})
    assert compare.main([str(sweep / "0"), str(wide), "--all"]) == 0
    assert [row[1] for row in rows_of(capsys.readouterr().out) if row[0] == "nDCG@10"][1:] == ["32, 16", "16"]


def test_other_evaluation_data_or_metric_is_refused_and_named(sweep, tmp_path, capsys):
    other = write_run(tmp_path / "other", fingerprint="xyz")
    assert "fingerprint abc" in (said := refusal(capsys, sweep / "0", other)) and "fingerprint xyz" in said
    fewer = write_run(tmp_path / "fewer", num_queries=30)
    assert "queries 40" in (said := refusal(capsys, sweep / "0", fewer)) and "queries 30" in said
    renamed = shutil.copytree(sweep / "0", tmp_path / "renamed")
    metrics = load_json(renamed / "metrics.json")
    save_json(renamed / "metrics.json", metrics | {"primary_metric": "cosine_mrr@10"})
    assert "the metrics differ" in refusal(capsys, sweep / "0", renamed)
    metrics["final"]["dimensions"]["8"]["cosine_ndcg@10"] += 0.01
    save_json(renamed / "metrics.json", metrics)
    assert "at 8, but its queries' values give" in refusal(capsys, sweep / "1", renamed)


def test_runs_on_several_evaluations_are_compared_on_each_and_files_and_empty_folders_between_them_are_left_out(
    sweep, tmp_path, capsys
):
    for number, skill in enumerate((1.0, 4.0)):
        config = {"learning_rate": number}
        write_run(
            tmp_path / "outputs" / f"other{number}", skill=skill, config=config, fingerprint="xyz", name="others"
        )
    write_run(tmp_path / "outputs" / "lone", fingerprint="lone")
    (tmp_path / "outputs" / "trackio").mkdir()
    (tmp_path / "outputs" / "experiments.db").touch()
    paths = [sweep / "0", sweep / "3", *sorted((tmp_path / "outputs").iterdir())]
    assert compare.main([*map(str, paths), "--reference", "learning_rate=0"]) == 0
    pages = capsys.readouterr().out.split("# nDCG@10 on ")
    assert [page.splitlines()[0] for page in pages[1:]] == [
        f"{name}: 40 queries, 60 documents" for name in ("pages", "others")
    ]
    assert [row[-1] for row in rows_of(pages[1])[2:4]] == ["worse", "reference"]
    assert [row[-1] for row in rows_of(pages[2])[2:4]] == ["reference", "better"]
    assert f"since no other run here has the same evaluation: {tmp_path / 'outputs' / 'lone'}" in pages[2]
    assert "is none of these runs" in refusal(capsys, *paths, "--reference", "nowhere")


def test_mistakes_are_one_line_that_says_what_to_name(sweep, tmp_path, capsys):
    unfinished = shutil.copytree(sweep / "0", tmp_path / "unfinished")
    save_json(unfinished / "run.json", load_json(unfinished / "run.json") | {"status": "interrupted"})
    without = shutil.copytree(sweep / "0", tmp_path / "without")
    shutil.rmtree(without / "rankings")
    (tmp_path / "empty").mkdir()
    assert "is one run with one evaluation: name another" in refusal(capsys, sweep / "0")
    assert f"trainer.resume={unfinished}" in refusal(capsys, sweep / "0", unfinished)
    assert "holds no finished run" in refusal(capsys, tmp_path / "empty")
    assert "hold no finished run" in refusal(capsys, tmp_path / "empty", tmp_path / "empty")
    assert "is no directory" in refusal(capsys, sweep / "0", Path("nowhere"))
    assert "final.npz can't be read (No such file or directory)" in refusal(capsys, sweep / "0", without)


def test_runs_of_the_version_before_are_refused_in_one_line(sweep, tmp_path, capsys):
    without_sections = shutil.copytree(sweep / "0", tmp_path / "without_sections")
    metrics = load_json(without_sections / "metrics.json")
    save_json(without_sections / "metrics.json", metrics | {"final": metrics["final"]["dimensions"]})
    without_values = shutil.copytree(sweep / "0", tmp_path / "without_values")
    (without_values / "rankings" / "final.npz").unlink()
    damaged = shutil.copytree(sweep / "0", tmp_path / "damaged")
    (damaged / "rankings" / "final.npz").write_bytes(b"PK\x03\x04 and no more")
    for folder in (without_sections, without_values, damaged):
        assert "evaluate its model again with this version" in refusal(capsys, sweep / "1", folder)


def test_rerankers_are_compared_in_each_direction_and_in_all(sweep, tmp_path, capsys):
    for name in "03":  # its two dimensions become the two directions
        folder = shutil.copytree(sweep / name, tmp_path / name)
        (run,) = load_settings([sweep / name, sweep / name])[0].values
        directions = {
            direction: Part(run[dim].query_ids, {"ndcg@10": run[dim].values["cosine_ndcg@10"]})
            for dim, direction in (("16", "image_to_text"), ("8", "text_to_image"))
        }
        directions = {"all": pool(directions)} | directions
        save_query_values(folder / "rankings" / "final.npz", {"directions": directions})
        section = {direction: part.to_json() for direction, part in directions.items()}
        metrics = load_json(folder / "metrics.json") | {"primary_metric": "ndcg@10", "final": {"directions": section}}
        save_json(folder / "metrics.json", metrics)
    assert compare.main([str(tmp_path / "0"), str(tmp_path / "3"), "--all"]) == 0
    printed = capsys.readouterr().out
    assert [row[1] for row in rows_of(printed) if len(row) == 7][2:] == ["all", "image_to_text", "text_to_image"]
    assert "in direction all" in printed
    (setting,) = load_settings([tmp_path / "0", tmp_path / "3"])[:1]
    assert setting.matrix("all", "ndcg@10").shape == (1, 2 * NUM_QUERIES)


def test_a_reranker_is_held_against_its_retriever_alone_end_to_end(sweep, tmp_path, capsys):
    first, second = load_settings([sweep])
    weak, strong = (setting.values[0]["16"].values["cosine_ndcg@10"] for setting in (first, second))
    query_ids = first.values[0]["16"].query_ids
    run = shutil.copytree(sweep / "0", tmp_path / "run")
    metrics = load_json(run / "metrics.json") | {"primary_metric": "ndcg@10", "chance": {}}
    for tag, values in (("base", weak / 2), ("final", weak)):
        names = {"ndcg@10": strong, "end_to_end_ndcg@10": values, "retriever_ndcg@10": strong}  # a ruined order
        part = Part(query_ids, names, {name: (0.4, 0.6) for name in names})
        save_query_values(run / "rankings" / f"{tag}.npz", {"directions": {"all": part}})
        metrics[tag] = {"directions": {"all": part.to_json()}}
    save_json(run / "metrics.json", metrics)
    assert compare.main([str(run), "--all"]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[2].startswith("**Best: retriever alone, nDCG@10 end to end ")
    rows = [(row[0], row[-1]) for row in rows_of(printed)[2:5]]
    assert rows == [("base", "worse"), ("finetuned", "worse"), ("retriever alone", "reference")]
    assert [row[0] for row in rows_of(printed) if len(row) == 7][2:] == ["nDCG@10 end to end", "nDCG@10"]
    text, _ = report.write_report([run], tmp_path / "out")
    assert "**Best: retriever alone, nDCG@10 end to end " in text and "| retriever alone " in text


def coverage(interval, num_runs, seed_spread, *, true=0.1, num_queries=50, num_trials=400):
    """Return how often an interval holds the true difference of two settings, their queries and seeds drawn anew."""
    generator = np.random.default_rng(7)
    covered = []
    for _ in range(num_trials):
        hard = generator.normal(0.4, 0.2, num_queries)
        of_queries = generator.normal(true, 0.1, num_queries)
        settings = [
            hard
            + shift
            + generator.normal(0, seed_spread, (num_runs, 1))
            + generator.normal(0, 0.1, (num_runs, num_queries))
            for shift in (0, of_queries)
        ]
        low, high = interval(*settings)
        covered.append(low <= true <= high)
    return np.mean(covered)


def ours(first, second):
    return paired_difference(first, second, num_resamples=500, num_flips=1)[1:3]


def over_queries_alone(first, second):
    return paired_difference(first.mean(axis=0)[None], second.mean(axis=0)[None], num_resamples=500, num_flips=1)[1:3]


@pytest.mark.parametrize("num_runs, seed_spread", [(1, 0.0), (2, 0.02), (3, 0.0), (3, 0.03), (5, 0.03)])
def test_95_of_100_intervals_hold_the_true_difference_over_new_queries_and_seeds(num_runs, seed_spread):
    assert 0.92 <= coverage(ours, num_runs, seed_spread) <= 0.98


def test_interval_that_forgets_the_seeds_fails_the_same_check():
    assert coverage(over_queries_alone, 3, 0.0) > 0.92
    assert coverage(over_queries_alone, 3, 0.03) < 0.85


def test_sign_flip_test_is_calibrated_and_equals_the_enumeration_of_all_flips():
    generator = np.random.default_rng(3)
    rejected = [
        paired_difference(np.zeros((1, 20)), generator.normal(size=(1, 20)), num_resamples=1, num_flips=400).p < 0.05
        for _ in range(400)
    ]
    assert 0.03 <= np.mean(rejected) <= 0.07
    differences = np.array([0.3, 0.2, 0.5, -0.1, 0.4, 0.0, 0.6, 0.1])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 8)).reshape(8, -1).T
    exact = np.mean(np.abs(signs @ differences) >= differences.sum() - 1e-9)
    found = paired_difference(np.zeros((1, 8)), differences[None], num_resamples=10, num_flips=40_000)
    assert abs(found.p - exact) < 0.005


def test_compare_imports_no_torch():
    code = "import sys, experiments.compare as c; sys.exit(any(m in sys.modules for m in ('torch', 'matplotlib')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("key", "tag"), [("result", "model"), ("base", "base")])  # as it is written, and as it was
def test_a_model_that_was_only_evaluated_is_compared_with_a_training(tmp_path, key, tag):
    write_run(tmp_path / "trained", skill=4.0)
    evaluated = write_run(tmp_path / "evaluated")
    (evaluated / "rankings" / "final.npz").rename(evaluated / "rankings" / f"{tag}.npz")
    metrics = load_json(evaluated / "metrics.json")
    save_json(evaluated / "metrics.json", {key if name == "final" else name: each for name, each in metrics.items()})
    save_json(evaluated / "run.json", load_json(evaluated / "run.json") | {"job": "evaluate"})
    assert [each.label for each in evaluations(load_run(evaluated).metrics)] == ["model"]
    text = compare.compare([evaluated, tmp_path / "trained"], everything=True)
    assert ["job", "evaluate", "train"] in rows_of(text)
    assert "better" in text
