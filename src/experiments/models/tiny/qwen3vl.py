"""A tiny Qwen3-VL, built offline, and the tokenizer, processor and sizes that the other twins share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers as hf
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from experiments.models.tiny.cache import write_checkpoint

PAD, END, START = "<|endoftext|>", "<|im_end|>", "<|im_start|>"
MEDIA_TOKENS = {
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
}

# The usual 0.02 suits layers of a thousand; in layers of a hundred the signal would start near nothing.
INIT: dict[str, Any] = {"initializer_range": 0.06}

# Of a layer, so that a twin with the real model's dimension stays small.
MOST_HEADS, MOST_INTERMEDIATE = 3, 288

# The turns of a conversation as Qwen writes them; MEDIA stands for the parts that are no text.
TURNS = """{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string -%}{{ message.content }}{%- else -%}
{%- for part in message.content -%}
MEDIA
{%- elif 'text' in part -%}{{ part.text }}{%- endif -%}
{%- endfor -%}{%- endif -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""
CHAT_TEMPLATE = TURNS.replace(
    "MEDIA",
    """{%- if part.type == 'image' or 'image' in part -%}<|vision_start|><|image_pad|><|vision_end|>
{%- elif part.type == 'video' or 'video' in part -%}<|vision_start|><|video_pad|><|vision_end|>""",
)

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


def train_tokenizer(text: str = TOKENIZER_TEXT, media: dict[str, str] = MEDIA_TOKENS) -> hf.PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer: every string is representable, and the same text gives the same merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special, alphabet = [PAD, END, START, *media.values()], pre_tokenizers.ByteLevel.alphabet()
    bpe = trainers.BpeTrainer(vocab_size=768, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator((" " + word for word in text.split()), bpe)
    named: dict[str, Any] = {"pad_token": PAD, "eos_token": END, "extra_special_tokens": media}
    return hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named, model_max_length=4096)


def text_sizes(tokenizer: Any, dim: int, **more: Any) -> dict[str, Any]:
    """Return what the twins' language models have in common, and `more`."""
    ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "max_position_embeddings": 4096}
    sizes = {"hidden_size": dim, "intermediate_size": min(3 * dim, MOST_INTERMEDIATE), "num_hidden_layers": 2}
    return INIT | ids | sizes | more


def mrope(*section: int, **more: Any) -> dict[str, Any]:
    """Return rotary positions of time, height and width; their sections sum to half of the rotated part of a head."""
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [*section]} | more


def qwen_config(kind: Any, tokenizer: Any, text: dict[str, Any], **vision: Any) -> Any:
    """Return the config of a Qwen that sees: its language model, and two layers of a vision model."""
    vocabulary = tokenizer.get_vocab()
    ids = {f"{name}_id": vocabulary[token] for name, token in MEDIA_TOKENS.items()}
    return kind(text_config=text, vision_config=INIT | {"depth": 2} | vision, tie_word_embeddings=True, **ids)


def qwen_processor(
    tokenizer: Any,
    kind: Any = hf.Qwen3VLProcessor,
    videos: Any = hf.Qwen3VLVideoProcessor,
    patch_size: int = 16,
    **more: Any,
) -> Any:
    """Return the processor of a Qwen that sees: it merges patches two by two."""
    patches: dict[str, Any] = {"patch_size": patch_size, "merge_size": 2, "temporal_patch_size": 2}
    parts = {"image_processor": hf.Qwen2VLImageProcessor(**patches), "video_processor": videos(**patches)}
    return kind(**parts, tokenizer=tokenizer, **({"chat_template": CHAT_TEMPLATE} | more))


def qwen3vl_config(tokenizer: Any, embedding_dim: int) -> hf.Qwen3VLConfig:
    """Return a Qwen3-VL of 1.4 M parameters at the default dimension (96): 2 vision and 2 text layers."""
    num_heads = max(1, min(embedding_dim // 32, MOST_HEADS))
    heads = {"num_attention_heads": num_heads, "num_key_value_heads": num_heads, "head_dim": 32}
    text = text_sizes(tokenizer, embedding_dim, **heads, rope_parameters=mrope(6, 5, 5, mrope_interleaved=True))
    vision = {"hidden_size": 128, "intermediate_size": 256, "num_heads": 4, "out_hidden_size": embedding_dim}
    places: dict[str, Any] = {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    return qwen_config(hf.Qwen3VLConfig, tokenizer, text, **vision, **places)


def build_qwen3vl(folder: Path, *, embedding_dim: int, seed: int) -> None:
    """Write a Qwen3-VL embedder with random weights: last-token pooling and unit length, as the real one."""
    tokenizer = train_tokenizer()
    config = qwen3vl_config(tokenizer, embedding_dim)
    backbone_folder = folder.with_name(folder.name + ".backbone")
    write_checkpoint(backbone_folder, hf.Qwen3VLModel, config, qwen_processor(tokenizer), seed)
    modules = [Transformer(str(backbone_folder)), Pooling(embedding_dim, pooling_mode="lasttoken"), Normalize()]
    SentenceTransformer(modules=modules).save_pretrained(str(folder))
