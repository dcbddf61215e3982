"""All that can be known about a config without weights or data: keys, types, ranges, files.

No torch, transformers or datasets is imported here, so that a mistake is answered at once.
"""

from __future__ import annotations

import difflib
import importlib.util
import math
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.errors import ConfigError
from experiments.hints import dotted_keys, hint, show
from experiments.signatures import in_words, matches, read

GROUPS = ("model", "data", "loss", "matryoshka", "trainer", "evaluator", "tracking")
_VALUES = {"seed": "int", "run_name": "str | None"}  # what stands beside the groups
_HYDRA_KEYS = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")
_CARD = "sentence_transformers.sentence_transformer.model_card.SentenceTransformerModelCardData"
_COLUMNS = ("query", "positive", "negatives")

_AT_LEAST_1 = (
    *(f"model.{key}" for key in ("embedding_dim", "min_pixels", "max_pixels")),
    *(f"loss.{key}" for key in ("mini_batch_size", "mini_batch_num_tokens", "default_num_tokens", "score_chunk_size")),
    *(f"trainer.{key}" for key in ("per_device_train_batch_size", "per_device_eval_batch_size", "save_total_limit")),
    *("trainer.gradient_accumulation_steps", "evaluator.batch_size", "data.num_train_rows", "data.num_eval_rows"),
)
_AT_LEAST_0 = (
    *(
        "seed",
        "data.seed",
        "data.num_negatives",
        "data.num_eval_negatives",
        "evaluator.seed",
        "evaluator.num_workers",
        "evaluator.num_bootstrap",
    ),
    *(f"trainer.{key}" for key in ("seed", "warmup_steps", "weight_decay", "max_grad_norm", "dataloader_num_workers")),
)
_ABOVE_0 = (
    *("loss.scale", "trainer.learning_rate", "trainer.num_train_epochs"),
    *("trainer.eval_steps", "trainer.save_steps", "trainer.logging_steps"),
)
_BOUNDS = (
    *((key, 1, "at least") for key in _AT_LEAST_1),
    *((key, 0, "at least") for key in _AT_LEAST_0),
    *((key, 0, "above") for key in _ABOVE_0),
)
_STEPS_OR_SHARES = tuple(f"trainer.{key}" for key in ("eval_steps", "save_steps", "logging_steps", "warmup_steps"))

_CHOICES: dict[str, tuple[Any, ...]] = {
    "model.attn_implementation": ("auto", "flash_attention_2", "sdpa", "eager"),
    "model.dtype": ("auto", "float32", "bfloat16", "float16"),
    "data.on_bad_image": ("error", "skip"),
    "trainer.bf16": ("auto", True, False),
    "trainer.batch_sampler": (
        *("no_duplicates_by_bytes", "no_duplicates", "no_duplicates_hashed"),
        *("batch_sampler", "group_by_label"),
    ),
    "trainer.eval_strategy": ("no", "steps", "epoch"),
    "trainer.save_strategy": ("no", "steps", "epoch", "best"),
    "trainer.logging_strategy": ("no", "steps", "epoch"),
    "evaluator.precisions": ("float32", "int8", "binary"),
}


_LOSSES_WITH_LABELS = frozenset(
    (
        *(
            "AnglELoss",
            "CoSENTLoss",
            "CosineSimilarityLoss",
            "ContrastiveLoss",
            "OnlineContrastiveLoss",
            "SoftmaxLoss",
        ),
        *("BatchAllTripletLoss", "BatchHardTripletLoss", "BatchHardSoftMarginTripletLoss", "BatchSemiHardTripletLoss"),
        *("MarginMSELoss", "DistillKLDivLoss", "MSELoss", "EmbedDistillLoss"),
    )
)
_LOSS_COLUMNS = {  # least and most columns of the library's losses that don't take two or more
    "TripletLoss": (3, 3),
    "MultipleNegativesSymmetricRankingLoss": (2, 2),
    "CachedMultipleNegativesSymmetricRankingLoss": (2, 2),
    "MegaBatchMarginLoss": (2, 2),
    "ContrastiveTensionLoss": (2, 2),
    "DenoisingAutoEncoderLoss": (2, 2),
}


