"""One context manager around a run: its metrics in Trackio, its energy by CodeCarbon, both on this machine.

Facts of Trackio 0.43 that shape this file: the dashboard draws every number that is logged; names without a slash come
first and in the order of the alphabet, those with one behind in groups; a metric that has one point per run is drawn
as bars across runs. So a chart stands for a question: how good and at which loss at each step (`nDCG@10`, step 0 being
the model before training; `training loss`), how good in the end at each dimension (`summary/`), at which cost
(`system/`), under which schedule (`training/`). All else is in metrics.json. Runs are grouped by top-level scalars of
the config alone. It has no status: ours is a config value and, after a failure, an alert.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import PIL.Image
from transformers import TrainerCallback

from experiments.config.errors import ConfigError
from experiments.runs import metrics_file, names, new_folders, trackio_run
from experiments.runs.memory import peak
from experiments.runs.metrics_file import RANKED_BY, main_values, metric_label, parts
from experiments.runs.process import is_main_process
from experiments.runs.provenance import gpus_in_use
from experiments.runs.run import read_record

if TYPE_CHECKING:
    from sentence_transformers.base.model import BaseModel
    from transformers import TrainerState

    from experiments.runs.energy import Meter

THUMBNAIL_PIXELS = 160  # longest side of a sample page
SCORE = r"(?:(?:cosine|dot|euclidean|manhattan|maxsim)_)?"  # the score function in a metric's name
PRIMARY = metric_label(RANKED_BY)  # the first chart
CHARTS = {  # what is drawn of what the trainer logs; the loss comes after the primary metric in the alphabet
    **{"loss": "training loss", "eval_loss": "training/validation loss"},
    **{"learning_rate": "training/learning rate", "grad_norm": "training/gradient norm"},
}

Document = tuple[str, Any]  # its name and its content


class Tracker:
    """What a run reports to; without a Trackio run every method does nothing."""

    def __init__(self, run: Any = None, folder: Path | None = None) -> None:
        self.place: dict[str, str] = {}  # where the run is: Trackio's folder, the project, its name there and its id
        self.show_command = self.address = ""  # the line that serves the dashboard, for a terminal; what to open then
        if run and folder:
            self.place = {"folder": str(folder), "project": run.project, "name": run.name, "id": run.id}
            self.show_command = trackio_run.show_command(folder, run.project)
            self.address = trackio_run.address(run.project, [run.id])
        self.meter: Meter | None = None
        self.step = 0  # the training step, where no other is given
        self._run = run
        self._logged: set[tuple[int, str]] = run.logged() if run and run.is_resumed else set()
        self._energy: dict[str, Any] | None = None

    def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Log metrics at a global step, each once; None is the last training step."""
        at = self.step if step is None else step
        new = {key: value for key, value in metrics.items() if (at, key) not in self._logged}
        if self._run and new:
            self._logged |= {(at, key) for key in new}
            self._run.log(new, step=at)

    def go_on_from(self, step: int) -> None:
        """Forget what an earlier attempt logged beyond the checkpoint that training goes on from."""
        if self._run and self._run.is_resumed:
            self._run.forget_after(step)
            self._logged = {(at, key) for at, key in self._logged if at <= step}
            self.add_config({"resumed_at_step": step})

    def add_config(self, values: dict[str, Any]) -> None:
        """Add scalars to group by that were not known at the start, such as `model/parameters`."""
        if self._run:
            self._run.store_config(values, self.step)

    def callback(self, name: str) -> TrainerCallback:
        """Return a callback that logs training, and in-training evaluation under the evaluator's name, by step."""
        return _TrainingLog(self, name)

    def log_before_training(self, measured: dict[str, Any]) -> None:
        """Log the primary metric of the model that training begins with: where its curve begins, at step 0."""
        self.log(_primary(main_values(measured)), step=0)

    def log_results(self, metrics: dict[str, Any]) -> None:
        """Log what metrics.json holds in the end: the primary metric of each part, and a table of everything.

        A part is a dimension or a direction. Where the last step was evaluated in training, that value stays.
        """
        if not self._run:
            return
        import trackio

        measured = metrics_file.best_measured(metrics)
        self.log(_primary(main_values(measured)))
        self.log({f"summary/{key}": value for key, value in _primary(main_values(measured)).items()})
        for section, found in measured.items():
            for key, values in found.items():
                if values is not main_values(measured):
                    part = f"{int(key):04d}" if section == "dimensions" else key  # padded, so that they sort
                    self.log({f"summary/{name} {part}": value for name, value in _primary(values).items()})
        self.log({"results": trackio.Table(data=_table(metrics))})
        told = {f"chance {name}": value for name, value in _primary(metrics_file.chance(metrics) or {}).items()}
        self.add_config(told | ({"verdict": metrics["verdict"]["outcome"]} if metrics.get("verdict") else {}))

    def log_figure(self, path: Path) -> None:
        """Show an image file in the dashboard."""
        if self._run:
            import trackio

            self.log({f"figures/{path.stem}": trackio.Image(path, caption=path.stem)})

    def log_samples(self, rows: Sequence[tuple[Any, int | None, Document, Sequence[Document]]]) -> None:
        """Log sample retrievals as a table of thumbnails.

        A row has the query, the right page's rank from 1 (None: not found), the right page, and the pages ranked
        highest. Queries and pages are PIL images or texts.
        """
        if not self._run or not rows:
            return
        import trackio

        data: list[Any] = []
        for query, rank, (name, right), top in rows:
            pages = [page for _, page in top]
            are_images = all(isinstance(page, PIL.Image.Image) for page in pages)
            row = {"query": _cell(query), "rank of the right page": "not found" if rank is None else rank}
            row |= {"right page": _cell(right), "its name": name}
            row["top pages"] = [*map(_cell, pages)] if are_images else " | ".join(map(str, pages))
            data.append(row | {"their names": ", ".join(name for name, _ in top)})
        self.log({"samples": trackio.Table(data=data)})

    def energy(self) -> dict[str, Any] | None:
        """Return what all attempts of the run used up to the first call (see `Meter.read`), so that reports agree."""
        if self._energy is None and self.meter:
            self._energy = self.meter.read()
        return self._energy

    def write_energy_to_card(self, model: BaseModel) -> dict[str, Any] | None:
        """Put energy and CO2 on the model's card, right before saving, and return them."""
        if (energy := self.energy()) and self.meter:
            self.meter.write_card(model, energy)
        return energy

    def close(self, status: str, error: BaseException | None = None) -> None:
        """Log the energy and how the run ended (finished, failed or interrupted), and write everything to disk."""
        import trackio

        try:
            energy = self.energy()
            if self.meter:
                self.meter.tracker.stop()
            if status == "finished":
                self.log(_costs(energy or {}))
                self.add_config({"energy/method": energy["method"]} if energy else {})
        finally:
            self.add_config({"status": status})
            with contextlib.redirect_stdout(io.StringIO()):  # it prints that it uploads, which it doesn't
                if error is not None:
                    text = " ".join(f"{type(error).__name__}: {error}".split())[:500]
                    self._run.alert(f"{self._run.name} {status}", text, trackio.AlertLevel.ERROR, step=self.step)
                self._run.finish()

    def refuse(self, error: ConfigError) -> None:
        """End a run that was refused: it is none, unless it has trained."""
        if self._run.is_resumed or self.step:
            self.close("failed", error)
            return
        if self.meter:
            self.meter.tracker.stop()
        with contextlib.redirect_stdout(io.StringIO()):
            self._run.discard()
        folder = Path(self.place["folder"])
        if new_folders.is_new(folder) and not any(path.is_file() for path in (folder / ".names").rglob("*")):
            shutil.rmtree(folder, ignore_errors=True)  # nobody else's run is in it


