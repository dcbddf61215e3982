"""What the entry points share: Hydra's main, one clear line for every mistake, and the exit code.

Exit codes: 0 finished, 1 failed while working, 2 a mistake in what was typed, 130 interrupted (143 by SIGTERM).
"""

from __future__ import annotations

import copy
import functools
import itertools
import logging
import os
import re
import shlex
import signal
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from string import Template
from typing import Any, NoReturn

import hydra
import hydra._internal.hydra as hydra_app
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.conf import HydraConf
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from experiments.config import guesses, secrets, targets
from experiments.config.errors import ConfigError, one_line, refuse
from experiments.config.hints import dotted_keys, parse_flags, quoted, show, unknown_key, unknown_option
from experiments.config.options import CONF, CONFIG_NAME, config_groups
from experiments.reports import sweep_dashboard, sweep_summary
from experiments.reports.tables import shown
from experiments.runs import log, new_folders, progress, run_folder, saved_models, terminal
from experiments.runs.memory import is_out_of_memory, lift_memory_limit
from experiments.runs.names import joined, shortened
from experiments.runs.process import is_main_process, sigterm_raises
from experiments.runs.provenance import version_text, visible_gpus
from experiments.runs.run import read_record
from experiments.runs.sweeps import Wanted, num_done, read_sweep

_TERMINATED = 128 + signal.SIGTERM
HYDRA_VERSION_BASE = "1.3"  # Hydra's defaults, such as whether a job changes the directory

Task = Callable[..., object]

logger = logging.getLogger(__name__)


def launch(task: Task, help_template: str | None = None) -> NoReturn:
    """Compose the config from the command line, check it, run the task, and exit.

    Args:
        task: Called with the resolved config (plain containers), the run's directory (an earlier one where
            `trainer.resume` says so), `name=`, the run's name, and `choices=`, the option chosen of each group;
            under `--multirun` once for each job.
        help_template: What `--help` prints, `$APP_CONFIG_GROUPS` for the options; None: the config's `hydra.help`.
    """
    prepare(sys.argv)
    failures: list[Exception] = []
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    job = make_job(task, failures, wants_traceback)
    left = vars(job)  # our launcher leaves the sweep's directory here, as `sweep_dir`
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise instead of printing its own message and leaving with 1
    try:
        _start(job, task.__name__, help_template)
    except (KeyboardInterrupt, SystemExit) as error:
        _leave(error, _how_to_go_on(left.get("sweep_dir")))
    except Exception as error:
        if wants_traceback:
            raise
        if "sweep_dir" in left and not isinstance(error, ConfigError):  # the launcher's own
            failures.append(error)
        if not failures:  # not in a job: a mistake in what was typed
            failures.append(ConfigError(explain(error)))
    new_folders.remove_empty()
    if not failures:
        if "sweep_dir" not in left:
            sys.exit(0)
        sys.exit(sweep_summary.conclude(left["sweep_dir"], sweep_dashboard.lines(left["sweep_dir"])))
    if wants_traceback:
        raise failures[0]
    sys.stderr.writelines(f"error: {one_line(str(failure))}\n" for failure in failures)
    sys.exit(2 if all(isinstance(failure, ConfigError) for failure in failures) else 1)


def _start(job: Callable[[DictConfig], None], name: str, help_template: str | None) -> None:
    """Let Hydra read the command line and run the job, or the jobs."""
    if "--version" in sys.argv[1:]:  # Hydra would print its own
        sys.stdout.write(version_text())
        sys.exit(0)
    secrets.check_typed(sys.argv[1:])
    arguments = parse_arguments()
    if arguments.help or arguments.overrides == ["help"]:
        _print_help(arguments.config_dir, help_template, _unused(name))
    search_path(arguments.config_dir)
    run_folder.refuse_finished(sys.argv[1:])
    take_allowed(arguments.overrides)
    hydra_app.ConfigLoaderImpl = Loader  # type: ignore[misc]  # there is no other way to look at what it composes
    if not (arguments.cfg or arguments.info or arguments.hydra_help or arguments.shell_completion):
        terminal.begin(f"{shlex.join([name, *sys.argv[1:]])}: reading the settings")
    try:
        with sigterm_raises(SystemExit(_TERMINATED)):
            hydra.main(config_path=str(CONF), config_name=CONFIG_NAME, version_base=HYDRA_VERSION_BASE)(job)()
    finally:
        terminal.draw("")


