"""What every loader of a checkpoint does alike: find it, choose attention and dtype, fail in one line.

What follows once it is loaded is in `ready.py`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.model import BaseModel
from sentence_transformers.cross_encoder.model_card import CrossEncoderModelCardData
from sentence_transformers.sentence_transformer.model_card import SentenceTransformerModelCardData
from transformers import PreTrainedModel

from experiments.config import hub
from experiments.config.errors import ConfigError
from experiments.config.model_files import local_folder, untrusted
from experiments.models.options import Options

Model = TypeVar("Model", SentenceTransformer, CrossEncoder)
_CARDS: dict[type, type] = {
    SentenceTransformer: SentenceTransformerModelCardData,
    CrossEncoder: CrossEncoderModelCardData,
}


def load_saved(kind: type[Model], name: str, options: Options) -> Model:
    """Load a model of the library.

    Raises:
        ConfigError: If it can't be loaded.
    """
    path, shared = _locate(name, options)
    weights = _weights(options)
    with one_line_errors(name):
        model = kind(path, **shared, **described(kind, options), model_kwargs=weights)
    return model


def load_transformer(kind: type[Any], name: str, options: Options, **more: Any) -> Any:
    """Load a transformers checkpoint as the library's module; `more` are its other arguments.

    Raises:
        ConfigError: If it can't be loaded.
    """
    path, shared = _locate(name, options)
    weights = shared | _weights(options)
    with one_line_errors(name):
        transformer = kind(path, model_kwargs=weights, processor_kwargs=shared, config_kwargs=shared, **more)
    return transformer


def described(kind: type[BaseModel], options: Options) -> dict[str, Any]:
    """Return the prompts and the card of a model as the library takes them."""
    prompts = None if options.prompts is None else dict(options.prompts)
    return {"prompts": prompts, "model_card_data": _CARDS[kind](**(options.card or {}))}


def _locate(name: str, options: Options) -> tuple[str, dict[str, Any]]:
    """Return where to load a model from, and the arguments that its config, weights and processor share.

    Raises:
        ConfigError: If it is on the Hub and the Hub refuses or can't be reached, or its package isn't installed.
    """
    folder, revision = local_folder(name), options.revision
    if folder is None:
        revision = hub.commit(f"model.name={name}", name, revision)  # of all that is loaded, even if the branch moves
    shared = {"revision": revision, "trust_remote_code": options.trust_remote_code}
    return str(folder or name), shared | {"local_files_only": folder is not None}


def _weights(options: Options) -> dict[str, Any]:
    dtype = choose_dtype(options.dtype)
    return {"attn_implementation": choose_attention(options.attn_implementation, dtype), "dtype": dtype}


def ask_no_hub(model: BaseModel) -> None:
    """Keep the model card from asking the Hub about a model that didn't come from there."""
    names = [module.config._name_or_path for module in model.modules() if isinstance(module, PreTrainedModel)]
    card: Any = model.model_card_data
    card.local_files_only = all(Path(name).exists() for name in names)


@contextmanager
def one_line_errors(name: str) -> Iterator[None]:
    """Say in one line why a model can't be loaded.

    Raises:
        ConfigError: If its files aren't there, or it needs code of its own that isn't trusted.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise ConfigError(untrusted(name)) from error
        if not isinstance(error, OSError):
            raise
        if reason := hub.refusal(error, name):
            raise ConfigError(f"model.name={name}: {reason}") from error
        reason = str(error).splitlines()[0]
        raise ConfigError(f"model.name={name} can't be loaded ({reason}); check the name, or {hub.OFFLINE}") from error


def choose_attention(attn_implementation: str, dtype: torch.dtype) -> str:
    """Resolve `auto` to flash attention where it is installed, the GPU has it and the weights are half, else to sdpa.

    Raises:
        ConfigError: If flash attention is asked for by name and can't run here.
    """
    if dtype == torch.float32:
        if attn_implementation == "flash_attention_2":
            raise ConfigError("model.attn_implementation=flash_attention_2 needs model.dtype=bfloat16; or type auto")
        return "sdpa" if attn_implementation == "auto" else attn_implementation
    installed = importlib.util.find_spec("flash_attn") is not None
    capable = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
    if attn_implementation == "auto":
        return "flash_attention_2" if installed and capable else "sdpa"
    if attn_implementation == "flash_attention_2" and not (installed and capable):
        missing = "pip install -e '.[flash-attn]'" if not installed else "a GPU of the Ampere generation or later"
        raise ConfigError(f"model.attn_implementation=flash_attention_2 needs {missing}; or type auto")
    return attn_implementation


def choose_dtype(dtype: str) -> torch.dtype:
    """Resolve `auto` to bfloat16 where the GPU has it, else to float32."""
    if dtype == "auto":
        return torch.bfloat16 if has_bfloat16() else torch.float32
    return getattr(torch, dtype)


def has_bfloat16() -> bool:
    """Return whether the GPU computes in bfloat16 itself."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
