"""Bounds and choices of config keys that no annotation tells."""

from __future__ import annotations

from typing import Any

_AT_LEAST_1 = (
    *(f"model.{key}" for key in ("embedding_dim", "min_pixels", "max_pixels")),
    "evaluator.num_candidates",
    *(f"loss.{key}" for key in ("mini_batch_size", "mini_batch_num_tokens", "default_num_tokens", "score_chunk_size")),
    *(f"trainer.{key}" for key in ("per_device_train_batch_size", "per_device_eval_batch_size", "save_total_limit")),
    *("trainer.gradient_accumulation_steps", "evaluator.batch_size", "data.num_train_rows", "data.num_eval_rows"),
)
_AT_LEAST_0 = (
    *(
        "seed",
        "data.seed",
        "data.path.seed",
        "data.num_negatives",
        "data.num_eval_negatives",
        "evaluator.seed",
        "evaluator.num_workers",
        "evaluator.num_bootstrap",
    ),
    *(f"trainer.{key}" for key in ("seed", "warmup_steps", "weight_decay", "max_grad_norm", "dataloader_num_workers")),
)
_ABOVE_0 = (
    *("loss.scale", "loss.pos_weight", "trainer.learning_rate", "trainer.num_train_epochs"),
    *("trainer.eval_steps", "trainer.save_steps", "trainer.logging_steps"),
)

BOUNDS = (
    *((key, 1, "at least") for key in _AT_LEAST_1),
    *((key, 0, "at least") for key in _AT_LEAST_0),
    *((key, 0, "above") for key in _ABOVE_0),
)
STEPS_OR_SHARES = tuple(f"trainer.{key}" for key in ("eval_steps", "save_steps", "logging_steps", "warmup_steps"))
CHOICES: dict[str, tuple[Any, ...]] = {
    "model.pooling": ("mean", "lasttoken", "cls", "max", "mean_sqrt_len_tokens", "weightedmean"),
    "model.attn_implementation": ("auto", "flash_attention_2", "sdpa", "eager"),
    "model.dtype": ("auto", "float32", "bfloat16", "float16"),
    "data.on_bad_image": ("error", "skip"),
    "trainer.bf16": ("auto", True, False),
    "trainer.batch_sampler": (
        *("no_duplicates_by_bytes", "no_duplicates", "no_duplicates_hashed"),
        *("batch_sampler", "group_by_label"),
    ),
    "trainer.multi_dataset_batch_sampler": ("proportional", "round_robin"),
    "trainer.eval_strategy": ("no", "steps", "epoch"),
    "trainer.save_strategy": ("no", "steps", "epoch", "best"),
    "trainer.logging_strategy": ("no", "steps", "epoch"),
    "evaluator.precisions": ("float32", "int8", "binary"),
    "loss.directions": ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"),
    "loss.partition_mode": ("joint", "per_direction"),
    "loss.hardness_mode": ("in_batch_negatives", "hard_negatives", "all_negatives"),
}
