"""Whether the values of a config fit one another: files, columns, dimensions, kinds of model and loss."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.config import fits_pairs
from experiments.config.errors import ConfigError
from experiments.config.hints import hint, select, show
from experiments.config.model_location import local_folder, untrusted
from experiments.config.values import parse_bytes

_MODEL_FILES = ("modules.json", "config.json", "adapter_config.json")  # one of them is in a model's folder
_COLUMNS = ("query", "positive", "negatives")
_PAIR_COLUMNS = ("image", "text")
VDR_LANGUAGES = ("en", "es", "it", "de", "fr")  # of vdr-multilingual and of its offline twin
# As the tables in the library's docstrings have it (tests/config/test_fits.py compares them).
LOSSES_WITH_LABELS = frozenset(
    (
        *("CoSENTLoss", "CosineSimilarityLoss", "ContrastiveLoss", "OnlineContrastiveLoss", "SoftmaxLoss"),
        *("BatchAllTripletLoss", "BatchHardTripletLoss", "BatchHardSoftMarginTripletLoss", "BatchSemiHardTripletLoss"),
        *("MarginMSELoss", "DistillKLDivLoss", "MSELoss", "EmbedDistillLoss"),
    )
)
LOSS_COLUMNS: dict[str, tuple[int, int | None]] = {  # least and most columns, without labels, where not two or more
    "AnglELoss": (3, None),
    "TripletLoss": (3, 3),
    "GISTEmbedLoss": (2, 3),
    "MultipleNegativesSymmetricRankingLoss": (2, 2),
    "CachedMultipleNegativesSymmetricRankingLoss": (2, 2),
    "MegaBatchMarginLoss": (2, 2),
    "ContrastiveTensionLoss": (2, 2),
    "ContrastiveTensionLossInBatchNegatives": (1, 1),
    "DenoisingAutoEncoderLoss": (2, 2),
}


def check(config: dict[str, Any]) -> None:
    """Refuse values that don't fit one another.

    Args:
        config: The resolved config, its keys and types checked.

    Raises:
        ConfigError: At the first misfit; it says what to type instead.
    """
    if "model" in config:
        _check_model(config["model"])
    if "data" in config:
        _check_data(config["data"])
    _check_dimensions(config)
    _check_architectures(config)
    if "loss" in config and "data" in config:
        if fits_pairs.are_labelled(config["data"]):
            fits_pairs.check_loss(config["loss"], config["data"])
        else:
            _check_loss(config["loss"], config["data"], bool(select(config, "trainer.eval_loss")))


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
    if flash and model.get("dtype") == "float32":
        raise ConfigError(
            "model.attn_implementation=flash_attention_2 takes no float32 weights; "
            "type model.dtype=bfloat16 too, or model.attn_implementation=auto"
        )
    if isinstance(model.get("name"), str):
        _check_source("model.name", model["name"], _MODEL_FILES)
        if model.get("needs_remote_code") and not model.get("trust_remote_code"):
            raise ConfigError(untrusted(model["name"]))
        _check_kind(model["_target_"], model["name"])
    _check_adapter(model)
    _check_encoders(model)


def _check_encoders(model: dict[str, Any]) -> None:
    """Refuse encoders of a Router that can't be there, and routes and parts to freeze that lead to none of them."""
    encoders = model.get("encoders", {})
    for route, encoder in encoders.items():
        if isinstance(name := encoder.get("name"), str):
            _check_source(f"model.encoders.{route}.name", name, _MODEL_FILES)
    for mapping in model.get("route_mappings") or []:
        if unknown := set(mapping) - {"task", "modality", "route"}:
            raise ConfigError(f"model.route_mappings: {min(unknown)} is unknown; give task, modality and route")
        if mapping.get("route") not in encoders:
            known = ", ".join(encoders)
            raise ConfigError(f"model.route_mappings: route={mapping.get('route')} is no encoder; choose from {known}")
    for part in (model.get("freeze") or []) if encoders else []:
        if (route := part.partition(".")[0]) not in encoders:
            raise ConfigError(f"model.freeze: {part} is in no encoder; {hint(route, encoders, encoders)}")


