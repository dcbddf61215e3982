"""What is trained of a model: all of it, all but frozen parts, or an adapter (PEFT) beside weights that stay."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentence_transformers.base.model import BaseModel

from experiments.config.errors import ConfigError
from experiments.config.hints import show
from experiments.config.model_files import no_part

if TYPE_CHECKING:
    from peft import PeftConfig

logger = logging.getLogger(__name__)


def add_peft(model: BaseModel, peft: PeftConfig | None) -> None:
    """Add an adapter to the transformer of an embedder or a reranker; from then on it alone is trained there.

    Modules after the transformer (a Dense that scores, for instance) are trained as before. An adapter that the model
    was saved with goes on being trained. Adapters are float32 whatever their base is: bfloat16 loses small updates.
    What is saved is the adapter, with the absolute path or the Hub name of the model that it belongs to.

    Raises:
        ConfigError: If it fits no module of the model, or the model has an adapter already.
    """
    backbone: Any = model.transformers_model
    has_adapter = getattr(backbone, "_hf_peft_config_loaded", False)
    if has_adapter and peft is not None:
        raise ConfigError("model.peft: this model has an adapter already, which is trained on; type model.peft=null")
    if peft is None and not has_adapter:
        return
    from peft.functional import cast_adapter_dtype, set_requires_grad

    if peft is not None:
        try:
            model.add_adapter(peft)
        except (TypeError, ValueError) as error:  # what PEFT raises where target_modules fit nothing
            raise ConfigError(f"model.peft: {error}") from error
    for name, config in backbone.peft_config.items():
        config.inference_mode = False  # PEFT takes one that was loaded for finished
        set_requires_grad(backbone, name, requires_grad=True)
        cast_adapter_dtype(backbone, name)  # PEFT itself does so only where it wraps the model
        if (base := Path(config.base_model_name_or_path)).exists():
            config.base_model_name_or_path = str(base.resolve())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    size = sum(parameter.numel() for parameter in model.parameters())
    logger.info("Adapter: %s of %s weights are trained", f"{trained:,}", f"{size:,}")


def freeze_parts(model: BaseModel, parts: Sequence[str]) -> None:
    """Keep parts of a model as they are: modules by their names, or by the last parts of them (`visual`, `text.0`).

    Raises:
        ConfigError: If there is no such module, or nothing is left to train.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    for part in parts:
        found = [module for name, module in modules.items() if f".{name}".endswith(f".{part}")]
        if not found:
            raise no_part(part, modules)
        for module in found:
            module.requires_grad_(False)
    if parts and not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"model.freeze={show(list(parts))} leaves nothing to train; leave out a part")


def merge_adapter(model: BaseModel) -> None:
    """Add the adapters to the weights that they belong to: a plain model, which needs neither PEFT nor its base."""
    backbone: Any = model.transformers_model
    if not getattr(backbone, "_hf_peft_config_loaded", False):
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in [*backbone.named_modules()]:
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
            parent, _, child = name.rpartition(".")
            setattr(backbone.get_submodule(parent), child, module.get_base_layer())
    del backbone.peft_config
    backbone._hf_peft_config_loaded = False
    backbone._weight_conversions = None  # those of the adapter's file, if it was loaded, would rename the weights
    backbone.requires_grad_(True)
    logger.info("Adapter merged into the model's weights")
