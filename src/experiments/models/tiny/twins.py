"""Tiny twins of the article's architectures: bare checkpoints with weights drawn from the seed, built offline.

Each function writes one into a folder of the cache, unless it is there, and returns that folder, which is loaded as a
checkpoint from the Hub would be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers as hf
from tokenizers.processors import TemplateProcessing

from experiments.models.tiny import qwen3vl
from experiments.models.tiny.cache import Built, built, write_checkpoint
from experiments.models.tiny.qwen3vl import INIT

DIM = 96
IMAGE_SIZE = 128  # of the models that resize every page to one size
PATCHES: dict[str, Any] = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
VIDEO_SIZE: Any = {"shortest_edge": 4096, "longest_edge": 65536}  # pixels; the usual enlarge a small clip tenfold
WINDOWS: dict[str, Any] = {"window_size": 56, "fullatt_block_indexes": [1]}
OMNI_TOKENS = {
    **{"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>", "im_start": "<|im_start|>"},
    **{"vision_bos_token": "<|vision_bos|>", "vision_eos_token": "<|vision_eos|>", "image_token": "<|IMAGE|>"},
    **{"video_token": "<|VIDEO|>", "audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>"},
    "audio_token": "<|AUDIO|>",
}
OMNI_TEMPLATE = """{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string -%}{{ message.content }}{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}<|vision_bos|><|IMAGE|><|vision_eos|>
{%- elif part.type == 'video' -%}<|vision_bos|><|VIDEO|><|vision_eos|>
{%- elif part.type == 'audio' -%}<|audio_bos|><|AUDIO|><|audio_eos|>
{%- elif 'text' in part -%}{{ part.text }}{%- endif -%}
{%- endfor -%}{%- endif -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""


def qwen3vl_instruct(seed: int = 42, cache_dir: str = "outputs/.cache") -> str:
    """A Qwen3-VL that writes text and was never trained to embed."""
    return _saved("qwen3vl-instruct", seed, cache_dir, _qwen3vl)


def qwen2vl(seed: int = 42, cache_dir: str = "outputs/.cache") -> str:
    """The architecture of vdr-2b."""
    return _saved("qwen2vl", seed, cache_dir, _qwen2vl)


def qwen25vl(seed: int = 42, cache_dir: str = "outputs/.cache") -> str:
    """The architecture of nomic-embed-multimodal."""
    return _saved("qwen25vl", seed, cache_dir, _qwen25vl)


def qwen25omni(seed: int = 42, cache_dir: str = "outputs/.cache") -> str:
    """The architecture of LCO-Embedding: the part of Qwen2.5-Omni that reads text, images, video and audio."""
    return _saved("qwen25omni", seed, cache_dir, _qwen25omni)


def llava_next(seed: int = 42, cache_dir: str = "outputs/.cache") -> str:
    """The architecture of E5-V and BGE-VL-MLLM."""
    return _saved("llava-next", seed, cache_dir, _llava_next)


def clip(seed: int = 42, cache_dir: str = "outputs/.cache") -> str:
    """The architecture of clip-ViT-L-14 and BGE-VL-base."""
    return _saved("clip", seed, cache_dir, _clip)


def siglip(seed: int = 42, cache_dir: str = "outputs/.cache") -> str:
    """The architecture of the Router's image encoder (SigLIP2 at one size is a SigLIP)."""
    return _saved("siglip", seed, cache_dir, _siglip)


def _saved(name: str, seed: int, cache_dir: str, make: Callable[[], Built]) -> str:
    with built(lambda folder: write_checkpoint(folder, make, seed), f"{name}-tiny", seed, cache_dir) as folder:
        return str(folder)


def _text(tokenizer: Any, dim: int, **more: Any) -> dict[str, Any]:
    """Return the sizes of a language model of two layers, in heads of 32."""
    sizes = {"hidden_size": dim, "intermediate_size": min(3 * dim, qwen3vl.MOST_INTERMEDIATE), "num_hidden_layers": 2}
    heads = dim // 32
    few = next(number for number in range(qwen3vl.MOST_HEADS, 0, -1) if heads % number == 0)
    sizes |= {"num_attention_heads": heads, "num_key_value_heads": few}
    ids = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return INIT | sizes | ids | {"max_position_embeddings": 4096} | more


def _mrope() -> dict[str, Any]:
    # Sums to half a head of 32: time, height, width.
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}


