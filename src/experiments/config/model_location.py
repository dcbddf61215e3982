"""Where a model lies: in a folder, in an installed Python package, or on the Hub. No torch is imported here."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from experiments.config.errors import ConfigError

PACKAGE = "package:"


def untrusted(name: str) -> str:
    """Return what to say of a model that needs code of its own."""
    return f"{name} runs code that comes with it: read that code, then type model.trust_remote_code=true"


def local_folder(name: str, key: str = "model.name") -> Path | None:
    """Return the folder that a model's name stands for; None for a name on the Hub.

    Args:
        name: A folder, `package:PACKAGE/FOLDER` (a folder inside an installed Python package), or a name on the Hub.
        key: What the name was typed for.

    Raises:
        ConfigError: If the package isn't installed or has no such folder.
    """
    if not name.startswith(PACKAGE):
        folder = Path(name).expanduser()
        return folder if folder.exists() else None
    package, _, inside = name.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"{key}={name}: it isn't installed; type pip install {package.replace('_', '-')}")
    folder = Path(next(iter(spec.submodule_search_locations))) / inside
    if not folder.is_dir():
        raise ConfigError(f"{key}={name}: the package {package} has no folder {inside}")
    return folder
