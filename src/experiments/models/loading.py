"""What every loader of a checkpoint does alike: find it, choose attention and dtype, fail in one line."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.model import BaseModel
from torch import nn
from transformers import PreTrainedModel

from experiments.config import hub
from experiments.config.errors import ConfigError
from experiments.config.model_location import local_folder, untrusted


def locate(name: str, revision: str | None, trust_remote_code: bool) -> tuple[str, dict[str, Any]]:
    """Return where to load a model from, and the arguments that its config, weights and processor share.

    Raises:
        ConfigError: If it is on the Hub and the Hub refuses or can't be reached, or its package isn't installed.
    """
    folder = local_folder(name)
    if folder is None:
        revision = hub.commit(f"model.name={name}", name, revision)  # of all that is loaded, even if the branch moves
    shared = {"revision": revision, "trust_remote_code": trust_remote_code, "local_files_only": folder is not None}
    return str(folder or name), shared


def remember_commit(module: nn.Module, name: str, shared: dict[str, Any]) -> None:
    """Let a module that was loaded from the Hub tell its commit; `shared` is what `locate` returned."""
    if not shared["local_files_only"]:
        module.commit = {name: shared["revision"]}  # type: ignore[assignment]  # no weight


def commits(model: BaseModel) -> dict[str, str]:
    """Return the commit of each checkpoint in a model that came from the Hub, by its name."""
    found: list[Any] = [module.commit for module in model.modules() if hasattr(module, "commit")]
    return {name: sha for each in found for name, sha in each.items()}


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
