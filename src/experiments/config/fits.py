"""Whether the values of a config fit one another: files, columns, dimensions, kinds of model, data and loss."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.config import tables
from experiments.config.errors import ConfigError, refuse
from experiments.config.hints import hint, quoted, select, show
from experiments.config.model_files import check_parts, local_folder, takes_texts_alone, untrusted, weights_here
from experiments.config.values import parse_bytes

_MODEL_FILES = ("modules.json", "config.json", "adapter_config.json")  # one of them is in a model's folder
VDR_LANGUAGES = ("en", "es", "it", "de", "fr")  # of vdr-multilingual and of its offline twin
# As the tables in the library's docstrings have it (tests/config/test_fits.py compares them).
LOSSES_WITH_LABELS = frozenset(
    (
        *("CoSENTLoss", "CosineSimilarityLoss", "ContrastiveLoss", "OnlineContrastiveLoss", "SoftmaxLoss"),
        *("BatchAllTripletLoss", "BatchHardTripletLoss", "BatchHardSoftMarginTripletLoss", "BatchSemiHardTripletLoss"),
        *("MarginMSELoss", "DistillKLDivLoss", "MSELoss", "EmbedDistillLoss"),
    )
)
ROLES = ("query", "positive", "negatives", "file", "page_number", "corpus")  # of data.columns
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
_LOSSES_OF_LISTS = {  # the library's losses for rerankers that labelled pairs don't fit, and what they need
    **dict.fromkeys(
        ("ADRMSELoss", "LambdaLoss", "ListMLELoss", "ListNetLoss", "PListMLELoss", "RankNetLoss"),
        "a list of documents and of labels for each query",
    ),
    "MarginMSELoss": "scores of a teacher",
    "CrossEntropyLoss": "classes",
}
_LOSSES_IN_BATCH = ("MultipleNegativesRankingLoss", "CachedMultipleNegativesRankingLoss")  # for rerankers


def check(config: dict[str, Any], job: str = "train") -> None:
    """Refuse values that don't fit one another, at the first misfit; the keys and types have been checked.

    What a training alone needs isn't asked for where the job is to "evaluate".

    Raises:
        ConfigError: It says what to type instead.
    """
    model, data, loss = (config.get(group) for group in ("model", "data", "loss"))
    if model is not None:
        _check_model(model)
    if data is not None:
        _check_data(data, job)
    if model is not None and data is not None:
        _check_pages(model, data)
    _check_dimensions(config)
    is_training = job != "evaluate"
    if is_training:
        _check_optimizer(select(config, "trainer.optim"))
    if model is not None:
        _check_kinds(config, _kind(model["_target_"]), is_training)
    if is_training and loss is not None and data is not None:
        if _are_labelled(data):
            _check_loss_of_pairs(_name(loss), int(data.get("num_negatives") or 0))
        else:
            _check_loss(loss, data, bool(select(config, "trainer.eval_loss")))


def _check_model(model: dict[str, Any]) -> None:
    low, high = model.get("min_pixels"), model.get("max_pixels")
    if low is not None and high is not None:
        said = f"model.max_pixels={high} is below model.min_pixels={low}; type model.max_pixels={low} or more"
        refuse(low > high, said)
    if model.get("attn_implementation") == "flash_attention_2":
        key = "model.attn_implementation=flash_attention_2"
        how = "type pip install -e '.[flash-attn]', or model.attn_implementation=auto"
        refuse(importlib.util.find_spec("flash_attn") is None, f"{key}: it isn't installed; {how}")
        how = "type model.dtype=bfloat16 too, or model.attn_implementation=auto"
        refuse(model.get("dtype") == "float32", f"{key} takes no float32 weights; {how}")
    if isinstance(name := model.get("name"), str):
        _check_source("model.name", name, _MODEL_FILES)
        refuse(model.get("needs_remote_code") and not model.get("trust_remote_code"), untrusted(name))
        _check_saved(model["_target_"], name)
    peft = model.get("peft")
    how = "choose an adapter, +model/peft=lora, or type model.peft=null"
    refuse(peft is not None and not (isinstance(peft, dict) and "_target_" in peft), f"model.peft={show(peft)}: {how}")
    _check_encoders(model)
    check_parts(model, weights_here)


def _check_optimizer(name: str | None) -> None:
    """Refuse an optimizer that transformers hasn't got, by its source: its import takes seconds."""
    spec = importlib.util.find_spec("transformers")
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).with_name("training_args.py").read_text(encoding="utf-8")
    names = source.partition("class OptimizerNames")[2].partition("\nclass ")[0]
    known = ["auto", *re.findall(r'^    [A-Z0-9_]+ = "(\w+)"', names, re.MULTILINE)]
    refuse(name is not None and name not in known, f"trainer.optim={name}: {hint(str(name), known, known)}")


