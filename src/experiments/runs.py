"""The record of a run on disk: status, configuration, provenance, metrics."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import math
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from experiments.errors import ConfigError

PRIMARY_METRIC = "cosine_ndcg@10"

_TWIN_ROUTES = ("text", "image", "query", "document")  # encoders of a Router that an offline twin may stand in for

# Keys of the resolved config that cannot change weights or metrics.
_WITHOUT_EFFECT = (
    *("run_name", "tracking", "experiment"),
    *("data.cache_dir", "data.path.cache_dir", "model.cache_dir", "evaluator.cache_dir"),
    *("model.name.cache_dir", "evaluator.retriever.cache_dir"),
    *(f"model.encoders.{route}.name.cache_dir" for route in _TWIN_ROUTES),
    *("evaluator.num_workers", "evaluator.show_progress_bar", "trainer.resume"),
    *(f"trainer.dataloader_{key}" for key in ("num_workers", "prefetch_factor", "pin_memory", "persistent_workers")),
    *("trainer.logging_steps", "trainer.logging_strategy", "trainer.logging_first_step", "trainer.disable_tqdm"),
    *("trainer.report_to", "trainer.run_name", "trainer.output_dir", "trainer.push_to_hub"),
    *("trainer.hub_model_id", "trainer.hub_private_repo", "trainer.hub_revision", "trainer.hub_token"),
)
SEEDS = (  # not data.seed: that is another data set
    *("seed", "trainer.seed", "trainer.data_seed", "model.seed", "evaluator.seed"),
    *("model.name.seed", "evaluator.retriever.seed"),
    *(f"model.encoders.{route}.name.seed" for route in _TWIN_ROUTES),
)
_NOT_RUNS = {"checkpoints", "final", "figures", "rankings"}  # folders inside a run: large, and no run is in them
_HEARTBEAT_LOST_S = 300.0

logger = logging.getLogger(__name__)


def save_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader, or a crash, sees the old file or the new one, never a part.

    NumPy scalars become numbers, paths text, and NaN and infinity null (JSON has neither).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(_plain(value), file, indent=2, ensure_ascii=False, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy and torch, without importing either
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)


def effective(config: dict[str, Any], without: Iterable[str] = ()) -> dict[str, Any]:
    """Return a copy of a resolved config without the keys that cannot change weights or metrics.

    Args:
        config: The resolved config.
        without: More dotted keys to leave out, such as `SEEDS`.
    """
    kept = copy.deepcopy(config)
    for path in (*_WITHOUT_EFFECT, *without):
        *parents, last = path.split(".")
        node: Any = kept
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node.pop(last, None)
    return kept


def digest(value: Any) -> str:
    """Return the SHA-256 of a value that JSON can hold, whatever the order of its keys."""
    canonical = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def config_hash(config: dict[str, Any]) -> str:
    """Return the SHA-256 of a resolved config without the keys that cannot change weights or metrics."""
    return digest(effective(config))


def is_main_process() -> bool:
    """Return whether this process writes: the only one, or the first of those that torchrun started."""
    return int(os.environ.get("RANK", 0)) == 0


def load_json(path: Path) -> Any:
    """Return what a JSON file holds, or None where there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        logger.warning("%s can't be read: %s", path, error)
        return None


def read_record(run_dir: Path) -> dict[str, Any] | None:
    """Return a run's `run.json`, or None where there is none of ours."""
    value = load_json(run_dir / "run.json")
    return value if isinstance(value, dict) and "attempts" in value else None


def process_start(pid: int) -> int | None:
    """Return when a process began, in clock ticks since boot (0 where there is no /proc); None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # the name may hold spaces
        return None if fields[0] in "ZX" else int(fields[19])
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return 0


def this_process() -> dict[str, Any]:
    """Return what tells this process from all others: number, start, host."""
    return {"pid": os.getpid(), "process_start": process_start(os.getpid()), "host": socket.gethostname()}


def command_line() -> str:
    """Return the shell line that started this process."""
    return shlex.join(["python", *sys.orig_argv[1:]])


def now() -> str:
    """Return the time with its zone, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def is_finished(run_dir: Path) -> bool:
    """Return whether a directory holds a finished run."""
    return (read_record(run_dir) or {}).get("status") == "finished"