def _how_to_go_on(sweep_dir: Path | None) -> str:
    """Return what goes on with a run, or with a sweep, and how far that is."""
    if sweep_dir is None:
        return "the same line with trainer.resume=auto"
    jobs = (read_sweep(sweep_dir) or {"jobs": []})["jobs"]
    return f"{num_done(jobs)} of {len(jobs)} jobs are done, the same line" if jobs else "the same line"


def _leave(error: KeyboardInterrupt | SystemExit, resume: str) -> NoReturn:
    """Exit, after Ctrl-C or SIGTERM with a line that says how to go on."""
    code = 130 if isinstance(error, KeyboardInterrupt) else error.code
    if code in (130, _TERMINATED):
        sys.stderr.write(f"\n{'interrupted' if code == 130 else 'ended by SIGTERM'}; {resume} goes on\n")
    sys.exit(code)


class ExpectFolders(Callback):
    """Where Hydra tells which directory it is about to make."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Expect a run's directory."""
        HydraConfig.instance().set_config(config)
        new_folders.expect(Path(str(config.hydra.run.dir)))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Expect a sweep's directory."""
        HydraConfig.instance().set_config(config)
        new_folders.expect(Path(str(config.hydra.sweep.dir)))


class Loader(ConfigLoaderImpl):
    """Hydra's, of a line that was typed; it refuses a config before any of it is called or written.

    Whatever Hydra runs comes by here first: what it logs with, its callbacks and launchers, each job of a sweep.
    """

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Compose a config.

        Raises:
            ConfigError: If it holds a secret or what no config may run, or names a folder that holds other things.
        """
        config = super().load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        looked_at = copy.deepcopy(config)
        before = HydraConfig.instance().cfg
        try:
            HydraConfig.instance().set_config(looked_at)  # `${hydra:...}` asks it
            known = _as_far_as_known(looked_at)
        finally:
            HydraConfig.instance().cfg = before
        secrets.check(known)
        secrets.check(OmegaConf.to_container(config, resolve=False))  # type: ignore[arg-type]  # as it is written
        targets.check(known)
        targets.check_commands(known["hydra"], sys.argv[1:])
        if run_mode == RunMode.MULTIRUN:
            run_folder.check_place("hydra.sweep.dir", known["hydra"]["sweep"]["dir"], "summary.json")
        elif known["hydra"]["mode"] == RunMode.RUN:
            run_folder.check_place("hydra.run.dir", known["hydra"]["run"]["dir"], "run.json")
        return config


def _as_far_as_known(node: Any) -> Any:
    """Return a config as plain containers; an interpolation that leads nowhere yet stays as it is written."""
    if not OmegaConf.is_config(node):
        return node
    written = OmegaConf.to_container(node, resolve=False)
    keys = range(len(written)) if isinstance(written, list) else [*(written if isinstance(written, dict) else ())]
    plain = {}
    for key in keys:
        try:
            plain[key] = _as_far_as_known(node[key])
        except (OmegaConfBaseException, ValueError, KeyError):
            plain[key] = written[key]  # type: ignore[index]
    return [*plain.values()] if isinstance(written, list) else plain


def take_allowed(overrides: Sequence[str]) -> None:
    """Allow the targets that were typed, `+allow_targets=[mypackage.models.load]`."""
    typed = [each for each in overrides if each.lstrip("+").partition("=")[0] == "allow_targets"]
    names: Any = [each.value() for each in OverridesParser.create().parse_overrides(typed)]
    targets.allow(names[-1] if names else [])


def make_job(task: Task, failures: list[Exception], keep_traceback: bool) -> Callable[[DictConfig], None]:
    """Return the function that Hydra calls for each job.

    It adds a task's failure to `failures`: a ConfigError or a TaskError, or with `keep_traceback` what was raised.
    """

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


def _print_help(config_dir: str | None, template: str | None, unused: Sequence[str]) -> NoReturn:
    """Print a template or `hydra.help` of the primary config; Hydra takes a second and a half to list the groups."""
    template = template or OmegaConf.load(CONF / f"{CONFIG_NAME}.yaml").hydra.help.template
    groups = {group: names for group, names in config_groups(config_dir).items() if group not in unused}
    options = "".join(f"  {group}: {', '.join(names)}\n" for group, names in groups.items())
    sys.stdout.write(Template(template).substitute(APP_CONFIG_GROUPS=options))
    sys.exit(0)


def parse_arguments(also: Sequence[str] = ()) -> Namespace:
    """Return flags and overrides as Hydra reads them; a mistake in the flags is a ConfigError. See `parse_flags`."""
    return parse_flags(get_args_parser(), None, also, "type all settings on one side of the flags")


def prepare(arguments: list[str]) -> None:
    """Make what was typed readable for Hydra.

    Out goes `experiment=null`, the default, which it takes for no group; a text that it can't read, such as
    `data.train=Übersicht.csv`, gets quotes.
    """
    arguments[:] = [_readable(each) for each in arguments if each != "experiment=null"]


def _readable(word: str) -> str:
    """Return an override with its value in quotes where that can only be a text: no list, no quotes, or a file."""
    key, is_set, value = word.partition("=")
    is_key = "." in key or key in ("run_name", "cache_dir")  # options are guessed
    if not (is_set and is_key and re.fullmatch(r"\+{0,2}[A-Za-z][\w.]*", key)) or quoted(value) == value:
        return word
    if re.search(r"[][{},='\"$]", value) and not Path(value).expanduser().exists():
        return word
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return f"{key}={quoted(value)}"
    return word


def wanted_sweep(config: DictConfig) -> Wanted:
    """Return which sweep a config asks for, the options of its launcher checked."""
    from experiments.config import checks

    typed = any(each.startswith("hydra.sweep.dir=") for each in config.hydra.overrides.hydra)
    launcher = config.hydra.launcher
    return Wanted(Path(str(config.hydra.sweep.dir)), typed, checks.check_launcher(launcher), launcher.repeat)


def swept_keys(config: DictConfig) -> list[str]:
    """Return the keys with several values, as typed or as the sweeper's configuration has them."""
    parsed = OverridesParser.create().parse_overrides([*config.hydra.overrides.task])
    keys = [each.key_or_group for each in parsed if each.is_sweep_override()]
    return [*dict.fromkeys([*keys, *map(str, config.hydra.sweeper.get("params") or {})])]


