"""A tiny Qwen3.5, built offline with random weights; `training/warm_starts.py` makes a reranker's backbone of it."""

from __future__ import annotations

from pathlib import Path

from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

from experiments.data.drawn import drawings
from experiments.models.tiny import qwen3vl
from experiments.models.tiny.cache import write_checkpoint

# Qwen3.5's own template refuses other roles than these: a reranker has to teach it two more.
KNOWN_ROLES = 'message.role == "user" or message.role == "system" or message.role == "assistant"'
CHAT_TEMPLATE = qwen3vl.CHAT_TEMPLATE.replace(
    "<|im_start|>{{ message.role }}", "{%- if " + KNOWN_ROLES + " -%}\n<|im_start|>{{ message.role }}"
).replace(
    "{% endfor -%}", "{% else -%}{{- raise_exception('Unexpected message role.') -}}{%- endif -%}\n{%- endfor -%}"
)
PROMPT_WORDS = """Given the image, judge whether the text matches it. Given the text, whether the image matches.
Respond with 1 if they match, 0 if they don't. yes no user assistant system query document"""


def build_qwen3_5(folder: Path, *, embedding_dim: int = 64, seed: int = 42) -> None:
    """Write a Qwen3.5 with random weights as the real one is published: a generative checkpoint with a processor.

    It has 0.4 M parameters at the default dimension; as in the real one, linear and full attention take turns.
    """
    words = [word for values in drawings.ATTRIBUTES.values() for word in values]
    tokenizer = qwen3vl.train_tokenizer(" ".join([*words, *drawings.WORDINGS, PROMPT_WORDS] * 4))
    text = qwen3vl.text_sizes(
        tokenizer,
        embedding_dim,
        **{"intermediate_size": min(2 * embedding_dim, qwen3vl.MOST_INTERMEDIATE), "tie_word_embeddings": True},
        **{"num_hidden_layers": 3, "layer_types": ["full_attention", "linear_attention", "full_attention"]},
        **{"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32},
        **{"linear_num_key_heads": 2, "linear_num_value_heads": 2},
        **{"linear_key_head_dim": 16, "linear_value_head_dim": 16},
        rope_parameters=qwen3vl.mrope(4, 2, 2, mrope_interleaved=True, partial_rotary_factor=0.5),
    )
    vision = {"hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "out_hidden_size": embedding_dim}
    config = qwen3vl.qwen_config(Qwen3_5Config, tokenizer, text, **vision, num_position_embeddings=64)
    processor = qwen3vl.qwen_processor(tokenizer, chat_template=CHAT_TEMPLATE)
    write_checkpoint(folder, Qwen3_5ForConditionalGeneration, config, processor, seed)