def is_live(run_dir: Path, fields: dict[str, Any]) -> bool:
    """Return whether the process that wrote `run.json` still runs (elsewhere: gave a sign within five minutes)."""
    if fields["status"] != "running":
        return False
    if fields["host"] == socket.gethostname():
        start = process_start(fields["pid"])
        return start is not None and start == fields["process_start"]
    return time.time() - (run_dir / "run.json").stat().st_mtime < _HEARTBEAT_LOST_S


def run_dirs(roots: Iterable[Path]) -> Iterator[Path]:
    """Yield every directory under the roots that holds a `run.json`, each once."""
    seen = set()
    for root in roots:
        for folder, subfolders, files in os.walk(root):
            subfolders[:] = sorted(name for name in subfolders if name not in _NOT_RUNS and name[0] != ".")
            path = Path(folder)
            if "run.json" in files and path.resolve() not in seen:
                seen.add(path.resolve())
                yield path


def find_unfinished(roots: Iterable[Path], config_hash: str) -> Path | None:
    """Return the newest training run of this config that neither finished nor is going on."""
    found = []
    for path in run_dirs(roots):
        fields = read_record(path)
        if not fields or fields["job"] != "train" or fields["config_hash"] != config_hash:
            continue
        if fields["status"] != "finished" and not is_live(path, fields):
            started = datetime.fromisoformat(fields["attempts"][-1]["start"])
            found.append((started, (path / "run.json").stat().st_mtime_ns, path))
    return max(found)[-1] if found else None


@dataclass(frozen=True)
class Run:
    """A finished run: its directory, `run.json` and `metrics.json`."""

    path: Path
    record: dict[str, Any]
    metrics: dict[str, Any]


def load_run(run_dir: Path) -> Run:
    """Read a run's record and metrics, finished or not.

    Raises:
        ConfigError: If the directory doesn't hold both.
    """
    fields, metrics = read_record(run_dir), load_json(run_dir / "metrics.json")
    if fields is None or not metrics:
        raise ConfigError(f"{run_dir} is no evaluated run: run.json and metrics.json must be there")
    return Run(run_dir, fields, metrics)


def load_finished(dirs: Iterable[Path]) -> list[Run]:
    """Return the finished runs under the directories, the oldest first; those without metrics are logged."""
    runs = []
    for path in run_dirs(dirs):
        fields = read_record(path)
        if fields and fields["status"] == "finished":
            try:
                runs.append(load_run(path))
            except ConfigError as error:
                logger.warning("left out: %s", error)
    return sorted(runs, key=lambda run: datetime.fromisoformat(run.record["start"]))


def primary_metric(metrics: dict[str, Any]) -> str:
    """Return the name of the metric that runs are ranked by."""
    return metrics.get("primary_metric", PRIMARY_METRIC)


def best_section(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the metrics after training, or those of a model that wasn't trained."""
    return metrics.get("final") or metrics["base"]


def duration_s(fields: dict[str, Any]) -> float:
    """Return the seconds that a run's attempts took together, one that is going on up to now."""
    spans = [(attempt["start"], attempt["end"] or now()) for attempt in fields["attempts"]]
    return sum((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds() for start, end in spans)


def main_values(section: dict[str, Any] | None) -> dict[str, Any]:
    """Return the metrics that a run is ranked by: at the full dimension, or in all directions of a reranker."""
    return section[keys(section)[0]] if section else {}


def keys(section: dict[str, Any]) -> list[str]:
    """Return the keys of a `base` or `final` section: the dimensions, the full one first, or as they stand."""
    return [str(dim) for dim in dimensions(section)] or list(section)


def dimensions(section: dict[str, Any]) -> list[int]:
    """Return the dimensions of a `base` or `final` section, the full one first; none for a reranker's."""
    return sorted((int(dim) for dim in section if dim.isdigit()), reverse=True)


def retention(section: dict[str, Any], metric: str = PRIMARY_METRIC) -> dict[int, float]:
    """Return each dimension's share of the full dimension's metric, unrounded (NaN where the full one has none)."""
    dims = dimensions(section)
    full = section[str(dims[0])][metric]
    return {dim: section[str(dim)][metric] / full if full else math.nan for dim in dims}


def smallest_dimension(section: dict[str, Any], share: float = 0.995, metric: str = PRIMARY_METRIC) -> int:
    """Return the smallest dimension that keeps the share of the full dimension's unrounded metric."""
    return min([dim for dim, kept in retention(section, metric).items() if kept >= share] or dimensions(section)[:1])
