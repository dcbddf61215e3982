"""A tiny Qwen3.5, built offline with random weights; `training/warm_starts.py` makes a reranker's backbone of it."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerFast, Qwen3_5Config, Qwen3_5ForConditionalGeneration

from experiments.data.drawn import drawings
from experiments.models.tiny.cache import write_checkpoint
from experiments.models.tiny.qwen3vl import INIT, MOST_INTERMEDIATE, SPECIAL_TOKENS, qwen3vl_processor, train_tokenizer

# The roles that Qwen3.5's own template knows: a reranker has to teach it two more.
CHAT_TEMPLATE = """{%- for message in messages -%}
{%- if message.role == "user" or message.role == "system" or message.role == "assistant" -%}
<|im_start|>{{ message.role }}
{% if message.content is string -%}{{ message.content }}{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' or 'image' in part -%}<|vision_start|><|image_pad|><|vision_end|>
{%- elif part.type == 'video' or 'video' in part -%}<|vision_start|><|video_pad|><|vision_end|>
{%- elif 'text' in part -%}{{ part.text }}{%- endif -%}
{%- endfor -%}{%- endif -%}<|im_end|>
{% else -%}{{- raise_exception('Unexpected message role.') -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""
_PROMPT_WORDS = """Given the image, judge whether the text matches it. Given the text, whether the image matches.
Respond with 1 if they match, 0 if they don't. yes no user assistant system query document"""


def tokenizer_text() -> str:
    """Return what the tokenizer learns its merges from: the captions' words and the prompts'."""
    words = [word for values in drawings.ATTRIBUTES.values() for word in values]
    return " ".join([*words, *drawings.WORDINGS, _PROMPT_WORDS] * 4)


def qwen3_5_config(tokenizer: PreTrainedTokenizerFast, embedding_dim: int) -> Qwen3_5Config:
    """Return a Qwen3.5 of 0.4 M parameters: as the real one, linear and full attention take turns."""
    vocabulary = tokenizer.get_vocab()
    ids = {key: vocabulary[token] for key, token in SPECIAL_TOKENS.items()}
    return Qwen3_5Config(
        text_config=INIT
        | {
            "vocab_size": len(tokenizer),
            "hidden_size": embedding_dim,
            "intermediate_size": min(2 * embedding_dim, MOST_INTERMEDIATE),
            "num_hidden_layers": 3,
            "layer_types": ["full_attention", "linear_attention", "full_attention"],
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 2,
            "max_position_embeddings": 4096,
            "pad_token_id": ids["pad_token"],
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.5,
                "mrope_section": [4, 2, 2],  # sums to half of the rotated part of a head: time, height, width
                "mrope_interleaved": True,
            },
        },
        vision_config=INIT
        | {
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": embedding_dim,
            "num_position_embeddings": 64,
        },
        image_token_id=ids["image_token"],
        video_token_id=ids["video_token"],
        vision_start_token_id=ids["vision_start_token"],
        vision_end_token_id=ids["vision_end_token"],
        tie_word_embeddings=True,
    )


def build_qwen3_5(folder: Path, *, embedding_dim: int = 64, seed: int = 42) -> None:
    """Write a Qwen3.5 with random weights as the real one is published: a generative checkpoint with a processor."""
    tokenizer = train_tokenizer(tokenizer_text())
    processor = qwen3vl_processor(tokenizer, CHAT_TEMPLATE)
    config = qwen3_5_config(tokenizer, embedding_dim)
    write_checkpoint(folder, lambda: (Qwen3_5ForConditionalGeneration(config), processor), seed)
