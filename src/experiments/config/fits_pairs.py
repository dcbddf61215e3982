"""Whether captioned images fit the model and the loss: labelled pairs, or rows without labels."""

from __future__ import annotations

from typing import Any

from experiments.config.errors import ConfigError
from experiments.config.hints import select

_LOSSES_OF_LISTS = {  # the library's losses for rerankers that labelled pairs don't fit, and what they need
    **dict.fromkeys(
        ("ADRMSELoss", "LambdaLoss", "ListMLELoss", "ListNetLoss", "PListMLELoss", "RankNetLoss"),
        "a list of documents and of labels for each query",
    ),
    "MarginMSELoss": "scores of a teacher",
    "CrossEntropyLoss": "classes",
}
_LOSSES_IN_BATCH = ("MultipleNegativesRankingLoss", "CachedMultipleNegativesRankingLoss")


def are_pairs(data: dict[str, Any]) -> bool:
    """Return whether a source yields captioned images, in both directions."""
    return data["_target_"] in ("experiments.data.sources.doodles.load", "experiments.data.drawn.drawings.load")


def are_labelled(data: dict[str, Any]) -> bool:
    """Return whether a source yields labelled pairs of query and document, for rerankers."""
    return are_pairs(data) and data.get("labelled", True)


def check(config: dict[str, Any], model: str) -> None:
    """Refuse data that don't fit the kind of model, and a loss that doesn't fit the data.

    Args:
        config: The resolved config.
        model: The kind of model: `reranker`, `embedding` or another.

    Raises:
        ConfigError: At the first misfit.
    """
    data = config.get("data", {})
    if not str(data.get("_target_")).startswith("experiments.data."):
        return
    source = data["_target_"].rpartition(".")[0].rpartition(".")[2]
    if model == "reranker":
        _check_for_reranker(source, data, _name(config.get("loss", {})))
        return
    if are_labelled(data):
        raise ConfigError(
            f"data={source} gives labelled pairs, for rerankers, and the model ({model}) needs rows without labels: "
            "type data=doodles_pairs or data=drawings_pairs"
        )
    if are_pairs(data) and select(config, "loss.gather_across_devices"):
        raise ConfigError(
            "loss.gather_across_devices=true: the processes of a step may hold different directions; "
            "type loss.gather_across_devices=false"
        )


def _check_for_reranker(source: str, data: dict[str, Any], loss: str) -> None:
    if not are_pairs(data):
        raise ConfigError(
            f"data={source} doesn't fit the model (reranker), which needs labelled pairs: "
            "type data=drawings or data=doodles"
        )
    if not are_labelled(data) and loss and loss not in _LOSSES_IN_BATCH:
        raise ConfigError(
            f"data={source} without labels: {loss} needs labelled pairs; type data=doodles or data=drawings, "
            "or loss=reranker_mnrl"
        )


def check_loss(loss: dict[str, Any], data: dict[str, Any]) -> None:
    """Refuse a loss for rerankers that can't take labelled pairs of a query and a document.

    Raises:
        ConfigError: It says what to type instead.
    """
    name, num_negatives = _name(loss), int(data.get("num_negatives") or 0)
    if name in _LOSSES_OF_LISTS:
        raise ConfigError(f"loss: {name} needs {_LOSSES_OF_LISTS[name]}, data gives labelled pairs; type loss=bce")
    if name in _LOSSES_IN_BATCH and num_negatives:
        raise ConfigError(
            f"loss: {name} takes its negatives from the batch, data labels {num_negatives} for each query; "
            "type data.num_negatives=0"
        )
    if name == "BinaryCrossEntropyLoss" and not num_negatives:
        raise ConfigError(
            "data.num_negatives=0: without pairs that don't match binary cross entropy learns to say yes; "
            "type data.num_negatives=4"
        )


def _name(loss: dict[str, Any]) -> str:
    return str(loss.get("_target_") or "").rpartition(".")[2]