def _check_encoders(model: dict[str, Any]) -> None:
    """Refuse encoders of a Router that can't be there, and routes and parts to freeze that lead to none of them."""
    encoders = model.get("encoders", {})
    for route, encoder in encoders.items():
        if isinstance(name := encoder.get("name"), str):
            _check_source(f"model.encoders.{route}.name", name, _MODEL_FILES)
    for mapping in model.get("route_mappings") or []:
        if unknown := set(mapping) - {"task", "modality", "route"}:
            raise ConfigError(f"model.route_mappings: {min(unknown)} is unknown; give task, modality and route")
        said = f"route={mapping.get('route')} is no encoder; choose from {', '.join(encoders)}"
        refuse(mapping.get("route") not in encoders, f"model.route_mappings: {said}")
    for part in (model.get("freeze") or []) if encoders else []:
        if (route := part.partition(".")[0]) not in encoders:
            raise ConfigError(f"model.freeze: {part} is in no encoder; {hint(route, encoders, encoders)}")


def _check_saved(target: str, name: str) -> None:
    """Refuse a saved reranker where an embedding model is loaded, the reverse, and an adapter without PEFT."""
    folder = Path(name).expanduser()
    is_adapter = (folder / "adapter_config.json").is_file() and importlib.util.find_spec("peft") is None
    refuse(is_adapter, f"model.name={name} is an adapter of PEFT; type pip install -e '.[lora]'")
    try:
        saved = json.loads((folder / "config_sentence_transformers.json").read_text())
    except (OSError, ValueError):
        return
    is_reranker, loader = saved.get("model_type") == "CrossEncoder", target.removeprefix("experiments.models.")
    said = f"model.name={name} is a reranker; type experiment=reranker instead of model=saved"
    refuse(is_reranker and loader == "embedders.load_embedder", said)
    said = f"model.name={name} is no reranker; type model=saved"
    refuse(not is_reranker and loader == "rerankers.load_reranker", said)


def _check_source(key: str, name: str, files: Sequence[str] = ()) -> None:
    """Refuse a path that isn't there, which no Hub name can be, and a folder that holds none of the files."""
    path = local_folder(name, key) or Path(name).expanduser()
    if path.is_dir():
        if files and not any((path / file).is_file() for file in files):
            inside = sorted({found.parent.name for file in files for found in path.glob(f"*/{file}")})
            hints = f"; type {key}={name.rstrip('/')}/{' or /'.join(inside)}" if inside else ""
            raise ConfigError(f"{key}={name}: this folder holds no {' or '.join(files)}{hints}")
    elif not name or name[0] in "./~" or name.count("/") > 1:
        what = "is a file; type the folder" if path.exists() else "there is no such folder"
        raise ConfigError(f"{key}={name}: {what} (a Hub name is OWNER/NAME)")


def _check_data(data: dict[str, Any], job: str) -> None:
    no_rows = job != "evaluate" and data.get("evaluation_only")
    refuse(no_rows, "data.evaluation_only=true leaves nothing to train on; type data.evaluation_only=false")
    if isinstance(columns := data.get("columns"), dict):
        roles = ("image", "text") if _are_pairs(data) else ROLES
        known = [f"data.columns.{role}" for role in roles]
        for name in columns:
            key = f"data.columns.{name}"
            refuse(name not in roles, f"{key} is unknown; {hint(key, known, known)}")
        negatives, wanted = columns.get("negatives") or [], data.get("num_negatives", 0)
        said = f"data.columns.negatives={show(negatives)}: expected a list; type [{show(negatives)}]"
        refuse(not isinstance(negatives, list), said)
        number = len(negatives)
        said = (
            f"data.num_negatives={wanted}, but data.columns.negatives names {number}: type data.num_negatives={number}"
        )
        refuse(wanted > number and "negatives" in roles, f"{said}, or name the columns")
    path, language, target = data.get("path"), data.get("language"), data["_target_"]
    if target == "experiments.data.sources.multilingual.load" and language not in VDR_LANGUAGES:
        name = "vdr_multilingual_tiny" if isinstance(path, dict) else path
        is_known = name in ("vdr_multilingual_tiny", "llamaindex/vdr-multilingual-train")  # a copy may have others
        refuse(is_known, f"data.language={language}: {name} has {', '.join(VDR_LANGUAGES)}")
    if target == "experiments.data.sources.table.load":
        refuse(job != "evaluate" and data.get("train") is None, "data.train is missing: type data.train=FILE")
        either = "type data.eval=FILE, or data.train=FILE to take rows from its end"
        refuse(data.get("train") is None and data.get("eval") is None, f"data.eval is missing: {either}")
        tables.check(data)
    elif isinstance(path, str):
        is_table = target.endswith("hub.load") and Path(path).suffix.lower() in tables.FORMATS and Path(path).is_file()
        refuse(is_table, f"data.path={path} is a table; type data=table {shlex.quote(f'data.train={quoted(path)}')}")
        _check_source("data.path", path)


