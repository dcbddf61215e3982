"""The options: where `conf/` is, and what can be chosen there."""

from __future__ import annotations

from pathlib import Path

CONF = Path(__file__).parents[3] / "conf"
CONFIG_NAME = "config"  # the primary config in it


def config_groups() -> dict[str, list[str]]:
    """Return the options of each group of `conf/` but Hydra's own."""
    folders = sorted(path for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")
    return {folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in folders}
