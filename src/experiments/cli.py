"""What the entry points share: Hydra's main, one clear line for every mistake, and the exit code.

Exit codes: 0 finished, 1 failed while working, 2 a mistake in what was typed, 130 interrupted.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from string import Template
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from experiments.errors import ConfigError

CONF = Path(__file__).parents[2] / "conf"

logger = logging.getLogger(__name__)


def launch(task: Callable[..., object], config_name: str = "config") -> NoReturn:
    """Compose the config from the command line, check it, run the task, and exit.

    Args:
        task: Called with the resolved config (plain containers), the run's directory (an earlier one where
            `trainer.resume` says so), `name=`, the run's name, and `choices=`, the option chosen of each group;
            under `--multirun` once for each job.
        config_name: The primary config in `conf/`.
    """
    if {"--help", "-h"} & {*sys.argv[1:]}:
        _print_help(config_name)
    failures: list[Exception] = []
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise instead of printing its own message and leaving with 1
    try:
        _refuse_finished(sys.argv[1:])
        hydra.main(config_path=str(CONF), config_name=config_name, version_base="1.3")(
            _job(task, failures, wants_traceback)
        )()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except Exception as error:
        if wants_traceback:
            raise
        if not failures:  # not in a job: a mistake in what was typed
            failures.append(ConfigError(explain(error, config_name)))
    if not failures:
        sys.exit(0)
    if wants_traceback:
        raise failures[0]
    sys.stderr.writelines(f"error: {one_line(str(failure))}\n" for failure in failures)
    sys.exit(2 if all(isinstance(failure, ConfigError) for failure in failures) else 1)


def _job(task: Callable[..., object], failures: list[Exception], keep_traceback: bool) -> Callable[[DictConfig], None]:
    """Return the function that Hydra calls for each job; it notes the failures."""

    @functools.wraps(task)  # Hydra names the log after the file of the wrapped function
    def job(config: DictConfig) -> None:
        full_error = os.environ.pop("HYDRA_FULL_ERROR", "")  # not for the processes that the task starts
        try:
            _run(task, config, keep_traceback)
        except Exception as error:
            failures.append(error)
            if HydraConfig.get().mode == RunMode.MULTIRUN:  # there Hydra says which job it was
                raise
        finally:
            os.environ["HYDRA_FULL_ERROR"] = full_error

    return job


def _print_help(config_name: str) -> NoReturn:
    """Print `hydra.help` of the primary config; Hydra takes a second and a half to list the groups."""
    template = OmegaConf.load(CONF / f"{config_name}.yaml").hydra.help.template
    options = "".join(f"  {group}: {', '.join(names)}\n" for group, names in _groups().items())
    sys.stdout.write(Template(template).substitute(APP_CONFIG_GROUPS=options))
    sys.exit(0)


def _groups() -> dict[str, list[str]]:
    """Return the options of each group of `conf/` but Hydra's own."""
    folders = sorted(path for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")
    return {folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in folders}


class TaskError(RuntimeError):
    """A task failed; says in one line why and where its log and record are."""


def _run(task: Callable[..., object], config: DictConfig, keep_traceback: bool) -> None:
    """Check one job's config and folders and run the task.

    Raises:
        ConfigError: If something typed is wrong. A directory that Hydra made for it goes again.
        TaskError: If the task fails; the traceback is in the log file alone.
    """
    from experiments import checks  # pydantic is not needed for --help

    fresh = Path(HydraConfig.get().runtime.output_dir)
    try:
        plain = resolve(config)
        checks.check(plain)
        output_dir, name = _choose_run(plain, fresh)
        _check_output(output_dir, plain)
    except ConfigError:
        _discard(fresh)
        raise
    if output_dir != fresh:
        _move_log(output_dir)
        _discard(fresh)
    try:
        chosen = HydraConfig.get().runtime.choices.items()
        choices = {group: str(option) for group, option in chosen if not group.startswith("hydra/")}
        task(plain, output_dir, name=name, choices=choices)
    except ConfigError:
        raise
    except Exception as error:
        message = _record_failure(error, output_dir)
        if keep_traceback:
            raise
        traceback.clear_frames(error.__traceback__)  # it would keep the tensors alive for the rest of a sweep
    else:
        return
    raise TaskError(message)


def resolve(config: DictConfig) -> dict[str, Any]:
    """Return the config as plain containers, its interpolations resolved.

    Raises:
        ConfigError: If a mandatory value (`???`) is missing or an interpolation leads nowhere.
    """
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ConfigError(f"{error.full_key} is missing: type {error.full_key}=...") from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def describe_choices(hydra_config: HydraConf) -> str:
    """Return a readable name for a run: model, data, what else was chosen or set, month, day and time.

    For instance `qwen3vl_tiny-report_pages-mini_batch_size=4-1123-014305`.

    Args:
        hydra_config: The `hydra` node, as `HydraConfig.get()` gives it inside a job.
    """
    choices = hydra_config.runtime.choices
    parts = [str(choices.get("model", "")), str(choices.get("data", ""))]
    for override in hydra_config.overrides.task:
        key, _, value = override.lstrip("+~").partition("=")
        if key.partition("@")[0] not in ("model", "data", "run_name", "trainer.resume"):
            value = re.sub(r"[^\w.,-]+", "_", value.rpartition("/")[2]).strip("_")[:24]
            parts.append(value if key in choices else f"{key.rpartition('.')[2]}={value}")
    return "-".join([*filter(None, parts)])[:120] + datetime.now().strftime("-%m%d-%H%M%S")


def _choose_run(config: dict[str, Any], fresh: Path) -> tuple[Path, str]:
    """Return the directory to run in and the run's name: the fresh one's, or those of the run that is resumed."""
    from experiments import runs

    name = config.get("run_name") or describe_choices(HydraConfig.get())
    resume = config["trainer"].get("resume") if "trainer" in config else None
    if resume is None:
        return fresh, name
    if resume == "auto":
        roots = (Path("outputs"), Path("multirun"), fresh.parent)
        found = runs.find_unfinished(roots, runs.config_hash(config))
        if found is None:
            logger.info("trainer.resume=auto: no unfinished run with this config, so a new one starts")
            return fresh, name
    else:
        found = Path(resume).expanduser()
    logger.info("resuming %s", found)
    return found.resolve(), (runs.read_record(found) or {}).get("name", name)


def _check_output(output_dir: Path, config: dict[str, Any]) -> None:
    """Refuse a directory that holds a finished run, and folders that can't be written."""
    from experiments import checks

    if _is_finished(output_dir):
        raise ConfigError(
            f"{output_dir} holds a finished run, which is never overwritten; set hydra.run.dir to another"
        )
    checks.check_writable(output_dir, "hydra.run.dir")
    for group, key in (("tracking", "dir"), ("data", "cache_dir"), ("model", "cache_dir")):
        folder = config.get(group, {}).get(key)
        if folder is not None:
            checks.check_writable(Path(folder).expanduser(), f"{group}.{key}")


def _refuse_finished(arguments: list[str]) -> None:
    """Refuse a directory given by hand before Hydra writes its files there."""
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "hydra.run.dir" and _is_finished(Path(value.strip("'\""))):
            raise ConfigError(f"{argument} holds a finished run, which is never overwritten; type another folder")


def _is_finished(folder: Path) -> bool:
    try:
        return json.loads((folder / "run.json").read_text()).get("status") == "finished"
    except (OSError, ValueError):
        return False


def _discard(folder: Path) -> None:
    """Remove a run's directory that holds nothing but what Hydra put there."""
    logs = [Path(handler.baseFilename) for handler in _log_files()]
    names = {".hydra", *(log.name for log in logs)}
    if not folder.is_dir() or not {path.name for path in folder.iterdir()} <= names:
        return
    shutil.rmtree(folder)
    if not any(folder.parent.iterdir()):  # the day's
        folder.parent.rmdir()


def _log_files() -> Iterator[logging.FileHandler]:
    yield from (handler for handler in logging.getLogger().handlers if isinstance(handler, logging.FileHandler))


def _move_log(folder: Path) -> None:
    """Go on in the log of the run that is resumed."""
    root = logging.getLogger()
    for handler in [*_log_files()]:
        moved = logging.FileHandler(folder / Path(handler.baseFilename).name)
        moved.setFormatter(handler.formatter)
        moved.setLevel(handler.level)
        root.removeHandler(handler)
        handler.close()
        root.addHandler(moved)


def _record_failure(error: Exception, output_dir: Path) -> str:
    """Write the traceback to the log file alone and return one line for the terminal."""
    message = f"{type(error).__name__}: {one_line(str(error))}".rstrip(": ")
    places = []
    for handler in _log_files():
        exc_info = (type(error), error, error.__traceback__)
        handler.handle(logger.makeRecord(logger.name, logging.ERROR, "", 0, "%s", (message,), exc_info))
        places.append(f"log with the traceback: {_relative(Path(handler.baseFilename))}")
    if (output_dir / "run.json").exists():
        places.append(f"record: {_relative(output_dir / 'run.json')}")
    return f"{message} ({'; '.join(places)})" if places else message


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def one_line(text: str, limit: int = 600) -> str:
    """Return a text with its line breaks as spaces, cut to `limit` characters."""
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def explain(error: Exception, config_name: str) -> str:
    """Say in one line what was wrong with the command line and what to type instead.

    Args:
        error: What Hydra or OmegaConf raised.
        config_name: The primary config in `conf/`.
    """
    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: not of the form key=value ({error.message.splitlines()[0]})"
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__
    if cause is not None and not isinstance(cause, HydraException):
        return f"{cause.filename} can't be written ({cause.strerror}); set hydra.run.dir (hydra.sweep.dir with -m)"
    arguments = get_args_parser().parse_args()
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return _unknown_option(group, option, error.options)
    try:
        found = _explain_overrides(arguments.overrides, arguments.config_name or config_name, arguments.multirun)
    except Exception:  # what it composes to find out may be as wrong
        found = None
    if found is not None:
        return found
    if isinstance(error, OmegaConfBaseException):
        return f"{error.full_key}: {str(error).splitlines()[0]}"
    return " ".join(str(e) for e in (error, error.__cause__) if e is not None and str(e))


def _unknown_option(group: str, option: str, options: Sequence[str]) -> str:
    from experiments.checks import nearest

    near = nearest(option, options)
    did_you_mean = f"; did you mean {group}={near[0]}?" if near else ""
    return f"{group}={option} is unknown: {group} is one of {', '.join(options)}{did_you_mean}"


def _explain_overrides(overrides: list[str], config_name: str, multirun: bool) -> str | None:
    """Find the first override whose group, option or key isn't there."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.utils import create_config_search_path
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from experiments.checks import dotted_keys, show

    groups = _groups()
    parsed = OverridesParser.create().parse_overrides(overrides)
    chosen = []
    for override in parsed:
        if override.is_sweep_override() and not multirun:
            key, value = override.key_or_group, (override.input_line or "").partition("=")[2]
            return f"{key}={value} lists several values: add -m to run each, or type '{key}=[{value}]' for a list"
        if override.key_or_group in groups and not override.is_delete():
            values = [*override.sweep_string_iterator()] if override.is_sweep_override() else [override.value()]
            for option in [show(value) for value in values]:
                if option not in groups[override.key_or_group]:
                    return _unknown_option(override.key_or_group, option, groups[override.key_or_group])
            chosen.append(f"{override.key_or_group}={values[0]}")
    loader = ConfigLoaderImpl(create_config_search_path(str(CONF)))
    config = OmegaConf.to_container(loader.load_configuration(config_name, chosen, RunMode.RUN))
    assert isinstance(config, dict)
    keys = {*dotted_keys(config)}
    for override in parsed:
        key = override.key_or_group
        if not (key in groups or key in keys or "/" in key or override.is_add() or override.is_force_add()):
            return _unknown_key(key, override.input_line or key, config, [*groups])
    return None


def _unknown_key(key: str, typed: str, config: dict[Any, Any], groups: list[str]) -> str:
    """Say what may have been meant by a key that isn't in the config, the arguments of its target included."""
    from experiments.checks import dotted_keys, hint, nearest
    from experiments.signatures import signature

    group, _, name = key.partition(".")
    known = [k for k in dotted_keys(config) if k.startswith("hydra.") == key.startswith("hydra.")]
    node = config.get(group)
    if not isinstance(node, dict) or "_target_" not in node or not name:
        return f"{key} is unknown; {hint(key, [*known, *groups], [k for k in config if k != 'hydra'])}"
    more = [parameter for parameter in signature(node["_target_"]) if parameter not in node]
    if name in more:
        return f"{key} isn't in the config yet: to add it, type +{typed}"
    inside = [k for k in known if k.startswith(f"{group}.")]
    near_by = [*inside, *(f"+{group}.{parameter}" for parameter in more)]
    return f"{key} is unknown; {hint(key, near_by if nearest(key, near_by) else known, inside)}"
