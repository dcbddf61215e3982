"""What a config may run: one list of targets for each place, longer only by what is typed on the command line.

A config says what is called (`_target_`; in logging `()`, `class` and `ext://`), and it may come from somebody else: a
recipe, a folder of options. What counts is where a function or class is defined, however it is spelled, read from the
sources: nothing is imported. Hydra's own list of what is never run is behind it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from experiments.config.errors import ConfigError, refuse
from experiments.config.signatures import defined_at

_MODELS = (
    *("experiments.models.*.load_embedder", "experiments.models.*.load_router", "experiments.models.*.load_encoder"),
    *("experiments.models.*.load_reranker", "experiments.models.*.make_reranker"),
    *("experiments.models.embedders.qwen3vl_tiny", "experiments.models.tiny.twins.*"),
    *("experiments.training.warm_starts.warm_*", "peft.tuners.*Config"),
)
_LOGGING = (
    *("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "logging.Formatter"),
    *("colorlog.*Formatter", "experiments.runs.log.*", "experiments.runs.terminal.Console"),
)
MAY_RUN: dict[str, tuple[str, ...]] = {  # by the key that it stands at or below, the longest that fits
    "model": _MODELS,
    "data": ("experiments.data.sources.*.load", "experiments.data.drawn.*.load", "experiments.data.drawn.*_set"),
    "loss": (
        *("experiments.training.*Loss", "sentence_transformers.*.losses.*.[A-Z]*", "torch.nn.modules.*.[A-Z]*"),
        *_MODELS,  # one that guides it
    ),
    "matryoshka": ("experiments.training.losses.matryoshka", "experiments.training.losses.no_matryoshka"),
    "trainer": ("experiments.training.*TrainingArguments",),
    "evaluator": ("experiments.evaluation.*Evaluator", *_MODELS),
    "tracking": ("experiments.runs.tracking.track", "experiments.runs.tracking.no_tracking"),
    "hydra.launcher": (
        *("hydra_plugins.*Launcher", "hydra_plugins.experiments_launcher._submitit.*"),
        "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    ),
    "hydra.sweeper": (
        *("hydra_plugins.*Sweeper", "optuna.samplers.*Sampler"),
        "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
    ),
    "hydra.callbacks": ("experiments.cli.ExpectFolders",),
    "hydra.job_logging": _LOGGING,
    "hydra.hydra_logging": _LOGGING,
}
_NEVER = (  # whatever is typed: they run, load or write what their arguments say
    *("hydra", "omegaconf", "joblib", "dill", "cloudpickle", "yaml", "pip", "setuptools", "pytest", "IPython"),
    *("torch.hub", "torch.serialization", "torch.load", "torch.jit", "torch.package", "torch.utils.cpp_extension"),
    *("pandas.read_pickle", "pandas.io.pickle", "pandas.eval", "pandas.core.computation", "numpy.load", "numpy.lib"),
    *("transformers.dynamic_module_utils", "transformers.pipelines", "accelerate.launchers", "submitit", "fsspec"),
)
_ENVIRONMENT = re.compile(r"PATH|(LD|DYLD|GIT|HYDRA)_.*|PYTHON.*|BASH_ENV")  # which program or library is run
_SHELL = re.compile(r"hydra\.launcher\.submitit\.(\w*setup|python|srun_args|additional_parameters)")
_typed: list[str] = []  # what was allowed on the command line


def allow(names: Any) -> None:
    """Let targets run, besides those of the list: full paths, or a package as `mypackage.*`.

    Raises:
        ConfigError: If it is no list of such names, or names what is never run.
    """
    is_list = isinstance(names, list | tuple) and all(isinstance(each, str) for each in names)
    refuse(not is_list, "allow_targets: expected a list; type +allow_targets=[mypackage.models.load]")
    for name in names:
        refuse(_is_never(name), f"allow_targets: {name} is never run from a config, whatever is typed")
        is_path = re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*\.(\w+|\*)", name)
        refuse(not is_path, f"allow_targets: {name} is no full path; type +allow_targets=[mypackage.models.load]")
    _typed[:] = names


def check(config: dict[str, Any]) -> None:
    """Refuse a config that would call what isn't in the list for that place, and wasn't allowed by hand.

    Raises:
        ConfigError: It says what to choose instead, and how a function of one's own is allowed.
    """
    for each in config.get("allow_targets") or []:
        said = "allow_targets stands in a file or a recipe; it counts only where it is typed on the command line"
        refuse(each not in _typed, said)
    for key, name, target in _named(config, ""):
        places = [place for place in MAY_RUN if f"{key}.".startswith(f"{place}.")]
        _check_target(key, name, target, MAY_RUN[max(places, key=len)] if places else ())


def check_node(node: dict[str, Any]) -> None:
    """Refuse a node of any group that would call what isn't in the list, at the last moment before it is called.

    Raises:
        ConfigError: As `check`.
    """
    listed = [each for place, patterns in MAY_RUN.items() if not place.startswith("hydra.") for each in patterns]
    for key, name, target in _named(node, ""):
        _check_target(key, name, target, listed)


def check_commands(hydra: dict[str, Any], typed: Sequence[str]) -> None:
    """Refuse what Hydra's node would have a shell run, or would change which programs are run, unless it was typed."""
    for key, value in leaves(hydra, "hydra"):
        name = key.removeprefix("hydra.job.env_set.")
        is_variable = name != key and _ENVIRONMENT.fullmatch(name)
        refuse(is_variable, f"{key} decides which programs are run; set it in the shell instead")
        shell = _SHELL.match(key)
        by_hand = shell and any(each.lstrip("+").startswith(shell[0]) for each in typed)
        refuse(shell and value and not by_hand, f"{shell and shell[0]} is run by a shell; type it on the command line")