def check(config: dict[str, Any], groups: Sequence[str] = GROUPS) -> None:
    """Refuse a config that can't work, before anything heavy is imported.

    Args:
        config: The resolved config, as plain containers.
        groups: The groups that must be there.

    Raises:
        ConfigError: At the first mistake; it says what to type instead.
    """
    _check_groups(config, groups)
    for key, node in _targets(config):
        _check_node(key, node)
    _check_ranges(config)
    _check_choices(config)
    if "model" in config:
        _check_model(config["model"])
    if "data" in config:
        _check_data(config["data"])
    _check_dimensions(config)
    _check_architectures(config)
    if "loss" in config and "data" in config:
        _check_loss(config["loss"], config["data"])
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


def _check_groups(config: dict[str, Any], groups: Sequence[str]) -> None:
    for key, value in config.items():
        if key in _VALUES:
            if not matches(_VALUES[key], value):
                raise ConfigError(_type_message(key, value, _VALUES[key]))
        elif key not in GROUPS:
            raise ConfigError(f"{key} is unknown; {hint(key, [*dotted_keys(config)], [*_VALUES, *GROUPS])}")
        elif not isinstance(value, dict) or not isinstance(value.get("_target_"), str):
            raise ConfigError(
                f"{key}={show(value)}: {key} is a group: choose one of its options ({key}=NAME, see --help) "
                f"and set values inside it ({key}.KEY=VALUE)"
            )
    for group in groups:
        if group not in config:
            raise ConfigError(f"{group} is missing: choose one of its options ({group}=NAME, see --help)")