def swept_point(keys: Sequence[str], overrides: Sequence[str]) -> dict[str, str]:
    """Return the value that a job's overrides give each swept key."""
    values = dict(each.lstrip("+").partition("=")[::2] for each in overrides)
    return {key: values[key] for key in keys if key in values}


def search_path(config_dir: str | None) -> ConfigSearchPath:
    """Return where Hydra looks for options: in the folder that `--config-dir` names, if any, then in `conf/`."""
    path = create_config_search_path(str(CONF))
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise ConfigError(f"--config-dir {config_dir}: there is no such folder")
        path.prepend("command-line", f"file://{Path(config_dir).absolute()}")
    return path


def explain(error: Exception, typed: Sequence[str] | None = None, also: Sequence[str] = ()) -> str:
    """Say in one line what was wrong with the command line, given what Hydra or OmegaConf raised, and what to type.

    Args:
        error: What was raised.
        typed: After the command; None: `sys.argv` has it.
        also: Flags with a value that there are beside Hydra's.
    """
    with suppress(Exception):  # what it composes to find out may be as wrong
        is_told = isinstance(error, secrets.SecretError)  # nothing repeats a secret
        if not is_told and (meant := _likely_guess(sys.argv[1:] if typed is None else typed, also)) is not None:
            return meant
    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, OverrideParseException):
        return _explain_unreadable(error, sys.argv[1:] if typed is None else typed)
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__
    if cause is not None and not isinstance(cause, HydraException):
        return f"{cause.filename} can't be written ({cause.strerror}); set hydra.run.dir (hydra.sweep.dir with -m)"
    if "'hydra/launcher/submitit_" in str(error):
        return "hydra/launcher: Hydra's submitit launcher isn't installed; type pip install -e '.[slurm]'"
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return unknown_option(group, option, error.options)
    with suppress(Exception):
        if (found := _explain_overrides(parse_arguments())) is not None:
            return found
    if isinstance(error, OmegaConfBaseException):
        return f"{error.full_key}: {str(error).splitlines()[0]}"
    return " ".join(str(e) for e in (error, error.__cause__) if e is not None and str(e))


def _explain_unreadable(error: OverrideParseException, typed: Sequence[str]) -> str:
    """Say of a word that Hydra can't read what to type: quotes, around it or around what it belongs to."""
    word = str(error.override)
    key, is_set, value = word.partition("=")
    if is_set and value[:1] in ("", *"\"'[{"):
        return f"{word}: not of the form key=value ({error.message.splitlines()[0]})"
    is_sweep = is_set and "," in value and {"-m", "--multirun"} & {*typed}
    meant = f"{key}={','.join(map(quoted, value.split(',')))}" if is_sweep else f"{key}={quoted(value)}"
    line, place = [*typed], typed.index(word) if word in typed else 0
    if is_set:
        line[place : place + 1] = [meant]
        return f"{word}: a text with such signs is typed in quotes: {shlex.join([*_command(), *line])}"
    key, is_set, value = typed[place - 1].partition("=") if place else ("", "", "")
    said = f"{word}: not of the form key=value"
    if not (is_set and "." in key and re.search(r"[^\d.e-]", value)):
        return said
    line[place - 1 : place + 1] = [f"{key}={quoted(f'{value} {word}')}"]
    return f"{said}; a text with spaces is typed in quotes: {shlex.join([*_command(), *line])}"