def _check_pages(model: dict[str, Any], data: dict[str, Any]) -> None:
    """Refuse an embedder of texts on a source of ours that yields images; other data tell by their rows."""
    places = ("drawn", "sources.doodles", "sources.multilingual")
    sources = tuple(f"experiments.data.{place}." for place in places)
    name = model.get("name")
    if not data["_target_"].startswith(sources) or not isinstance(name, str):
        return
    folder = local_folder(name) if model["_target_"].endswith(".load_embedder") else None
    said = "the pages are images, and the model takes text: type data=table and a table of texts, or a model of images"
    refuse(folder and takes_texts_alone(folder), f"{said}, such as model=qwen3vl_2b")


def _check_dimensions(config: dict[str, Any]) -> None:
    """Check the lists of dimensions and the saved one against the model's own, if that is declared."""
    own, matryoshka = select(config, "model.embedding_dim"), config.get("matryoshka", {})
    for key in ("matryoshka.default_dims", "matryoshka.matryoshka_dims", "evaluator.truncate_dims"):
        if (dims := select(config, key)) is not None:
            _check_dims(key, dims, None if key.endswith("default_dims") else own)
    dim, key = matryoshka.get("truncate_dim"), "matryoshka.truncate_dim"
    if dim is None or dim == "auto":
        return
    if not isinstance(dim, int) or isinstance(dim, bool) or dim < 1:
        raise ConfigError(f"{key}={show(dim)}: type a dimension such as 64, auto, or null (all)")
    dropped = matryoshka.get("default_dims") is not None and matryoshka.get("matryoshka_dims") is None
    said = f"{key}={dim} is above the model's {own} dimensions (model.embedding_dim); type null for all"
    refuse(own is not None and dim > own and not dropped, said)


def _check_dims(key: str, dims: list[int], own: int | None) -> None:
    refuse(not dims, f"{key}=[]: name at least one dimension, or choose matryoshka=none")
    for dim in dims:
        said = f"{key}={show(dims)}: {dim}"
        refuse(dim < 1, f"{said} is no dimension; dimensions are 1 or more")
        refuse(own is not None and dim > own, f"{said} is above the model's {own} dimensions (model.embedding_dim)")
        refuse(dims.count(dim) > 1, f"{said} is there twice; type {key}={show([*dict.fromkeys(dims)])}")


def _check_kinds(config: dict[str, Any], model: str | None, is_training: bool) -> None:
    """Refuse a loss, an evaluator, training arguments, dimensions or data made for another kind of model."""
    if model is None:
        return
    recipe = f"all that fits with experiment={_recipe(config['model'])}" if model == "reranker" else "another model"
    for group in ("loss", "evaluator", "trainer") if is_training else ("evaluator",):
        target = select(config, f"{group}._target_") or ""
        said = (
            f"{group}={target.rpartition('.')[2]} is for another kind of model ({_kind(target)}, the model is {model})"
        )
        refuse(_kind(target) not in (None, model), f"{said}; choose another {group} or {recipe}")
    number = select(config, "evaluator.num_candidates")
    said = f"evaluator.num_candidates={number}: a retriever finds 100; type evaluator.num_candidates=100"
    refuse(select(config, "evaluator.retriever") and number is not None and number > 100, said)
    if model == "reranker" and is_training:
        why, key = "a reranker makes scores, which have no dimensions", "matryoshka.truncate_dim"
        with_dimensions = str(select(config, "matryoshka._target_")).endswith(".matryoshka")
        refuse(with_dimensions, f"matryoshka: {why}; type matryoshka=none")
        refuse(select(config, key) is not None, f"{key}: {why}; type {key}=null")
    if str(select(config, "data._target_")).startswith("experiments.data."):
        _check_pairs(config, model, is_training)


def _recipe(reranker: dict[str, Any]) -> str:
    """Return the recipe that chooses data, loss, trainer and evaluator for a reranker."""
    if not reranker["_target_"].endswith(".make_reranker"):
        return "reranker"
    kind = "features" if reranker.get("transformer_task") == "feature-extraction" else "any_to_any"
    return f"reranker_{kind}{'_tiny' * isinstance(reranker.get('name'), dict)}"


