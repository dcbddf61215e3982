"""A tiny Qwen3-VL, built offline, and the tokenizer, processor and sizes that the other twins share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLModel,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from experiments.models.tiny.cache import write_checkpoint

SPECIAL_TOKENS = {
    "pad_token": "<|endoftext|>",
    "eos_token": "<|im_end|>",
    "im_start": "<|im_start|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
}

# The usual 0.02 suits layers of a thousand; in layers of a hundred the signal would start near nothing.
INIT: dict[str, Any] = {"initializer_range": 0.06}

# Of a layer, so that a twin with the real model's dimension stays small.
MOST_HEADS, MOST_INTERMEDIATE = 3, 288

# The turns of a conversation as Qwen3-VL writes them.
CHAT_TEMPLATE = """{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string -%}{{ message.content }}{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' or 'image' in part -%}<|vision_start|><|image_pad|><|vision_end|>
{%- elif part.type == 'video' or 'video' in part -%}<|vision_start|><|video_pad|><|vision_end|>
{%- elif 'text' in part -%}{{ part.text }}{%- endif -%}
{%- endfor -%}{%- endif -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""

# What the byte-level BPE learns its merges from: the words of report pages. Any other text costs more tokens only.
TOKENIZER_TEXT = """
the a an of in on at for with and to by from is are was which where what find show me page report chart figure
table bar line pie scatter area donut column text block blocks header footer title layout left right top
bottom middle revenue profit cost costs sales orders growth market share quarter quarterly annual year month
first second third fourth red blue green orange purple teal grey black yellow brown pink dark light colour
rising falling flat rise fall rises falls north south east west region company division department energy
health retail finance transport software summary results highest lowest increase decrease trend trends two
three four five six columns rows values value data document with document
"""


def train_tokenizer(
    text: str = TOKENIZER_TEXT, vocab_size: int = 768, special_tokens: dict[str, str] = SPECIAL_TOKENS
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer: every string is representable, and the same text gives the same merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((" " + line for line in text.split()), trainer)
    extra = {key: token for key, token in special_tokens.items() if key not in ("pad_token", "eos_token", "im_start")}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=special_tokens["pad_token"],
        eos_token=special_tokens["eos_token"],
        extra_special_tokens=extra,
        model_max_length=4096,
    )


def qwen3vl_config(tokenizer: PreTrainedTokenizerFast, embedding_dim: int) -> Qwen3VLConfig:
    """Return a Qwen3-VL of 1.4 M parameters at the default dimension (96): 2 vision and 2 text layers."""
    head_dim = 32
    num_heads = max(1, min(embedding_dim // head_dim, MOST_HEADS))
    vocabulary = tokenizer.get_vocab()
    ids = {key: vocabulary[token] for key, token in SPECIAL_TOKENS.items()}
    return Qwen3VLConfig(
        text_config=INIT
        | {
            "vocab_size": len(tokenizer),
            "hidden_size": embedding_dim,
            "intermediate_size": min(3 * embedding_dim, MOST_INTERMEDIATE),
            "num_hidden_layers": 2,
            "num_attention_heads": num_heads,
            "num_key_value_heads": num_heads,
            "head_dim": head_dim,
            "max_position_embeddings": 4096,
            "pad_token_id": ids["pad_token"],
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [6, 5, 5],  # sums to half a head: time, height, width
                "mrope_interleaved": True,
            },
        },
        vision_config=INIT
        | {
            "depth": 2,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_heads": 4,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": embedding_dim,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=ids["image_token"],
        video_token_id=ids["video_token"],
        vision_start_token_id=ids["vision_start_token"],
        vision_end_token_id=ids["vision_end_token"],
        tie_word_embeddings=True,
    )


def qwen3vl_processor(tokenizer: PreTrainedTokenizerFast, chat_template: str | None = None) -> Qwen3VLProcessor:
    """Return the processor of a Qwen3-VL: 16-pixel patches, merged two by two."""
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=16, merge_size=2, temporal_patch_size=2),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(patch_size=16, merge_size=2, temporal_patch_size=2),
        chat_template=chat_template or CHAT_TEMPLATE,
    )


def build_qwen3vl(folder: Path, *, embedding_dim: int, seed: int) -> None:
    """Write a Qwen3-VL embedder with random weights: last-token pooling and unit length, as the real one."""
    tokenizer = train_tokenizer()
    config = qwen3vl_config(tokenizer, embedding_dim)
    backbone_folder = folder.with_name(folder.name + ".backbone")
    write_checkpoint(backbone_folder, lambda: (Qwen3VLModel(config), qwen3vl_processor(tokenizer)), seed)
    transformer = Transformer(str(backbone_folder))
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="lasttoken")
    SentenceTransformer(modules=[transformer, pooling, Normalize()]).save_pretrained(str(folder))