def _command() -> list[str]:
    spec = sys.modules["__main__"].__spec__
    return ["python", "-m", spec.name] if spec is not None else ["python", sys.argv[0]]


def _unused(command: str) -> tuple[str, ...]:
    """Return the groups that a command makes no use of."""
    return ("loss", "trainer") if command.endswith("evaluate") else ()


def _likely_guess(typed: Sequence[str], also: Sequence[str]) -> str | None:
    """Return what to say of a line in the words of other tools; None where it has none."""
    actions = get_args_parser()._actions
    flags = {flag: action.nargs != 0 for action in actions for flag in action.option_strings} | dict.fromkeys(
        also, True
    )
    places = [word.removeprefix("--config-dir=") for word in typed if word.startswith("--config-dir=")]
    places += [place for flag, place in itertools.pairwise(typed) if flag in ("--config-dir", "-cd")]
    config_dir = places[0] if places else None
    command = _command()

    def compose(chosen: list[str]) -> dict[str, Any]:
        loader = ConfigLoaderImpl(search_path(config_dir))
        config = OmegaConf.to_container(loader.load_configuration(CONFIG_NAME, chosen, RunMode.RUN))
        assert isinstance(config, dict)
        return {str(key): value for key, value in config.items()}

    meant = guesses.mend(typed, flags, config_groups(config_dir), compose, _unused(command[-1]))
    return None if meant is None else meant.say(command)


def _explain_overrides(arguments: Namespace) -> str | None:
    """Find the first override whose group, option or key isn't there."""
    groups = config_groups(arguments.config_dir)
    loader, name = ConfigLoaderImpl(search_path(arguments.config_dir)), arguments.config_name or CONFIG_NAME
    if not loader.repository.config_exists(name):
        how = "leave it out; options of your own: --config-dir=FOLDER, with FOLDER/GROUP/OPTION.yaml"
        return f"--config-name {name}: there is no such config; {how}"
    parsed = OverridesParser.create().parse_overrides(arguments.overrides)
    chosen = []
    for override in parsed:
        key = override.key_or_group
        if override.is_sweep_override() and not arguments.multirun:
            value = (override.input_line or "").partition("=")[2]
            if re.fullmatch(r"\d+,\d+e-?\d+|0,0\d+", value):
                return f"{key}={value}: decimals come after a point; type {key}={value.replace(',', '.')}"
            return f"{key}={value} lists several values: add -m to run each, or type '{key}=[{value}]' for a list"
        if key in groups and not override.is_delete():
            values = override.sweep_string_iterator() if override.is_sweep_override() else [override.value()]
            options = [show(value) for value in values]
            if unknown := [option for option in options if option not in groups[key]]:
                return unknown_option(key, unknown[0], groups[key])
            chosen.append(f"{key}={options[0]}")
    config = OmegaConf.to_container(loader.load_configuration(name, chosen, RunMode.RUN))
    assert isinstance(config, dict)
    keys = {*dotted_keys(config)}
    for override in parsed:
        key = override.key_or_group
        if not (key in groups or key in keys or "/" in key or override.is_add() or override.is_force_add()):
            return unknown_key(key, override.input_line or key, config, [*groups])
    return None


class TaskError(RuntimeError):
    """A task failed; says in one line why and where its log and record are."""

    def __init__(self, message: str, out_of_memory: bool) -> None:
        super().__init__(message)
        self.out_of_memory = out_of_memory


