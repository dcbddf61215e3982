"""All that can be known about a config without weights or data: keys, types, ranges, files.

No torch, transformers or datasets is imported here, so that a mistake is answered at once.
"""

from __future__ import annotations

import importlib.util
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.config import fits
from experiments.config.bounds import OF_LIBRARIES, STEPS_OR_SHARES
from experiments.config.errors import ConfigError
from experiments.config.hints import dotted_keys, hint, select, show
from experiments.config.signatures import Signature, signature
from experiments.config.values import misfit, parse_bytes

GROUPS = ("model", "data", "loss", "matryoshka", "trainer", "evaluator", "tracking")
_VALUES = {"seed": "int", "run_name": "str | None", "cache_dir": "str"}  # what stands beside the groups
_HYDRA_KEYS = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")
_EXTRAS = {"peft": "lora"}  # package of a target -> the extra that installs it
_EMBEDDER_CARD = "sentence_transformers.sentence_transformer.model_card.SentenceTransformerModelCardData"
_CARDS = {  # of the models that a file of ours makes
    "experiments.models.embedders": _EMBEDDER_CARD,
    "experiments.models.routers": _EMBEDDER_CARD,
    "experiments.models.rerankers": "sentence_transformers.cross_encoder.model_card.CrossEncoderModelCardData",
}


def check(config: dict[str, Any]) -> None:
    """Refuse a config that can't work, before anything heavy is imported.

    Args:
        config: The resolved config, as plain containers.

    Raises:
        ConfigError: At the first mistake; it says what to type instead.
    """
    _check_groups(config)
    for key, node in targets(config):
        _check_node(key, node)
    loss = config["loss"]["_target_"]
    if not (known := _read("loss", loss)).accepts_any and "model" not in known.parameters:
        raise ConfigError(f"loss._target_={loss} takes no model, so it is no loss; see conf/loss/library.yaml")
    _check_ranges(config)
    model = config.get("model", {})
    card = _CARDS.get(str(model.get("_target_")).rpartition(".")[0])
    if card and isinstance(model.get("card"), dict):
        _check_node("model.card", {"_target_": card} | model["card"])
    fits.check(config)
    _check_rest(config)


def check_writable(path: Path, key: str) -> None:
    """Make sure that a folder exists and takes files, by writing one: root passes every check of permissions.

    Args:
        path: The folder; it is made if it isn't there.
        key: What to set to choose another.

    Raises:
        ConfigError: If nothing can be written there.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{path} can't be written ({reason}); set {key} to a folder that can") from error


def _check_groups(config: dict[str, Any]) -> None:
    for key, value in config.items():
        if key in _VALUES:
            _refuse_misfit(key, value, _VALUES[key])
        elif key not in GROUPS:
            raise ConfigError(f"{key} is unknown; {hint(key, [*dotted_keys(config)], [*_VALUES, *GROUPS])}")
        elif not isinstance(value, dict) or not isinstance(value.get("_target_"), str):
            raise ConfigError(
                f"{key}={show(value)}: {key} is a group: choose one of its options ({key}=NAME, see --help) "
                f"and set values inside it ({key}.KEY=VALUE)"
            )
    for group in GROUPS:
        if group not in config:
            raise ConfigError(f"{group} is missing: choose one of its options ({group}=NAME, see --help)")


def targets(node: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every node that names a `_target_`, with its dotted key."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield key, node
        for name, value in node.items():
            yield from targets(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from targets(value, f"{key}.{index}")


def _read(key: str, target: str) -> Signature:
    """Read a target's signature.

    Raises:
        ConfigError: If there is no such target; it names the extra that installs its package, if one does.
    """
    package = target.partition(".")[0]
    if package in _EXTRAS and importlib.util.find_spec(package) is None:
        raise ConfigError(f"{key}: {package} isn't installed; type pip install -e '.[{_EXTRAS[package]}]'")
    try:
        return signature(target)
    except LookupError as error:
        raise ConfigError(f"{key}._target_={target}: {error.args[0]}; give the full path of its file") from error


def check_launcher(launcher: Any) -> int | None:
    """Refuse what the options of a sweep's launcher, its node, can't be; return the memory limit in bytes.

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


def _check_node(key: str, node: dict[str, Any]) -> None:
    """Check the keys and values of a node against the signature of its target."""
    target = node["_target_"]
    known = _read(key, target)
    for name, value in node.items():
        if name in _HYDRA_KEYS:
            continue
        if name not in known.parameters:
            if known.accepts_any:
                continue
            names = [f"{key}.{parameter}" for parameter in known.parameters]
            inside = [f"{key}.{n}" for n in node if n != name and n not in _HYDRA_KEYS]
            raise ConfigError(f"{key}.{name} is unknown to {target}; {hint(f'{key}.{name}', names, inside or names)}")
        if not (isinstance(value, dict) and "_target_" in value):
            _refuse_misfit(f"{key}.{name}", value, known.parameters[name].annotation)
    if not node.get("_partial_", False) and "_args_" not in node:
        for name, parameter in known.parameters.items():
            if parameter.required and name not in node:
                raise ConfigError(f"{key}.{name} is missing: type +{key}.{name}=…")


def _refuse_misfit(key: str, value: object, annotation: str | None) -> None:
    if message := misfit(key, value, annotation):
        raise ConfigError(message)


def _check_ranges(config: dict[str, Any]) -> None:
    for key, annotation in OF_LIBRARIES.items():
        value = select(config, key)
        _refuse_misfit(key, value, f"{annotation} | None")
        if key in STEPS_OR_SHARES and isinstance(value, float) and value > 1 and value != int(value):
            raise ConfigError(
                f"{key}={value}: above 1 it counts steps, in whole numbers; below 1 it is a share of all"
            )
    loss = config.get("loss", {})
    if loss.get("mini_batch_size") is not None and loss.get("mini_batch_num_tokens") is not None:
        raise ConfigError(
            f"loss.mini_batch_size={loss['mini_batch_size']} and "
            f"loss.mini_batch_num_tokens={loss['mini_batch_num_tokens']} exclude each other; set one of them to null"
        )


def _check_rest(config: dict[str, Any]) -> None:
    if select(config, "evaluator.precisions") == []:
        raise ConfigError("evaluator.precisions=[] : name at least one, e.g. evaluator.precisions=[float32]")
    resume = select(config, "trainer.resume")
    if resume not in (None, "auto") and not (Path(resume).expanduser() / "run.json").is_file():
        raise ConfigError(
            f"trainer.resume={resume}: no run's directory (no run.json there); type auto, null or a directory"
        )
    if select(config, "trainer.hub_token") is not None:
        raise ConfigError(
            "trainer.hub_token would be written into the run's records; set HF_TOKEN in the environment instead, "
            "or run `hf auth login`"
        )
    country = select(config, "tracking.country_iso_code")
    if country is not None and not re.fullmatch("[A-Z]{3}", country):
        raise ConfigError(f"tracking.country_iso_code={country}: expected three capital letters (ISO 3166), e.g. DEU")
