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

from experiments.config import fits, secrets
from experiments.config import targets as may_run
from experiments.config.bounds import OF_LIBRARIES, STEPS_OR_SHARES
from experiments.config.errors import ConfigError, refuse
from experiments.config.hints import dotted_keys, hint, select, show
from experiments.config.signatures import Signature, signature
from experiments.config.values import check_value, parse_bytes

GROUPS = ("model", "data", "loss", "matryoshka", "trainer", "evaluator", "tracking")
_VALUES = {  # what stands beside the groups
    **{"seed": "int", "run_name": "str | None", "cache_dir": "str", "allow_targets": "list[str]"}
}
_HYDRA_KEYS = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")
_EXTRAS = {"peft": "lora"}  # package of a target -> the extra that installs it
_EMBEDDER_CARD = "sentence_transformers.sentence_transformer.model_card.SentenceTransformerModelCardData"
_CARDS = {  # of the models that a file of ours makes
    "experiments.models.embedders": _EMBEDDER_CARD,
    "experiments.models.routers": _EMBEDDER_CARD,
    "experiments.models.rerankers": "sentence_transformers.cross_encoder.model_card.CrossEncoderModelCardData",
}


def check(config: dict[str, Any], job: str = "train") -> None:
    """Refuse a resolved config that can't work, before anything heavy is imported.

    To "evaluate" asks for no loss, trainer or training rows that fit; to "train" does.

    Raises:
        ConfigError: At the first mistake; it says what to type instead.
    """
    secrets.check(config)
    _check_groups(config)
    may_run.check(config)
    for key, node in targets(config):
        _check_node(key, node)
    takes, loss = _read("loss", config["loss"]["_target_"]), f"loss._target_={config['loss']['_target_']}"
    is_loss = takes.accepts_any or "model" in takes.parameters or job == "evaluate"
    refuse(not is_loss, f"{loss} takes no model, so it is no loss; see conf/loss/library.yaml")
    _check_ranges(config)
    card = _CARDS.get(config["model"]["_target_"].rpartition(".")[0])
    if card and isinstance(config["model"].get("card"), dict):
        _check_node("model.card", {"_target_": card} | config["model"]["card"])
    fits.check(config, job)
    _check_rest(config)


def check_writable(path: Path, key: str) -> None:
    """Make a folder and sure that it takes files, by writing one: root passes every check of permissions.

    Raises:
        ConfigError: If nothing can be written there; it names the key that chooses another.
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
            check_value(key, value, _VALUES[key])
        elif key not in GROUPS:
            raise ConfigError(f"{key} is unknown; {hint(key, [*dotted_keys(config)], [*_VALUES, *GROUPS])}")
        elif not isinstance(value, dict) or not isinstance(value.get("_target_"), str):
            how = f"choose one of its options ({key}=NAME, see --help) and set values inside it ({key}.KEY=VALUE)"
            raise ConfigError(f"{key}={show(value)}: {key} is a group: {how}")
    for group in GROUPS:
        refuse(group not in config, f"{group} is missing: choose one of its options ({group}=NAME, see --help)")


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
    """Read a target's signature; raise a ConfigError where there is none, which names the extra that installs it."""
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
        refuse(not is_right, f"hydra.launcher.{key}={getattr(launcher, key, None)}: expected {what}")
    return parse_bytes(launcher.memory_limit, "hydra.launcher.memory_limit")


def _check_node(key: str, node: dict[str, Any]) -> None:
    """Check the keys and values of a node against the signature of its target."""
    target = node["_target_"]
    known = _read(key, target)
    for name, value in node.items():
        if name in _HYDRA_KEYS or (name not in known.parameters and known.accepts_any):
            continue
        if name not in known.parameters:
            names = [f"{key}.{parameter}" for parameter in known.parameters]
            inside = [f"{key}.{n}" for n in node if n != name and n not in _HYDRA_KEYS]
            raise ConfigError(f"{key}.{name} is unknown to {target}; {hint(f'{key}.{name}', names, inside or names)}")
        if not (isinstance(value, dict) and "_target_" in value):
            check_value(f"{key}.{name}", value, known.parameters[name].annotation)
    if not node.get("_partial_", False) and "_args_" not in node:
        for name, parameter in known.parameters.items():
            refuse(parameter.required and name not in node, f"{key}.{name} is missing: type +{key}.{name}=…")


def _check_ranges(config: dict[str, Any]) -> None:
    for key, annotation in OF_LIBRARIES.items():
        value = select(config, key)
        check_value(key, value, f"{annotation} | None")
        is_part = key in STEPS_OR_SHARES and isinstance(value, float) and value > 1 and value != int(value)
        refuse(is_part, f"{key}={value}: above 1 it counts steps, in whole numbers; below 1 it is a share of all")
    sizes = {f"loss.{key}": config["loss"].get(key) for key in ("mini_batch_size", "mini_batch_num_tokens")}
    both = " and ".join(f"{key}={value}" for key, value in sizes.items())
    refuse(None not in sizes.values(), f"{both} exclude each other; set one of them to null")


def _check_rest(config: dict[str, Any]) -> None:
    said = "evaluator.precisions=[] : name at least one, e.g. evaluator.precisions=[float32]"
    refuse(select(config, "evaluator.precisions") == [], said)
    said = f"trainer.report_to={show(select(config, 'trainer.report_to'))}: runs are tracked by Trackio, or not at all"
    refuse("report_to" in config["trainer"], f"{said}; type tracking=trackio or tracking=none")
    place = show(select(config, "trainer.output_dir"))
    said = f"trainer.output_dir={place}: it changes nothing; type hydra.run.dir={place}"
    refuse("output_dir" in config["trainer"], said)
    resume = select(config, "trainer.resume")
    is_run = resume in (None, "auto") or (Path(resume).expanduser() / "run.json").is_file()
    said = f"trainer.resume={resume}: no run's directory (no run.json there); type auto, null or a directory"
    refuse(not is_run, said)
    country = select(config, "tracking.country_iso_code")
    said = f"tracking.country_iso_code={country}: expected three capital letters (ISO 3166), e.g. DEU"
    refuse(country is not None and not re.fullmatch("[A-Z]{3}", country), said)
