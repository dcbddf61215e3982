"""What all loaders of checkpoints do: find one, choose attention and dtype, fail in one line. Next is `ready.py`."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.model import BaseModel
from sentence_transformers.base.modules import Transformer

from experiments.config import hub
from experiments.config.errors import ConfigError
from experiments.config.model_files import local_folder, untrusted
from experiments.models.options import CardOptions, CheckpointOptions, LoadingOptions, refuse_unknown

Model = TypeVar("Model", SentenceTransformer, CrossEncoder)


def load_saved(kind: type[Model], name: str, options: LoadingOptions) -> Model:
    """Load a model of the library; a ConfigError says in one line why it can't be loaded."""
    path, shared, weights = _locate(name, options)
    with _one_line_errors(name):
        return kind(path, **shared, **described(kind, options), model_kwargs=weights)


def load_transformer(name: str, options: CheckpointOptions, **more: Any) -> Any:
    """Load a transformers checkpoint as the library's module, which takes `more`; fails as `load_saved` does."""
    path, shared, weights = _locate(name, options)
    with _one_line_errors(name):
        return Transformer(path, model_kwargs=shared | weights, processor_kwargs=shared, config_kwargs=shared, **more)


def described(kind: type[BaseModel], options: CardOptions) -> dict[str, Any]:
    """Return the prompts and the card of a model as the library takes them."""
    prompts = options.get("prompts")
    card = kind.model_card_data_class(**(options.get("card") or {}))
    return {"prompts": None if prompts is None else dict(prompts), "model_card_data": card}


def _locate(name: str, options: CheckpointOptions) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return where to load a model from, what config, weights and processor share, and how the weights are held."""
    refuse_unknown(options)
    folder, revision = local_folder(name), options.get("revision")
    if folder is None:
        revision = hub.commit(f"model.name={name}", name, revision)  # of all that is loaded, even if the branch moves
    shared = {"revision": revision, "trust_remote_code": options.get("trust_remote_code", False)}
    dtype = options.get("dtype", "auto")
    if dtype == "auto":
        dtype = "bfloat16" if has_bfloat16() else "float32"
    attention = _choose_attention(options.get("attn_implementation", "auto"), dtype)
    weights = {"attn_implementation": attention, "dtype": getattr(torch, dtype)}
    return str(folder or name), shared | {"local_files_only": folder is not None}, weights


@contextmanager
def _one_line_errors(name: str) -> Iterator[None]:
    """Say in one line why a model can't be loaded: its files aren't there, or its own code isn't trusted."""
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


def _choose_attention(asked: str, dtype: str) -> str:
    """Resolve `auto`; flash attention that is asked for by name and can't run here is refused."""
    missing = None
    if dtype == "float32":
        missing = "model.dtype=bfloat16"
    elif importlib.util.find_spec("flash_attn") is None:
        missing = "pip install -e '.[flash-attn]'"
    elif not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0):
        missing = "a GPU of the Ampere generation or later"
    if asked == "flash_attention_2" and missing:
        raise ConfigError(f"model.attn_implementation=flash_attention_2 needs {missing}; or type auto")
    if asked == "auto":
        return "sdpa" if missing else "flash_attention_2"
    return asked


def has_bfloat16() -> bool:
    """Return whether the GPU computes in bfloat16 itself.

    The environment's EXPERIMENTS_BFLOAT16=1 or 0 says so instead: all that is `auto` is then chosen as on such a GPU.

    Raises:
        ConfigError: If that is neither.
    """
    if forced := os.environ.get("EXPERIMENTS_BFLOAT16"):
        if forced not in ("0", "1"):
            raise ConfigError(f"EXPERIMENTS_BFLOAT16={forced}: type 1 (as on a GPU with bfloat16) or 0")
        return forced == "1"
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