class _TrainingLog(TrainerCallback):
    """Passes on what the trainer logs, under the names of the charts."""

    def __init__(self, tracker: Tracker, name: str) -> None:
        self.tracker = tracker
        self.primary = re.compile(rf"eval_{re.escape(name)}_{SCORE}{RANKED_BY}")

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Take the run back to the checkpoint that training goes on from, and add what was not yet on disk."""
        if state.is_world_process_zero:
            self.tracker.go_on_from(state.global_step)
            for entry in state.log_history:
                self._log(entry, int(entry["step"]))

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Log on the main process."""
        if state.is_world_process_zero:
            self._log(logs or {}, state.global_step)
            if self.tracker.meter:  # keeps what was used, should the run be killed
                self.tracker.meter.read()

    def _log(self, logs: dict[str, Any], step: int) -> None:
        self.tracker.step = step
        named = {self._chart(key): float(value) for key, value in logs.items() if isinstance(value, int | float)}
        self.tracker.log({chart: value for chart, value in named.items() if chart}, step)

    def _chart(self, key: str) -> str | None:
        """Return the chart's name; None for what isn't drawn."""
        if direction := re.fullmatch(r"eval_(\w+)_loss", key):
            return f"{CHARTS['eval_loss']} {direction[1]}"
        return PRIMARY if self.primary.fullmatch(key) else CHARTS.get(key)


