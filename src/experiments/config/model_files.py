"""Where a model lies (a folder, an installed Python package, or the Hub), and whether it has the parts that are named.

Parts to freeze and layers to adapt are looked for in the names of the weights alone, which are in the headers of
safetensors files. Where they don't tell (other files, code of the model's own, weights that transformers renames as it
loads them) nothing is refused here, but once the model is loaded.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from experiments.config.errors import ConfigError, refuse
from experiments.config.hints import hint, select, show
from experiments.config.signatures import signature

PACKAGE = "package:"
_SAVED_CONFIG = "config_sentence_transformers.json"
_MADE_WHEN_LOADED = {"auto_model", "model", "linear", "lm_head", "score", "classifier", "pooler"}  # or tied


def untrusted(name: str) -> str:
    """Return what to say of a model that needs code of its own."""
    return f"{name} runs code that comes with it: read that code, then type model.trust_remote_code=true"


def local_folder(name: str, key: str = "model.name") -> Path | None:
    """Return the folder that a model's name stands for: itself, or `package:PACKAGE/FOLDER`; None for one on the Hub.

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
    refuse(not folder.is_dir(), f"{key}={name}: the package {package} has no folder {inside}")
    return folder


def named(node: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the nodes of a config that name a model or a data set, in a folder or on the Hub, with the name's key.

    Of `data` that is what takes a `path`; of anything else what takes a `name` and a `revision`.
    """
    if not isinstance(node, dict):
        return
    takes = signature(node["_target_"]).parameters if "_target_" in node else {}
    source = "path" if key.partition(".")[0] == "data" else "name" if "revision" in takes else ""
    if source in takes and isinstance(node.get(source), str):
        yield f"{key}.{source}", node
    for part, inside in node.items():
        yield from named(inside, f"{key}.{part}" if key else str(part))


def adapter_base(folder: Path) -> str | None:
    """Return the folder or the Hub name of the model that an adapter in a folder belongs to; None if it holds none."""
    try:
        return json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    except (OSError, ValueError, KeyError):
        return None


def takes_texts_alone(folder: Path) -> bool:
    """Return whether a saved embedder surely takes texts alone, by its files; False too where they don't tell."""
    try:
        first = json.loads((folder / "modules.json").read_text())[0]
        kind = json.loads((folder / first["path"] / "config.json").read_text())["model_type"]
    except (OSError, ValueError, LookupError):
        return False
    encoders = ("bert", "distilbert", "mpnet", "roberta", "xlm-roberta", "modernbert")
    return first["type"].endswith(".Transformer") and kind in encoders


def trained_dims(name: str, revision: str | None = None) -> list[int]:
    """Return the dimensions that a saved model was trained for, the largest first; none where its files don't tell.

    They are those of a MatryoshkaLoss, which the library writes on a model's card, and the one that is saved with it.

    Args:
        name: A folder, `package:PACKAGE/FOLDER`, or a name on the Hub, whose files are in the cache once it is loaded.
        revision: On the Hub.
    """
    import huggingface_hub

    folder, found = local_folder(name), set()
    for file, pattern in (
        ("README.md", r'"matryoshka_dims": \[([\d\s,]*)\]'),
        (_SAVED_CONFIG, r'"truncate_dim": (\d+)'),
    ):
        path = folder / file if folder else huggingface_hub.try_to_load_from_cache(name, file, revision=revision)
        if isinstance(path, str | Path) and Path(path).is_file():
            text = Path(path).read_text(encoding="utf-8", errors="replace")
            found |= {int(dim) for dims in re.findall(pattern, text) for dim in re.findall(r"\d+", dims)}
    return sorted(found, reverse=True)


def check_parts(model: dict[str, Any], weights_of: Callable[[str, str | None], Iterable[str] | None]) -> None:
    """Refuse parts to freeze and LoRA's target modules that a model (the config's node) hasn't got.

    `weights_of` returns the names of the weights of a model by its name and revision; None where they don't tell.

    Raises:
        ConfigError: It names the nearest parts that there are.
    """
    frozen, targets = model.get("freeze") or [], select(model, "peft.target_modules")
    encoders = {f"{route}.": encoder for route, encoder in model.get("encoders", {}).items()}
    for route, node in {"": model, **encoders}.items():
        name, parts = node.get("name"), [part for part in frozen if part.startswith(route)]
        adapted = targets if not route and targets != "all-linear" else None
        if not isinstance(name, str) or node.get("trust_remote_code") or not (parts or adapted):
            continue
        if (weights := weights_of(name, node.get("revision"))) is None:
            continue
        modules = _modules(weights)
        known = {word for module in modules for word in module.split(".")} | _MADE_WHEN_LOADED
        for part in parts:
            if not all(word in known or word.isdigit() for word in part.removeprefix(route).split(".")):
                raise no_part(part, modules)
        if adapted and not _is_matched(adapted, modules):
            words = re.findall(r"[A-Za-z_]\w+", adapted if isinstance(adapted, str) else " ".join(adapted))
            unknown = next((word for word in words if word not in known), show(adapted))
            layers = sorted({weight.split(".")[-2] for weight in weights if "." in weight})
            said = hint(unknown, layers, layers)
            raise ConfigError(f"model.peft.target_modules={show(adapted)}: the model has no such layer; {said}")


def no_part(part: str, modules: Collection[str]) -> ConfigError:
    """Return what to say of a part to freeze that isn't among the dotted names of a model's modules."""
    short = sorted({name.rpartition(".")[2] for name in modules if name.count(".") < 4} - {""})
    return ConfigError(f"model.freeze: the model has no part {part}; {hint(part, [*modules, *short], short)}")


def weights_here(name: str, revision: str | None) -> list[str] | None:
    """Return the names of the weights in a folder or in the Hub's cache; None where no file there tells."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        folder = local_folder(name)
        cached = None if folder else huggingface_hub.try_to_load_from_cache(name, "config.json", revision=revision)
        folder = Path(cached).parent if isinstance(cached, str) else folder
        if folder is None or are_renamed(json.loads((folder / "config.json").read_text())):
            return None
        return [*huggingface_hub.get_local_safetensors_metadata(folder).weight_map]
    except (OSError, ValueError, errors.NotASafetensorsRepoError, errors.SafetensorsParsingError):
        return None


def are_renamed(config: dict[str, Any]) -> bool:
    """Return whether transformers may rename the weights of a model with this `config.json` as it loads them."""
    spec = importlib.util.find_spec("transformers")
    assert spec is not None and spec.origin is not None
    renamings = Path(spec.origin).with_name("conversion_mapping.py")
    text = re.sub(r"\"\w+\": \[PrefixChange\(prefix_to_remove=[^\]]*\]", "", renamings.read_text())  # no new names
    written = json.dumps(config)
    classes = re.findall(r"\"((\w+?)(?:Model|For\w+))\"", written)
    kinds = {*re.findall(r"\"model_type\": \"(\w+)\"", written)}
    kinds |= {name for whole, stem in classes for name in (whole, f"{stem}Model")}
    return any(f'"{kind}":' in text for kind in kinds)


def _modules(weights: Iterable[str]) -> list[str]:
    """Return the dotted names of all modules that hold the weights, in their order."""
    paths = (weight.split(".") for weight in weights)
    return [*dict.fromkeys(".".join(path[:number]) for path in paths for number in range(1, len(path)))]


def _is_matched(targets: str | list[str], modules: Iterable[str]) -> bool:
    """Return whether PEFT would find a module: by the end of its dotted name, or by a regular expression of all of it.

    The file's names may begin with a part more than PEFT's, which begin inside the base model.
    """
    if not isinstance(targets, str):
        return any(f".{module}".endswith(f".{target}") for module in modules for target in targets)
    parts = (module.split(".") for module in modules)
    try:
        return any(re.fullmatch(targets, ".".join(each[start:])) for each in parts for start in range(len(each)))
    except re.error:
        return True  # PEFT says what is wrong
