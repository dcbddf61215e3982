"""Where the bounds and choices of an option stand.

Those of our constructors: in the annotation of the argument (`size: Annotated[int, Ge(1)]`), several by a name from
here. Those of a library's constructors: in `OF_LIBRARIES`. Those that other groups decide: in `fits.py`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt

Positive = Annotated[int, Ge(1)]
NotNegative = Annotated[int, Ge(0)]
AboveZero = Annotated[float, Gt(0)]
OnBadImage = Literal["error", "skip"]
FileOrText = Literal["auto", "file", "text"]
Precision = Literal["float32", "int8", "binary"]

_SHARE = "Annotated[float, Ge(0)]"
_STEPS = "Annotated[float, Gt(0)]"
_WHEN = "Literal['no', 'steps', 'epoch']"
# Of keys that constructors of the libraries take, as an annotation would have it.
OF_LIBRARIES = {
    "seed": "Annotated[int, Ge(0)]",
    "trainer.seed": "Annotated[int, Ge(0)]",
    "trainer.ddp_timeout": "Annotated[int, Ge(1)]",
    "trainer.dataloader_num_workers": "Annotated[int, Ge(0)]",
    "trainer.per_device_train_batch_size": "Annotated[int, Ge(1)]",
    "trainer.per_device_eval_batch_size": "Annotated[int, Ge(1)]",
    "trainer.gradient_accumulation_steps": "Annotated[int, Ge(1)]",
    "trainer.save_total_limit": "Annotated[int, Ge(1)]",
    "trainer.learning_rate": "Annotated[float, Gt(0)]",
    "trainer.num_train_epochs": "Annotated[float, Gt(0)]",
    "trainer.weight_decay": _SHARE,
    "trainer.max_grad_norm": _SHARE,
    "trainer.warmup_steps": _SHARE,
    "trainer.eval_steps": _STEPS,
    "trainer.save_steps": _STEPS,
    "trainer.logging_steps": _STEPS,
    "trainer.eval_strategy": _WHEN,
    "trainer.logging_strategy": _WHEN,
    "trainer.save_strategy": "Literal['no', 'steps', 'epoch', 'best']",
    "trainer.multi_dataset_batch_sampler": "Literal['proportional', 'round_robin']",
    "loss.scale": "Annotated[float, Gt(0)]",
    "loss.mini_batch_size": "Annotated[int, Ge(1)] | Literal['auto']",
    "loss.mini_batch_num_tokens": "Annotated[int, Ge(1)]",
    "loss.directions": "list[Literal['query_to_doc', 'query_to_query', 'doc_to_query', 'doc_to_doc']]",
    "loss.partition_mode": "Literal['joint', 'per_direction']",
    "loss.hardness_mode": "Literal['in_batch_negatives', 'hard_negatives', 'all_negatives']",
}
STEPS_OR_SHARES = tuple(f"trainer.{key}" for key in ("eval_steps", "save_steps", "logging_steps", "warmup_steps"))