@contextmanager
def track(
    config: dict[str, Any],
    output_dir: Path,
    *,
    name: str,
    project: str = "experiments",
    group: str | None = None,
    dir: str | Path = "outputs/trackio",
    country_iso_code: str = "USA",
    energy: bool = True,
    choices: dict[str, str],
) -> Iterator[Tracker]:
    """Track a run until the block ends, whichever way it ends; only the main process of several does.

    Nothing leaves this machine: neither the Hub nor a server named in the environment is asked. A run that goes on in
    its directory goes on in Trackio under its name, from the checkpoint's step. What is refused is no run.

    Args:
        config: The resolved config; its scalars become values to group by, such as `loss/mini_batch_size`.
        output_dir: The run's directory.
        name: Readable name; a number is added if the project has it already.
        project: Trackio project.
        group: Runs shown together; None is the data set's name.
        dir: Folder of Trackio's SQLite files.
        country_iso_code: Whose electricity mix turns energy into CO2: three letters, ISO 3166.
        energy: Measure energy and CO2.
        choices: The options chosen for the config groups, such as `{"model": "qwen3vl_tiny"}`.

    Raises:
        ConfigError: For an unknown country, a project name that Trackio reserves, or a folder that can't be written.
    """
    if not is_main_process():
        yield Tracker()
        return
    if energy:
        from experiments.runs.energy import Meter, check_country

        check_country(country_iso_code)
    folder = Path(dir).expanduser().resolve()
    flat = trackio_run.flatten(config, choices) | {"output_dir": str(output_dir.resolve())}
    flat["status"] = "running"  # stays so if the process is killed
    group = group or flat.get("data/name") or flat.get("data")
    earlier = (read_record(output_dir) or {}).get("tracked") or {}
    name = names.tracked_name(output_dir, name)
    tracker = Tracker(trackio_run.start(folder, project, name, group, flat, earlier.get("id")), folder)
    try:
        tracker.meter = Meter(country_iso_code, output_dir, gpus_in_use()) if energy else None
        yield tracker
    except ConfigError as error:
        with contextlib.suppress(Exception):
            tracker.refuse(error)
        raise
    except BaseException as error:
        with contextlib.suppress(Exception):  # it must not hide the run's own error
            tracker.close("interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed", error)
        raise
    tracker.close("finished")


@contextmanager
def no_tracking(config: dict[str, Any], output_dir: Path, *, name: str, **unused: Any) -> Iterator[Tracker]:
    """Take the place of `track` and do nothing."""
    yield Tracker()


def _numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the plain numbers among the metrics, named as they are read: without the score function."""
    return {metric_label(key): float(v) for key, v in metrics.items() if isinstance(v, int | float)}


def _primary(values: dict[str, Any]) -> dict[str, float]:
    """Return the metric that runs are ranked by, under its chart's name, if it was measured."""
    return {name: value for name, value in _numbers(values).items() if name == PRIMARY}


def _table(metrics: dict[str, Any]) -> list[Any]:
    """Return a row for each model, dimension (or direction of a reranker) and precision, and one for chance.

    All rows have the same columns: the dashboard takes those of the first.
    """
    rows = [row for _, label, measured in metrics_file.evaluations(metrics) for row in _rows(label, measured)]
    if by_chance := metrics_file.chance(metrics):
        rows.append({"model": "chance"} | _numbers(by_chance))
    columns = dict.fromkeys([*rows[0]][:3] + [PRIMARY] + [key for row in rows for key in row])
    return [{key: _rounded(row.get(key, "")) for key in columns} for row in rows]


def _rounded(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _rows(model: str, measured: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each part of an evaluation at each precision."""
    rows = []
    column = "dimension" if metrics_file.dimensions(measured) else "direction"
    for key, values in parts(measured).items():
        precisions = {name: found for name, found in values.items() if isinstance(found, dict)}
        for precision, found in {"float32": values, **precisions}.items():
            rows.append({"model": model, column: key, "precision": precision} | _numbers(found))
    return rows


def _costs(energy: dict[str, Any]) -> dict[str, float]:
    """Return what a run took, to be compared across runs."""
    memories = peak()
    num_bytes = memories["peak_device_bytes"] or memories["peak_memory_bytes"]
    costs = {"peak memory (GiB)": num_bytes / 2**30} if num_bytes else {}
    if energy:
        costs |= {"energy (kWh)": energy["energy_kwh"], "CO2 (kg)": energy["emissions_kg"]}
        costs["time (minutes)"] = energy["duration_s"] / 60
    return {f"system/{name}": value for name, value in costs.items()}


def _cell(value: Any) -> Any:
    if not isinstance(value, PIL.Image.Image):
        return str(value)
    import trackio
    from transformers.image_transforms import convert_to_rgb

    thumbnail = PIL.Image.fromarray(convert_to_rgb(value, return_numpy=True))  # type: ignore[arg-type]
    thumbnail.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    return trackio.Image(thumbnail)