def _ids(tokenizer: Any) -> dict[str, Any]:
    vocabulary = tokenizer.get_vocab()
    names = {"image_token": "image", "video_token": "video", "vision_start_token": "vision_start"}
    names["vision_end_token"] = "vision_end"
    return {f"{name}_token_id": vocabulary[qwen3vl.SPECIAL_TOKENS[key]] for key, name in names.items()}


def _qwen3vl(dim: int = DIM) -> Built:
    tokenizer = qwen3vl.train_tokenizer()
    model = hf.Qwen3VLForConditionalGeneration(qwen3vl.qwen3vl_config(tokenizer, dim))
    processor = qwen3vl.qwen3vl_processor(tokenizer)
    processor.video_processor.size = type(processor.video_processor.size)(**VIDEO_SIZE)
    return model, processor


def _qwen_vision(patch_size: int = 14, **more: Any) -> dict[str, Any]:
    return INIT | {"depth": 2, "num_heads": 4, "patch_size": patch_size} | more


def _qwen2vl_processor(processor: Any, tokenizer: Any) -> hf.ProcessorMixin:
    return processor(
        image_processor=hf.Qwen2VLImageProcessor(**PATCHES),
        tokenizer=tokenizer,
        video_processor=hf.Qwen2VLVideoProcessor(**PATCHES, size=VIDEO_SIZE),
        chat_template=qwen3vl.CHAT_TEMPLATE,
    )


def _qwen2vl(dim: int = DIM) -> Built:
    tokenizer = qwen3vl.train_tokenizer()
    vision = _qwen_vision(embed_dim=64, hidden_size=dim, mlp_ratio=2)
    config = hf.Qwen2VLConfig(
        text_config=_text(tokenizer, dim, rope_parameters=_mrope()),
        vision_config=vision,
        tie_word_embeddings=True,
        **_ids(tokenizer),
    )
    return hf.Qwen2VLForConditionalGeneration(config), _qwen2vl_processor(hf.Qwen2VLProcessor, tokenizer)


def _qwen25vl(dim: int = DIM) -> Built:
    tokenizer = qwen3vl.train_tokenizer()
    vision = _qwen_vision(hidden_size=64, intermediate_size=128, out_hidden_size=dim, **WINDOWS)
    config = hf.Qwen2_5_VLConfig(
        text_config=_text(tokenizer, dim, rope_parameters=_mrope()),
        vision_config=vision,
        tie_word_embeddings=True,
        **_ids(tokenizer),
    )
    return hf.Qwen2_5_VLForConditionalGeneration(config), _qwen2vl_processor(hf.Qwen2_5_VLProcessor, tokenizer)


def _qwen25omni(dim: int = DIM) -> Built:
    tokenizer = qwen3vl.train_tokenizer(special_tokens=OMNI_TOKENS)
    vocabulary = tokenizer.get_vocab()
    config = hf.Qwen2_5OmniThinkerConfig(
        text_config=_text(tokenizer, dim, rope_parameters=_mrope()),
        vision_config=_qwen_vision(hidden_size=64, intermediate_size=128, out_hidden_size=dim, **WINDOWS),
        audio_config=INIT
        | {"num_mel_bins": 80, "d_model": 64, "encoder_layers": 2, "encoder_attention_heads": 4}
        | {"encoder_ffn_dim": 128, "output_dim": dim, "max_source_positions": 200},
        audio_token_index=vocabulary["<|AUDIO|>"],
        image_token_index=vocabulary["<|IMAGE|>"],
        video_token_index=vocabulary["<|VIDEO|>"],
        audio_start_token_id=vocabulary["<|audio_bos|>"],
        audio_end_token_id=vocabulary["<|audio_eos|>"],
        user_token_id=vocabulary["<|im_start|>"],
        tie_word_embeddings=True,
        **INIT,
    )
    config.vision_start_token_id = vocabulary["<|vision_bos|>"]  # read by the model, no field of the class
    processor = hf.Qwen2_5OmniProcessor(
        image_processor=hf.Qwen2VLImageProcessor(**PATCHES),
        video_processor=hf.Qwen2VLVideoProcessor(**PATCHES, size=VIDEO_SIZE),
        feature_extractor=hf.WhisperFeatureExtractor(feature_size=80, chunk_length=4),  # seconds at most
        tokenizer=tokenizer,
        chat_template=OMNI_TEMPLATE,
    )
    return hf.Qwen2_5OmniThinkerForConditionalGeneration(config), processor