def _targets(node: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every node that names a `_target_`, with its dotted key."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield key, node
        for name, value in node.items():
            yield from _targets(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _targets(value, f"{key}.{index}")


def _check_node(key: str, node: dict[str, Any]) -> None:
    """Check the keys and values of a node against the signature of its target."""
    target = node["_target_"]
    try:
        known = read(target)
    except LookupError as error:
        raise ConfigError(f"{key}._target_={target}: {error.args[0]}; give the full path of its file") from error
    for name, value in node.items():
        if name in _HYDRA_KEYS:
            continue
        if name not in known.parameters:
            if known.accepts_any:
                continue
            names = [f"{key}.{parameter}" for parameter in known.parameters]
            inside = [f"{key}.{n}" for n in node if n != name and n not in _HYDRA_KEYS]
            raise ConfigError(f"{key}.{name} is unknown to {target}; {hint(f'{key}.{name}', names, inside)}")
        annotation = known.parameters[name].annotation
        if not (isinstance(value, dict) and "_target_" in value) and not matches(annotation, value):
            raise ConfigError(_type_message(f"{key}.{name}", value, str(annotation)))
    if not node.get("_partial_", False) and "_args_" not in node:
        for name, parameter in known.parameters.items():
            if parameter.required and name not in node:
                raise ConfigError(f"{key}.{name} is missing: type +{key}.{name}=…")


def _type_message(key: str, value: object, annotation: str) -> str:
    what, example = in_words(annotation)
    if what == "text" and isinstance(value, int | float):
        example = f"\"'{show(value)}'\""  # the quotes that make it text
    return f"{key}={show(value)}: expected {what} ({annotation}); type e.g. {key}={example}"


def _check_ranges(config: dict[str, Any]) -> None:
    for key, bound, relation in _BOUNDS:
        value = _select(config, key)
        if not isinstance(value, int | float):
            continue
        if not math.isfinite(value) or value < bound or (value == bound and relation == "above"):
            raise ConfigError(f"{key}={value}: must be {relation} {bound}")
        if key in _STEPS_OR_SHARES and value > 1 and value != int(value):
            raise ConfigError(
                f"{key}={value}: above 1 it counts steps, in whole numbers; below 1 it is a share of all"
            )
    loss = config.get("loss", {})
    if loss.get("mini_batch_size") is not None and loss.get("mini_batch_num_tokens") is not None:
        raise ConfigError(
            f"loss.mini_batch_size={loss['mini_batch_size']} and "
            f"loss.mini_batch_num_tokens={loss['mini_batch_num_tokens']} exclude each other; set one of them to null"
        )


def _check_choices(config: dict[str, Any]) -> None:
    for key, options in _CHOICES.items():
        value = _select(config, key)
        for item in value if isinstance(value, list) else [value]:
            if item is not None and (item not in options or isinstance(item, int) and not isinstance(item, bool)):
                near = difflib.get_close_matches(str(item), [show(option) for option in options], 1)
                did_you_mean = f"; did you mean {near[0]}?" if near else ""
                raise ConfigError(f"{key}={show(value)}: choose from {', '.join(map(show, options))}{did_you_mean}")
    if _select(config, "evaluator.precisions") == []:
        raise ConfigError("evaluator.precisions=[] : name at least one, e.g. evaluator.precisions=[float32]")


def _check_model(model: dict[str, Any]) -> None:
    low, high = model.get("min_pixels"), model.get("max_pixels")
    if low is not None and high is not None and low > high:
        raise ConfigError(
            f"model.max_pixels={high} is below model.min_pixels={low}; type model.max_pixels={low} or more"
        )
    flash = model.get("attn_implementation") == "flash_attention_2"
    if flash and importlib.util.find_spec("flash_attn") is None:
        raise ConfigError(
            "model.attn_implementation=flash_attention_2: it isn't installed; "
            "type pip install -e '.[flash-attn]', or model.attn_implementation=auto"
        )
    if model["_target_"].startswith("experiments.models.") and isinstance(model.get("card"), dict):
        _check_node("model.card", {"_target_": _CARD} | model["card"])
    if isinstance(model.get("name"), str):
        _check_source("model.name", model["name"], ("modules.json", "config.json"))


def _check_source(key: str, name: str, files: Sequence[str] = ()) -> None:
    """Refuse a path that isn't there, which no Hub name can be, and a folder that holds none of the files."""
    path = Path(name).expanduser()
    if path.is_dir():
        if files and not any((path / file).is_file() for file in files):
            raise ConfigError(f"{key}={name}: this folder holds no {' or '.join(files)}")
    elif not name or name[0] in "./~" or name.count("/") > 1:
        what = "is a file; type the folder" if path.exists() else "there is no such folder"
        raise ConfigError(f"{key}={name}: {what} (a Hub name is OWNER/NAME)")


def _check_data(data: dict[str, Any]) -> None:
    if isinstance(columns := data.get("columns"), dict):
        for name in columns:
            if name not in _COLUMNS:
                known = [f"data.columns.{column}" for column in _COLUMNS]
                raise ConfigError(f"data.columns.{name} is unknown; {hint(name, known, known)}")
        negatives, wanted = columns.get("negatives") or [], data.get("num_negatives", 0)
        if not isinstance(negatives, list):
            raise ConfigError(f"data.columns.negatives={show(negatives)}: expected a list; type [{show(negatives)}]")
        if wanted > len(negatives):
            raise ConfigError(
                f"data.num_negatives={wanted}, but data.columns.negatives names {len(negatives)}: "
                f"type data.num_negatives={len(negatives)}, or name the columns"
            )
    if data["_target_"] == "experiments.data.table.load":
        for key in ("train", "eval"):
            if data.get(key) is not None and not Path(data[key]).expanduser().is_file():
                raise ConfigError(f"data.{key}={data[key]}: there is no such file")
    elif isinstance(data.get("path"), str):
        _check_source("data.path", data["path"])


def _check_dimensions(config: dict[str, Any]) -> None:
    """Check the lists of dimensions and the saved one against the model's own, if that is declared."""
    own = _select(config, "model.embedding_dim")
    for key in ("matryoshka.default_dims", "matryoshka.matryoshka_dims", "evaluator.truncate_dims"):
        if (dims := _select(config, key)) is not None:
            _check_dims(key, dims, None if key.endswith("default_dims") else own)
    matryoshka = config.get("matryoshka", {})
    dim, key = matryoshka.get("truncate_dim"), "matryoshka.truncate_dim"
    if dim is None or dim == "auto":
        return
    if not isinstance(dim, int) or isinstance(dim, bool) or dim < 1:
        raise ConfigError(f"{key}={show(dim)}: type a dimension such as 64, auto, or null (all)")
    dropped = matryoshka.get("default_dims") is not None and matryoshka.get("matryoshka_dims") is None
    if own is not None and dim > own and not dropped:
        raise ConfigError(
            f"{key}={dim} is above the model's {own} dimensions (model.embedding_dim); type null for all"
        )


def _check_dims(key: str, dims: list[int], own: int | None) -> None:
    if not dims:
        raise ConfigError(f"{key}=[]: name at least one dimension, or choose matryoshka=none")
    for dim in dims:
        if dim < 1:
            raise ConfigError(f"{key}={show(dims)}: {dim} is no dimension; dimensions are 1 or more")
        if own is not None and dim > own:
            raise ConfigError(f"{key}={show(dims)}: {dim} is above the model's {own} dimensions (model.embedding_dim)")
        if dims.count(dim) > 1:
            raise ConfigError(f"{key}={show(dims)}: {dim} is there twice; type {key}={show([*dict.fromkeys(dims)])}")


def _check_architectures(config: dict[str, Any]) -> None:
    """Refuse a loss, an evaluator or training arguments made for another kind of model."""
    model = _architecture(config["model"]["_target_"]) if "model" in config else None
    for group in ("loss", "evaluator", "trainer"):
        target = _select(config, f"{group}._target_") or ""
        other = _architecture(target)
        if model is not None and other is not None and model != other:
            raise ConfigError(
                f"{group}={target.rpartition('.')[2]} is for another kind of model ({other}, the model is {model}); "
                f"choose another {group} or another model"
            )


def _check_loss(loss: dict[str, Any], data: dict[str, Any]) -> None:
    """Refuse a loss of the library that can't take what every source yields: anchor, positive, negatives, no label."""
    name = str(loss.get("_target_")).rpartition(".")[2]
    if name in _LOSSES_WITH_LABELS:
        raise ConfigError(f"loss: {name} needs a column of labels, which data doesn't have; type loss=cached_mnrl")
    num_columns = 2 + int(data.get("num_negatives") or 0)
    low, high = _LOSS_COLUMNS.get(name, (2, None))
    if num_columns < low or (high is not None and num_columns > high):
        number = str(low) if low == high else f"{low} or more"
        raise ConfigError(
            f"loss: {name} takes {number} columns, data gives {num_columns}; type data.num_negatives={low - 2}"
        )


def _architecture(target: str) -> str | None:
    """Return what kind of model a target makes or is for; None where its path doesn't tell."""
    path = target.lower()
    kinds = {"cross_encoder": "reranker", "crossencoder": "reranker", "rerank": "reranker"}
    for word, kind in (kinds | {"multi_vector": "late interaction", "sparse_encoder": "sparse"}).items():
        if word in path:
            return kind
    ours = ("experiments.models.", "experiments.losses.", "sentence_transformers.sentence_transformer.")
    return "embedding" if path.startswith(ours) else None


def _check_rest(config: dict[str, Any]) -> None:
    resume = _select(config, "trainer.resume")
    if resume not in (None, "auto") and not (Path(resume).expanduser() / "run.json").is_file():
        raise ConfigError(
            f"trainer.resume={resume}: no run's directory (no run.json there); type auto, null or a directory"
        )
    country = _select(config, "tracking.country_iso_code")
    if country is not None and not re.fullmatch("[A-Z]{3}", country):
        raise ConfigError(f"tracking.country_iso_code={country}: expected three capital letters (ISO 3166), e.g. DEU")


def _select(config: dict[str, Any], key: str) -> Any:
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node
