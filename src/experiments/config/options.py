"""The options: where `conf/` is, and what can be chosen there."""

from __future__ import annotations

from pathlib import Path

_INSTALLED = Path(__file__).parents[1] / "conf"  # in a checkout a link to its conf/, in a wheel the files themselves
CONF = (_INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[3] / "conf").resolve()
CONFIG_NAME = "config"  # the primary config in it


def config_groups(config_dir: str | None = None) -> dict[str, list[str]]:
    """Return the options of each group but Hydra's own: of `conf/` and of the folder that `--config-dir` names."""
    options: dict[str, list[str]] = {}
    for folder in [CONF, *([Path(config_dir)] if config_dir else [])]:
        for file in folder.glob("*/*.yaml"):
            options.setdefault(file.parent.name, []).append(file.stem)
    return {group: sorted({*options[group]}) for group in sorted(options) if group != "hydra"}
