"""One line for what Hydra refuses: what is wrong on the command line and what to type instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.config.errors import ConfigError
from experiments.config.hints import dotted_keys, hint, nearest, show
from experiments.config.options import CONF, CONFIG_NAME, config_groups


def explain(error: Exception) -> str:
    """Say in one line what was wrong with the command line and what to type instead.

    Args:
        error: What Hydra or OmegaConf raised.
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
    if "'hydra/launcher/submitit_" in str(error):
        return "hydra/launcher: Hydra's submitit launcher isn't installed; type pip install -e '.[slurm]'"
    arguments = get_args_parser().parse_args()
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return _unknown_option(group, option, error.options)
    try:
        found = _explain_overrides(arguments.overrides, arguments.config_name or CONFIG_NAME, arguments.multirun)
    except Exception:  # what it composes to find out may be as wrong
        found = None
    if found is not None:
        return found
    if isinstance(error, OmegaConfBaseException):
        return f"{error.full_key}: {str(error).splitlines()[0]}"
    return " ".join(str(e) for e in (error, error.__cause__) if e is not None and str(e))


def _unknown_option(group: str, option: str, options: Sequence[str]) -> str:
    near = nearest(option, options)
    did_you_mean = f"; did you mean {group}={near[0]}? " if near else ": "  # before the list, which may be cut
    return f"{group}={option} is unknown{did_you_mean}{group} is one of {', '.join(options)}"


def _explain_overrides(overrides: list[str], config_name: str, multirun: bool) -> str | None:
    """Find the first override whose group, option or key isn't there."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.utils import create_config_search_path
    from hydra.core.override_parser.overrides_parser import OverridesParser

    groups = config_groups()
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
    from experiments.config.signatures import signature

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
