"""One context manager around a run: its metrics in Trackio, its energy by CodeCarbon, both on this machine.

Facts of Trackio 0.43 that shape this file: the dashboard groups runs by top-level scalars of the config alone,
draws a metric that has one point per run as bars across runs, and takes any number as a step, so that a
Matryoshka curve is a metric whose step is the dimension. It has no status: ours is a config value, a metric
and, after a failure, an alert.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import PIL.Image
from transformers import TrainerCallback

from experiments.runs import trackio_run
from experiments.runs.metrics_file import RANKED_BY, dimensions, main_values, parts
from experiments.runs.process import is_main_process
from experiments.runs.provenance import gpus_in_use

if TYPE_CHECKING:
    from sentence_transformers.base.model import BaseModel
    from transformers import TrainerState

    from experiments.runs.energy import Meter

SHOW_HINT = "add &smoothing=0 to the address: by default every curve is a moving average"  # no option does it
THUMBNAIL_PIXELS = 160  # longest side of a sample page
SCORE = r"(?:(?:cosine|dot|euclidean|manhattan|maxsim)_)?"  # the score function in a metric's name


class Tracker:
    """What a run reports to; without a Trackio run every method does nothing."""

    def __init__(self, run: Any = None, show_command: str = "") -> None:
        self.name = run.name if run else ""
        self.show_command = show_command  # the line that opens the dashboard, for a terminal
        self.meter: Meter | None = None
        self.step = 0  # the training step, where no other is given
        self._run = run
        self._energy: dict[str, Any] | None = None

    def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Log metrics at a global step; None is the last training step."""
        if self._run and metrics:
            self._run.log(metrics, step=self.step if step is None else step)

    def add_config(self, values: dict[str, Any]) -> None:
        """Add scalars to group by that were not known at the start, such as `model/parameters`."""
        if self._run:
            self._run.store_config(values, self.step)

    def callback(self, name: str, embedding_dim: int | None = None) -> TrainerCallback:
        """Return a callback that logs training and in-training evaluation by global step.

        Args:
            name: The evaluator's name, as it stands in `eval_{name}_cosine_ndcg@10`, `eval_{name}-48d_cosine_ndcg@10`
                or, for a reranker's direction, `eval_{name}-image_to_text_ndcg@10`.
            embedding_dim: The model's full dimension, which those names leave out; None for a reranker.
        """
        return _TrainingLog(self, name, embedding_dim)

    def log_evaluation(self, measured: dict[str, Any], prefix: str) -> None:
        """Log an evaluation as one point a metric (bars across runs), as a table, and as a Matryoshka curve.

        `measured` and the prefix, its tag, are those of a `metrics_file.Evaluated`. The table has all dimensions or
        directions; the curve's steps are the dimensions.
        """
        if not self._run or not measured:
            return
        import trackio

        points: dict[str, Any] = {}
        rows: list[Any] = []
        for section, found in measured.items():
            for key, metrics in found.items():
                column, part, suffix = "direction", key, key
                if section == "dimensions":
                    column, part, suffix = "dimension", int(key), _dimension(key)
                precisions = {name: values for name, values in metrics.items() if isinstance(values, dict)}
                for precision, values in {"float32": metrics, **precisions}.items():
                    numbers = _numbers(values)
                    if found is parts(measured):  # not a direction beside dimensions
                        rounded = {name: round(value, 4) for name, value in numbers.items()}
                        rows.append({column: part, "precision": precision} | rounded)
                    start = "" if precision == "float32" else f"{precision}_"
                    # The metric that runs are ranked by at every dimension and precision, the others at the first.
                    drawn = numbers if values is main_values(measured) else {RANKED_BY} & numbers.keys()
                    points |= {f"{prefix}/{start}{metric}_{suffix}": numbers[metric] for metric in drawn}
        self.log(points | {f"{prefix}_metrics": trackio.Table(data=rows)})
        for dim in sorted(dimensions(measured)):
            numbers = _numbers(measured["dimensions"][str(dim)])
            if RANKED_BY in numbers:
                self.log({f"matryoshka/{prefix}_{RANKED_BY}_by_dimension": numbers[RANKED_BY]}, step=dim)

    def log_figure(self, path: Path) -> None:
        """Show an image file in the dashboard."""
        if self._run:
            import trackio

            self.log({f"figures/{path.stem}": trackio.Image(path, caption=path.stem)})

    def log_samples(self, rows: Sequence[tuple[Any, Any, Sequence[Any], int | None]]) -> None:
        """Log sample retrievals as a table of thumbnails.

        A row has the query, the right page, the pages ranked highest, and the right page's rank from 1 (None: not
        found). Queries and pages are PIL images or texts.
        """
        if not self._run or not rows:
            return
        import trackio

        data: list[Any] = [
            {
                "query": _cell(query),
                "rank of the right page": "not found" if rank is None else rank,
                "right page": _cell(right),
                "top pages": [_cell(page) for page in top]
                if all(isinstance(page, PIL.Image.Image) for page in top)
                else " | ".join(map(str, top)),
            }
            for query, right, top, rank in rows
        ]
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
            if energy:
                self.log({f"energy/{key}": value for key, value in energy.items() if isinstance(value, float)})
                self.add_config({"energy/method": energy["method"]})
        finally:
            self.log({"status_finished": float(status == "finished")})
            self.add_config({"status": status})
            with contextlib.redirect_stdout(io.StringIO()):  # it prints that it uploads, which it doesn't
                if error is not None:
                    text = " ".join(f"{type(error).__name__}: {error}".split())[:500]
                    self._run.alert(f"{self.name} {status}", text, trackio.AlertLevel.ERROR, step=self.step)
                self._run.finish()