def _check_adapter(model: dict[str, Any]) -> None:
    """Refuse an adapter that PEFT can't make, and a saved one where PEFT isn't there."""
    peft = model.get("peft")
    if peft is not None and not (isinstance(peft, dict) and "_target_" in peft):
        raise ConfigError(f"model.peft={show(peft)}: choose an adapter, +model/peft=lora, or type model.peft=null")
    saved = (Path(str(model.get("name"))).expanduser() / "adapter_config.json").is_file()
    if saved and importlib.util.find_spec("peft") is None:
        raise ConfigError(f"model.name={model['name']} is an adapter of PEFT; type pip install -e '.[lora]'")


def _check_kind(target: str, name: str) -> None:
    """Refuse a saved reranker where an embedding model is loaded, and the reverse."""
    try:
        saved = json.loads((Path(name).expanduser() / "config_sentence_transformers.json").read_text())
    except (OSError, ValueError):
        return
    is_reranker = saved.get("model_type") == "CrossEncoder"
    if is_reranker and target == "experiments.models.embedders.load_embedder":
        raise ConfigError(f"model.name={name} is a reranker; type experiment=reranker instead of model=saved")
    if not is_reranker and target == "experiments.models.rerankers.load_reranker":
        raise ConfigError(f"model.name={name} is no reranker; type model=saved")


def _check_source(key: str, name: str, files: Sequence[str] = ()) -> None:
    """Refuse a path that isn't there, which no Hub name can be, and a folder that holds none of the files."""
    path = local_folder(name, key) or Path(name).expanduser()
    if path.is_dir():
        if files and not any((path / file).is_file() for file in files):
            raise ConfigError(f"{key}={name}: this folder holds no {' or '.join(files)}")
    elif not name or name[0] in "./~" or name.count("/") > 1:
        what = "is a file; type the folder" if path.exists() else "there is no such folder"
        raise ConfigError(f"{key}={name}: {what} (a Hub name is OWNER/NAME)")


def _check_data(data: dict[str, Any]) -> None:
    if isinstance(columns := data.get("columns"), dict):
        roles = _PAIR_COLUMNS if fits_pairs.are_pairs(data) else _COLUMNS
        for name in columns:
            if name not in roles:
                known = [f"data.columns.{column}" for column in roles]
                raise ConfigError(f"data.columns.{name} is unknown; {hint(name, known, known)}")
        negatives, wanted = columns.get("negatives") or [], data.get("num_negatives", 0)
        if not isinstance(negatives, list):
            raise ConfigError(f"data.columns.negatives={show(negatives)}: expected a list; type [{show(negatives)}]")
        if wanted > len(negatives) and "negatives" in roles:
            raise ConfigError(
                f"data.num_negatives={wanted}, but data.columns.negatives names {len(negatives)}: "
                f"type data.num_negatives={len(negatives)}, or name the columns"
            )
    _check_language(data)
    if data["_target_"] == "experiments.data.sources.table.load":
        for key in ("train", "eval"):
            if data.get(key) is not None and not Path(data[key]).expanduser().is_file():
                raise ConfigError(f"data.{key}={data[key]}: there is no such file")
    elif isinstance(data.get("path"), str):
        _check_source("data.path", data["path"])


def _check_language(data: dict[str, Any]) -> None:
    path, language = data.get("path"), data.get("language")
    is_vdr = data["_target_"] == "experiments.data.sources.multilingual.load"
    is_known = isinstance(path, dict) or path == "llamaindex/vdr-multilingual-train"  # a copy may have others
    if is_vdr and is_known and language not in VDR_LANGUAGES:
        name = "vdr_multilingual_tiny" if isinstance(path, dict) else path
        raise ConfigError(f"data.language={language}: {name} has {', '.join(VDR_LANGUAGES)}")