def _kind(target: str) -> str | None:
    """Return what kind of model a target makes or is for; None where its path doesn't tell."""
    path = target.lower()
    kinds = {"cross_encoder": "reranker", "crossencoder": "reranker", "rerank": "reranker"}
    for word, kind in (kinds | {"multi_vector": "late interaction", "sparse_encoder": "sparse"}).items():
        if word in path:
            return kind
    ours = tuple(f"experiments.{room}." for room in ("models", "training", "evaluation"))
    return "embedding" if path.startswith((*ours, "sentence_transformers.sentence_transformer.")) else None


def _are_pairs(data: dict[str, Any]) -> bool:
    """Return whether a source yields captioned images, in both directions."""
    return data["_target_"] in ("experiments.data.sources.doodles.load", "experiments.data.drawn.drawings.load")


def _are_labelled(data: dict[str, Any]) -> bool:
    """Return whether a source yields labelled pairs of query and document, for rerankers."""
    return _are_pairs(data) and data.get("labelled", True)


def _check_pairs(config: dict[str, Any], model: str, is_training: bool) -> None:
    """Refuse captioned images, or other data of ours, that don't fit the kind of model, and a loss that doesn't."""
    if not is_training:  # labels and losses are for that; a direction is evaluated by any model
        return
    data, loss = config["data"], _name(config.get("loss", {}))
    source = f"data={data['_target_'].split('.')[-2]}"
    if model == "reranker":
        said = f"{source} doesn't fit the model (reranker), which needs labelled pairs"
        refuse(not _are_pairs(data), f"{said}: type data=drawings or data=doodles")
        said = f"{source} without labels: {loss} needs labelled pairs; type data=doodles or data=drawings"
        refuse(not _are_labelled(data) and loss not in ("", *_LOSSES_IN_BATCH), f"{said}, or loss=reranker_mnrl")
        return
    said = f"{source} gives labelled pairs, for rerankers, and the model ({model}) needs rows without labels"
    refuse(_are_labelled(data), f"{said}: type data=doodles_pairs or data=drawings_pairs")
    key, why = "loss.gather_across_devices", "the processes of a step may hold different directions"
    refuse(_are_pairs(data) and select(config, key), f"{key}=true: {why}; type {key}=false")


def _check_loss_of_pairs(name: str, num_negatives: int) -> None:
    """Refuse a loss for rerankers that can't take labelled pairs of a query and a document."""
    needs = f"{_LOSSES_OF_LISTS.get(name)}, data gives labelled pairs"
    refuse(name in _LOSSES_OF_LISTS, f"loss: {name} needs {needs}; type loss=bce")
    said = f"{name} takes its negatives from the batch, data labels {num_negatives} for each query"
    refuse(name in _LOSSES_IN_BATCH and num_negatives, f"loss: {said}; type data.num_negatives=0")
    said = "without pairs that don't match binary cross entropy learns to say yes; type data.num_negatives=4"
    refuse(name == "BinaryCrossEntropyLoss" and not num_negatives, f"data.num_negatives=0: {said}")


def _check_loss(loss: dict[str, Any], data: dict[str, Any], with_eval_loss: bool) -> None:
    """Refuse a loss of the library that can't take what every source yields: anchor, positive, negatives, no label."""
    parse_bytes(loss.get("memory_limit"), "loss.memory_limit")
    name = _name(loss)
    said = f"loss: {name} needs a column of labels, which data doesn't have; type loss=cached_mnrl"
    refuse(name in LOSSES_WITH_LABELS, said)
    low, high = LOSS_COLUMNS.get(name, (2, None))
    refuse(high == 1, f"loss: {name} takes one column, and data gives two or more; type loss=cached_mnrl")
    least, most = low - 2, None if high is None else high - 2
    wanted = f"{least}" if least == most else f"{least} or more" if most is None else f"{least} to {most}"
    trained = int(data.get("num_negatives") or 0)
    evaluated = trained if data.get("num_eval_negatives") is None else int(data["num_eval_negatives"])
    numbers = {"num_negatives": trained} | ({"num_eval_negatives": evaluated} if with_eval_loss else {})
    for key, number in numbers.items():
        if number < least or (most is not None and number > most):
            said = f"loss: {name} takes {wanted} hard negatives, and data.{key}={number}"
            raise ConfigError(f"{said}; type data.{key}={least if number < least else most}")


def _name(loss: dict[str, Any]) -> str:
    return str(loss.get("_target_") or "").rpartition(".")[2]