def _run(task: Task, config: DictConfig, keep_traceback: bool) -> None:
    """Check one job's config and folders and run the task.

    Raises:
        ConfigError: If something typed is wrong. A directory that Hydra made for it goes again.
        TaskError: If the task fails; the traceback is in the log file alone.
    """
    from experiments.config import checks  # pydantic is not needed for --help

    hydra_config = HydraConfig.get()
    fresh = Path(hydra_config.runtime.output_dir)
    try:
        plain = resolve(config)
        checks.check(plain, hydra_config.job.name)
        choice = plain, fresh, plain.get("run_name") or describe_choices(hydra_config)
        if hydra_config.job.name == "train":
            choice = run_folder.choose_run(*choice, hydra_config.overrides.task)
        plain, output_dir, name = _agree(choice)
        targets.check(plain)  # a run that goes on has its own, from a file
        run_folder.check(output_dir, plain)
    except ConfigError:
        run_folder.discard(fresh)
        raise
    if output_dir != fresh:
        log.move_log(output_dir)
        run_folder.discard(fresh)
    failure = None
    try:
        logger.info("%s: %s, in %s", hydra_config.job.name, name, shown(output_dir))
        with progress.shown():
            task(plain, output_dir, name=name, choices=_choices(output_dir))
    except ConfigError:
        if is_main_process():
            run_folder.discard(output_dir)  # nothing came of it, unless it has a record
        raise
    except Exception as error:
        lift_memory_limit()
        failure = TaskError(_record_failure(error, output_dir), is_out_of_memory(error))
        if keep_traceback:
            raise
        traceback.clear_frames(error.__traceback__)  # it would keep the tensors alive for the rest of a sweep
    if failure is not None:  # it isn't raised above, where it would keep the task's error
        raise failure


def resolve(config: DictConfig) -> dict[str, Any]:
    """Return the config as plain containers, its interpolations resolved; a run named as a model is its `final/`.

    Raises:
        ConfigError: If a mandatory value (`???`) is missing, an interpolation leads nowhere, or a run has no model.
    """
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ConfigError(f"{error.full_key} is missing: type {error.full_key}=...") from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    assert isinstance(plain, dict)
    saved_models.take_finals(named := {str(key): value for key, value in plain.items()})
    return named


def describe_choices(hydra_config: HydraConf) -> str:
    """Return a readable name for a run: model, data, what else was chosen or set, month, day and time.

    For instance `qwen3vl_tiny-report_pages-mini_batch_size=4-1123-014305`.
    """
    choices = hydra_config.runtime.choices
    parts = [str(choices.get("model", "")), str(choices.get("data", ""))]
    for override in hydra_config.overrides.task:
        key, _, value = override.lstrip("+~").partition("=")
        if key.partition("@")[0] not in ("model", "data", "run_name", "trainer.resume"):
            value = shortened(re.sub(r"[^\w.,-]+", "_", value.rpartition("/")[2]).strip("_"), 24)
            parts.append(value if key in choices else f"{key.rpartition('.')[2]}={value}")
    return joined([*filter(None, parts)], 108) + datetime.now().strftime("-%m%d-%H%M%S")


def _choices(output_dir: Path) -> dict[str, str]:
    """Return the option chosen of each group, by the command line or by that of the run that is resumed."""
    chosen = HydraConfig.get().runtime.choices.items()
    choices = {group: str(option) for group, option in chosen if option is not None and "hydra/" not in group}
    return (read_record(output_dir) or {}).get("choices", choices)


def _agree(choice: tuple[dict[str, Any], Path, str]) -> tuple[dict[str, Any], Path, str]:
    """Return the main process' choice under torchrun: each composes a directory, and they can differ by a second.

    Raises:
        ConfigError: If the GPUs are divided: CUDA shows a process one MIG instance, and NCCL joins none.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return choice
    said = "torchrun can't join MIG instances; run one process (python -m …)"
    is_divided = any(name.startswith("MIG-") for name in visible_gpus())
    refuse(is_divided, f"{said}, or name whole GPUs, such as CUDA_VISIBLE_DEVICES=0,1")
    import torch
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    # Whoever makes the process group decides how long its processes wait for each other; the trainer finds it made.
    timeout = timedelta(seconds=choice[0]["trainer"].get("ddp_timeout", 1800))  # else the library's
    PartialState(cpu=not torch.accelerator.is_available(), timeout=timeout)
    return tuple(broadcast_object_list([*choice]))


def _record_failure(error: Exception, output_dir: Path) -> str:
    """Write the traceback to the log file alone and return one line for the terminal."""
    message = f"{type(error).__name__}: {one_line(str(error))}".rstrip(": ")
    places = []
    for handler in log.log_files():
        exc_info = (type(error), error, error.__traceback__)
        handler.handle(logger.makeRecord(logger.name, logging.ERROR, "", 0, "%s", (message,), exc_info))
        places.append(f"log with the traceback: {shown(Path(handler.baseFilename))}")
    if (output_dir / "run.json").exists():
        places.append(f"record: {shown(output_dir / 'run.json')}")
    return f"{message} ({'; '.join(places)})" if places else message
