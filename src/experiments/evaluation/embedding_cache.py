"""Embeddings on disk, so that runs that begin with the same model embed the same data once.

An entry is named by a hash of everything that can change a bit of it (`key_parts`), computed by one process while the
others that want it wait, written whole or not at all, and checked when it is read. A damaged one is computed again.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from importlib import metadata
from itertools import accumulate, chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.config.keys import digest
from experiments.runs.files import locked, replacing
from experiments.runs.provenance import code_hash, cpu

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

LIMIT_BYTES = 2 * 2**30  # of a folder; beyond it the entries that were used least recently are deleted

EMBEDS = ("data", "models", "evaluation")  # rooms whose code decides embeddings
_PACKAGES = "torch torchvision transformers tokenizers sentence-transformers datasets pillow numpy".split()
_LEFTOVER_S = 86_400.0  # a temporary file of this age belongs to a process that was killed

logger = logging.getLogger(__name__)

Embeddings = tuple[np.ndarray, np.ndarray]  # queries and documents, each of shape (num_rows, dim), float32


def load_or_compute(
    folder: Path, parts: dict[str, Any], compute: Callable[[], Embeddings]
) -> tuple[Embeddings, Path | None]:
    """Return the embeddings of a key, and the file that they were read from; None: they were computed, and kept."""
    path = folder / f"{digest(parts)}.npz"
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if_taken = "Another run computes the same embeddings: waiting for them"
            stack.enter_context(locked(path.with_suffix(".lock"), if_taken))
        except OSError as error:  # no reason for a run to fail
            logger.warning("The cache of embeddings is not used: %s", error)
            return compute(), None
        if (found := _load(path)) is not None:
            return found, path
        embeddings = compute()
        try:
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez(file, queries=embeddings[0], documents=embeddings[1], key=json.dumps(parts))
            _prune(folder, keep=path)
        except OSError as error:
            logger.warning("The embeddings are not kept: %s", error)
    return embeddings, None


def key_parts(
    model: SentenceTransformer, queries: Dataset, corpus: Dataset, batch_size: int, query_prompt_name: str | None
) -> dict[str, Any]:
    """Return everything that can change a bit of the embeddings, by name; it takes a second for some gigabytes.

    The model's weights in memory count, not where they come from. Its prompt of the given name comes before the
    queries; None: its own for queries.
    """
    return {
        "weights": _hash_weights(model),
        "modules": _digest(json.dumps(_modules(model), sort_keys=True, default=str).encode()),
        "processor": _hash_processors(model),
        "prompts": [model.prompts, model.default_prompt_name, query_prompt_name],
        "truncate_dim": model.truncate_dim,
        "queries": _hash_rows(queries),
        "corpus": _hash_rows(corpus),
        "batch_size": batch_size,  # sums of another shape may round differently
        "device": _device(model),
        "versions": {name: metadata.version(name) for name in _PACKAGES},
        "source": _hash_source(model),
    }


def _digest(*values: bytes) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(value).digest() for value in values)).hexdigest()


def _hash_weights(model: SentenceTransformer) -> str:
    """Return a hash of parameters and buffers, with their names, types and shapes."""
    import torch
    import xxhash

    digest = hashlib.sha256()
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + xxhash.xxh3_128_digest(data))
    return digest.hexdigest()


def _modules(model: SentenceTransformer) -> list[Any]:
    """Return what the modules are and how they are configured, attention included, without where they came from."""
    from sentence_transformers.base.modules import Module
    from transformers import PreTrainedModel

    facts: list[Any] = []
    for name, module in model.named_modules():
        facts.append([name, type(module).__qualname__, module.extra_repr()])
        if isinstance(module, Module):
            facts.append(_plain(module.get_config_dict()))
        if isinstance(module, PreTrainedModel):
            facts += [_plain(module.config.to_dict()), module.config._attn_implementation]
            facts.append(str(getattr(module, "peft_config", None)))  # the scale of an adapter is no weight
    return facts


def _plain(value: Any) -> Any:
    """Return what JSON takes (a Router's mappings have tuples as keys), without where it came from."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items() if key != "_name_or_path"}
    return value


def _hash_processors(model: SentenceTransformer) -> str:
    """Return a hash of the files that the processors would save: tokenizer, chat template, pixel bounds."""
    files: list[bytes] = []
    for module in model.modules():
        processor: Any = getattr(module, "processor", getattr(module, "tokenizer", None))  # the first has the second
        if not hasattr(processor, "save_pretrained"):
            continue
        with tempfile.TemporaryDirectory() as folder:
            processor.save_pretrained(folder)
            for path in sorted(Path(folder).rglob("*")):
                content = path.read_bytes() if path.is_file() else b""
                if path.name == "tokenizer.json":  # it remembers how the last call truncated and padded
                    content = json.dumps(json.loads(content) | {"truncation": None, "padding": None}).encode()
                files += [path.name.encode(), content]
    return _digest(*files)


def _hash_rows(dataset: Dataset) -> str:
    """Return a hash of ids and contents (of pages their encoded bytes), in order."""
    from experiments.data.encoded_pages import content_hashes

    return _digest(repr(dataset.features).encode(), content_hashes(dataset).tobytes())


def _device(model: SentenceTransformer) -> dict[str, Any]:
    """Return what computes: the kind of processor, and what decides how it rounds."""
    import torch
    from sentence_transformers.util.distributed import get_world_size

    return {
        "type": model.device.type,
        "name": torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else cpu(),
        "processes": get_world_size(),
        "threads": torch.get_num_threads(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "autocast": torch.is_autocast_enabled(model.device.type),
    }


def _hash_source(model: SentenceTransformer) -> str:
    """Return a hash of our rooms that embed and of the files that define the model's modules."""
    paths = set()
    for kind in {type(module) for module in model.modules()}:
        with suppress(TypeError, OSError):  # made at run time: no file
            paths.add(Path(inspect.getfile(kind)))
    return _digest(code_hash(*EMBEDS).encode(), *sorted(path.read_bytes() for path in paths))


def _load(path: Path) -> Embeddings | None:
    try:
        with path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)  # from a zip file, which checks the sums of what it holds
            found = arrays["queries"], arrays["documents"]
    except FileNotFoundError:
        return None
    except Exception as error:  # zipfile and NumPy raise a dozen kinds, by where the damage is
        logger.warning("%s is damaged (%s): computed again", path, error)
        return None
    with suppress(OSError):
        os.utime(path)  # used just now
    return found


def _prune(folder: Path, keep: Path) -> None:
    """Delete the entries used least recently beyond the limit, and what killed processes left."""
    entries = sorted(folder.glob("*.npz"), key=lambda path: (path == keep, path.stat().st_mtime), reverse=True)
    for path, size in zip(entries, accumulate(path.stat().st_size for path in entries), strict=True):
        if size > LIMIT_BYTES and path != keep:
            path.unlink(missing_ok=True)
    for path in folder.glob(".*.tmp"):
        if time.time() - path.stat().st_mtime > _LEFTOVER_S:
            path.unlink(missing_ok=True)