class _TrainingLog(TrainerCallback):
    """Passes on what the trainer logs, under names that sort by dimension."""

    def __init__(self, tracker: Tracker, name: str, embedding_dim: int | None) -> None:
        self.tracker = tracker
        self.embedding_dim = embedding_dim
        self.pattern = re.compile(rf"eval_{re.escape(name)}(?:-(?:(\d+)d|(\w+?)))?_{SCORE}([a-z]+@\d+|map)")

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Repeat what was logged before the checkpoint that training resumes from."""
        if state.is_world_process_zero and state.global_step:
            for entry in state.log_history:
                self._log({key: value for key, value in entry.items() if key != "step"}, int(entry["step"]))
            self.tracker.add_config({"resumed_at_step": state.global_step})

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Log on the main process."""
        if state.is_world_process_zero:
            self._log(logs or {}, state.global_step)
            if self.tracker.meter:  # keeps what was used, should the run be killed
                self.tracker.meter.read()

    def _log(self, logs: dict[str, Any], step: int) -> None:
        self.tracker.step = step
        named = {self._metric(key): float(value) for key, value in logs.items() if isinstance(value, int | float)}
        self.tracker.log({key: value for key, value in named.items() if key}, step)

    def _metric(self, key: str) -> str | None:
        """Return the name in Trackio; None for what isn't drawn."""
        if match := self.pattern.fullmatch(key):
            dim, direction, metric = match.groups()
            if (dim or direction) and metric != RANKED_BY:
                return None
            dim = dim or self.embedding_dim
            part = direction or (dim and _dimension(dim))
            return f"eval/{metric}_{part}" if part else f"eval/{metric}"
        if key.startswith("eval_"):
            return f"eval/{key.removeprefix('eval_')}"
        return "train/mean_loss" if key == "train_loss" else f"train/{key.removeprefix('train_')}"


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

    Nothing leaves this machine: neither the Hub nor a server named in the environment is asked. A run that goes
    on from a checkpoint is a new Trackio run, which begins with what was logged up to that checkpoint.

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
    run = trackio_run.start(folder, project, name, group, flat)
    tracker = Tracker(run, trackio_run.show_command(folder, project))
    try:
        tracker.meter = Meter(country_iso_code, output_dir, gpus_in_use()) if energy else None
        yield tracker
    except BaseException as error:
        with contextlib.suppress(Exception):  # it must not hide the run's own error
            tracker.close("interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed", error)
        raise
    tracker.close("finished")


@contextmanager
def no_tracking(config: dict[str, Any], output_dir: Path, *, name: str, **unused: Any) -> Iterator[Tracker]:
    """Take the place of `track` and do nothing."""
    yield Tracker()


def _dimension(dim: int | str) -> str:
    """Return how the name of a dimension's metric ends: padded, so that they sort."""
    return f"dim{int(dim):04d}"


def _numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the plain numbers among the metrics, without the score function's name."""
    return {re.sub(f"^{SCORE}", "", key): float(v) for key, v in metrics.items() if isinstance(v, int | float)}


def _cell(value: Any) -> Any:
    if not isinstance(value, PIL.Image.Image):
        return str(value)
    import trackio
    from transformers.image_transforms import convert_to_rgb

    thumbnail = PIL.Image.fromarray(convert_to_rgb(value, return_numpy=True))  # type: ignore[arg-type]
    thumbnail.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    return trackio.Image(thumbnail)