def _llava_next(dim: int = DIM) -> Built:
    tokenizer = qwen3vl.train_tokenizer()
    size, grid = 56, [[56, 112], [112, 56], [112, 112]]
    vision = INIT | {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
    vision |= {"image_size": size, "patch_size": 14, "projection_dim": 64}
    config = hf.LlavaNextConfig(
        text_config=hf.MistralConfig(**_text(tokenizer, dim, sliding_window=None)),
        vision_config=hf.CLIPVisionConfig(**vision),
        image_token_index=tokenizer.get_vocab()[qwen3vl.SPECIAL_TOKENS["image_token"]],
        image_grid_pinpoints=grid,
        image_seq_length=(size // 14) ** 2,
        tie_word_embeddings=True,
    )
    processor = hf.LlavaNextProcessor(
        image_processor=hf.LlavaNextImageProcessor(
            size={"shortest_edge": size}, crop_size={"height": size, "width": size}, image_grid_pinpoints=grid
        ),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        image_token=qwen3vl.SPECIAL_TOKENS["image_token"],
        num_additional_image_tokens=1,
        chat_template=qwen3vl.CHAT_TEMPLATE,
    )
    return hf.LlavaNextForConditionalGeneration(config), processor


def _contrastive(dim: int, max_length: int) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Return the tokenizer, which ends each text with a token to pool at, and the sizes of both towers."""
    tokenizer = qwen3vl.train_tokenizer()
    tokenizer.model_max_length = max_length
    end = (tokenizer.eos_token, tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"$A {end[0]}", special_tokens=[end])
    text = _text(tokenizer, dim, max_position_embeddings=max_length, num_attention_heads=4)
    text.pop("num_key_value_heads")
    vision = {
        "hidden_size": dim,
        "intermediate_size": min(2 * dim, qwen3vl.MOST_INTERMEDIATE),
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    return tokenizer, text, INIT | vision | {"image_size": IMAGE_SIZE, "patch_size": 16}


def _clip(dim: int = DIM) -> Built:
    tokenizer, text, vision = _contrastive(dim, max_length=128)
    projection: dict[str, Any] = {"projection_dim": dim}
    config = hf.CLIPConfig(text_config=text | projection, vision_config=vision | projection, **projection)
    image_processor = hf.CLIPImageProcessor(
        size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    )
    return hf.CLIPModel(config), hf.CLIPProcessor(image_processor=image_processor, tokenizer=tokenizer)


def _siglip(dim: int = DIM) -> Built:
    tokenizer, text, vision = _contrastive(dim, max_length=64)
    config = hf.SiglipConfig(text_config=text | {"projection_size": dim}, vision_config=vision)
    image_processor = hf.SiglipImageProcessor(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
    return hf.SiglipModel(config), hf.SiglipProcessor(image_processor=image_processor, tokenizer=tokenizer)


# By name: takes the hidden size of the text (the embeddings' dimension, a multiple of 32), draws the weights from
# torch's random state, and returns the model and its processor.
ARCHITECTURES: dict[str, Callable[[int], Built]] = {
    **{"qwen3vl": _qwen3vl, "qwen2vl": _qwen2vl, "qwen25vl": _qwen25vl, "qwen25omni": _qwen25omni},
    **{"llava_next": _llava_next, "clip": _clip, "siglip": _siglip},
}