def _check_dimensions(config: dict[str, Any]) -> None:
    """Check the lists of dimensions and the saved one against the model's own, if that is declared."""
    own = select(config, "model.embedding_dim")
    for key in ("matryoshka.default_dims", "matryoshka.matryoshka_dims", "evaluator.truncate_dims"):
        if (dims := select(config, key)) is not None:
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
        target = select(config, f"{group}._target_") or ""
        other = _architecture(target)
        if model is not None and other is not None and model != other:
            recipe = f"all that fits with experiment={_recipe(config['model'])}"
            fitting = recipe if model == "reranker" else "another model"
            raise ConfigError(
                f"{group}={target.rpartition('.')[2]} is for another kind of model ({other}, the model is {model}); "
                f"choose another {group} or {fitting}"
            )
    _check_reranker(config, model)


def _recipe(reranker: dict[str, Any]) -> str:
    """Return the recipe that chooses data, loss, trainer and evaluator for a reranker."""
    if not reranker["_target_"].endswith(".make_reranker"):
        return "reranker"
    kind = "features" if reranker.get("transformer_task") == "feature-extraction" else "any_to_any"
    return f"reranker_{kind}{'_tiny' * isinstance(reranker.get('name'), dict)}"


def _check_reranker(config: dict[str, Any], model: str | None) -> None:
    """Refuse candidates that no retriever finds, dimensions that a reranker hasn't, and data that don't fit it."""
    if model is None:
        return
    number = select(config, "evaluator.num_candidates")
    if select(config, "evaluator.retriever") and number is not None and number > 100:
        raise ConfigError(
            f"evaluator.num_candidates={number}: a retriever finds 100; type evaluator.num_candidates=100"
        )
    if model == "reranker" and str(select(config, "matryoshka._target_")).endswith(".matryoshka"):
        raise ConfigError("matryoshka: a reranker makes scores, which have no dimensions; type matryoshka=none")
    if model == "reranker" and select(config, "matryoshka.truncate_dim") is not None:
        raise ConfigError(
            "matryoshka.truncate_dim: a reranker makes scores, which have no dimensions; "
            "type matryoshka.truncate_dim=null"
        )
    fits_pairs.check(config, model)


def _check_loss(loss: dict[str, Any], data: dict[str, Any], with_eval_loss: bool) -> None:
    """Refuse a loss of the library that can't take what every source yields: anchor, positive, negatives, no label."""
    try:
        parse_bytes(loss.get("memory_limit"))
    except ConfigError as error:
        raise ConfigError(f"loss.{error}") from None
    name = str(loss.get("_target_")).rpartition(".")[2]
    if name in LOSSES_WITH_LABELS:
        raise ConfigError(f"loss: {name} needs a column of labels, which data doesn't have; type loss=cached_mnrl")
    low, high = LOSS_COLUMNS.get(name, (2, None))
    if high == 1:
        raise ConfigError(f"loss: {name} takes one column, and data gives two or more; type loss=cached_mnrl")
    least, most = low - 2, None if high is None else high - 2
    wanted = f"{least}" if least == most else f"{least} or more" if most is None else f"{least} to {most}"
    trained = int(data.get("num_negatives") or 0)
    evaluated = trained if data.get("num_eval_negatives") is None else int(data["num_eval_negatives"])
    numbers = {"num_negatives": trained} | ({"num_eval_negatives": evaluated} if with_eval_loss else {})
    for key, number in numbers.items():
        if number < least or (most is not None and number > most):
            fitting = least if number < least else most
            raise ConfigError(
                f"loss: {name} takes {wanted} hard negatives, and data.{key}={number}; type data.{key}={fitting}"
            )


def _architecture(target: str) -> str | None:
    """Return what kind of model a target makes or is for; None where its path doesn't tell."""
    path = target.lower()
    kinds = {"cross_encoder": "reranker", "crossencoder": "reranker", "rerank": "reranker"}
    for word, kind in (kinds | {"multi_vector": "late interaction", "sparse_encoder": "sparse"}).items():
        if word in path:
            return kind
    ours = tuple(f"experiments.{room}." for room in ("models", "training", "evaluation"))
    return "embedding" if path.startswith((*ours, "sentence_transformers.sentence_transformer.")) else None
