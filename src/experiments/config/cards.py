"""What a model card may say and show: what an option claims holds for its recipe's data, not for one's own."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from experiments.config.options import CONF

CLAIMS = ("language", "license", "model_name")


@functools.cache
def public_data() -> frozenset[str]:
    """Return the data sets on the Hub that the options of `data` name."""
    nodes = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in (CONF / "data").glob("*.yaml")]
    return frozenset(path for node in nodes if isinstance(path := node.get("path"), str) and path != "???")


def is_own(data: Mapping[str, Any]) -> bool:
    """Return whether a config's data is the user's: neither drawn here nor what one of our options names."""
    path = data.get("path")
    is_drawn = str(data["_target_"]).startswith("experiments.data.drawn.") or isinstance(path, dict)
    return not is_drawn and path not in public_data()


def corrected(data: Mapping[str, Any], choices: Mapping[str, str], overrides: Iterable[str]) -> dict[str, Any]:
    """Return what the card says instead of our options, which were made for a recipe's data, where nothing was typed.

    Of the user's own data they know neither licence nor language nor name; where data tell their language, it is that.
    """
    options = [(group, choices[group]) for group in ("model", "experiment") if choices.get(group, "null") != "null"]
    if not all((CONF / group / f"{option}.yaml").is_file() for group, option in options):
        return {}
    typed = {each.lstrip("+").partition("=")[0] for each in overrides}
    found: dict[str, Any] = dict.fromkeys(CLAIMS) | {"language": []} if is_own(data) else {}
    if language := data.get("language"):
        found["language"] = [language]
    return {field: value for field, value in found.items() if not typed & {"model.card", f"model.card.{field}"}}
