"""What the options of a sweep's launcher can be."""

from __future__ import annotations

from typing import Any

from experiments.config.byte_sizes import parse_bytes
from experiments.config.errors import ConfigError


def check_options(launcher: Any) -> int | None:
    """Refuse what the options of the launcher (itself, or its node) can't be; return the memory limit in bytes.

    Raises:
        ConfigError: If an option has a wrong type or value.
    """
    n_jobs, on_failure = getattr(launcher, "n_jobs", 1), getattr(launcher, "on_failure", "continue")
    expected = {
        "n_jobs": (type(n_jobs) is int and n_jobs > 0, "a whole number, 1 or more"),
        "on_failure": (on_failure in ("continue", "stop"), "continue or stop"),
        "skip_dominated": (isinstance(getattr(launcher, "skip_dominated", True), bool), "true or false"),
        "repeat": (isinstance(launcher.repeat, bool), "true or false"),
    }
    for key, (is_right, what) in expected.items():
        if not is_right:
            raise ConfigError(f"hydra.launcher.{key}={getattr(launcher, key)}: expected {what}")
    try:
        return parse_bytes(launcher.memory_limit)
    except ConfigError as error:
        raise ConfigError(f"hydra.launcher.{error}") from error