def leaves(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield every value of a config with its dotted key."""
    if isinstance(node, dict | list):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for name, value in items:
            yield from leaves(value, f"{key}.{name}".lstrip("."))
    else:
        yield key, node


def _named(node: Any, key: str) -> Iterator[tuple[str, str, Any]]:
    """Yield the place, the key's last part and the value of all that names something to call."""
    logs = key.startswith(("hydra.job_logging", "hydra.hydra_logging"))
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "_target_" or (logs and name in ("()", "class")):
                yield key, str(name), value
            yield from _named(value, f"{key}.{name}".lstrip("."))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _named(value, f"{key}.{index}")
    elif logs and isinstance(node, str) and node.startswith("ext://") and node[6:] not in ("sys.stdout", "sys.stderr"):
        place, _, name = key.rpartition(".")
        yield place, name, node[6:]


def _check_target(key: str, name: str, target: Any, listed: Sequence[str]) -> None:
    if not isinstance(target, str) or "???" in target or target in listed:  # the first two can't be called
        return
    said = f"{key}.{name}={target}".lstrip(".")
    try:
        real = defined_at(target)
    except (LookupError, ValueError, SyntaxError) as error:
        if any(fnmatchcase(target, each) for each in listed):
            return  # its package isn't installed, or it isn't there: the signatures' reader says what to do
        if target.partition(".")[0] in {each.partition(".")[0] for each in listed}:
            raise ConfigError(f"{said}: {error.args[0]}; give the full path of its file") from error
        real = target
    is_plain = not re.search(r"__|[^\w.]", target)
    if is_plain and _fits(real, listed):
        return
    group = key.partition(".")[0]
    instead = f"choose one of its options ({group}=NAME, see --help)" if group in MAY_RUN else "leave it out"
    never = not is_plain or _is_never(target) or _is_never(real)
    refuse(never, f"{said} is never run from a config; {instead}")
    elsewhere = [place for place, others in MAY_RUN.items() if _fits(real, others)]
    refuse(elsewhere, f"{said} is for {' and '.join(elsewhere)}, not for {key}; {instead}")
    if target not in _typed and not (_fits(target, _typed) and _fits(real, _typed)):
        how = f"or type +allow_targets=[{target}] if that code is yours, or you trust it"
        raise ConfigError(f"{said} is not in the list of what a config may run; {instead}, {how}")


def _fits(name: str, patterns: Sequence[str]) -> bool:
    """Return whether a pattern has the name; one that is private has to be spelled by it."""
    return any(fnmatchcase(name, each) and ("._" in each or "._" not in name) for each in patterns)


def _is_never(name: str) -> bool:
    is_system = name.partition(".")[0] in sys.stdlib_module_names or name.startswith("_")
    return is_system or any(f"{name}.".startswith(f"{each}.") for each in _NEVER)
