"""Tiny twins of the article's architectures: bare checkpoints with weights drawn from the seed, built offline.

Each function writes one into a folder of the cache, unless it is there, and returns that folder, which is loaded as a
checkpoint from the Hub would be. `embedding_dim` is the hidden size of the text, a multiple of 32.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import transformers as hf
from tokenizers.processors import TemplateProcessing

from experiments.config.bounds import Positive
from experiments.models.tiny import qwen3vl
from experiments.models.tiny.cache import built, write_checkpoint
from experiments.models.tiny.qwen3vl import INIT

CACHE, DIM = "outputs/.cache", 96
IMAGE_SIZE = 128  # of the models that resize every page to one size
VIDEO_SIZE: Any = {"shortest_edge": 4096, "longest_edge": 65536}  # pixels; the usual enlarge a small clip tenfold
QWEN2_TEXT = {"rope_parameters": qwen3vl.mrope(4, 6, 6)}
QWEN2_VISION: dict[str, Any] = {"num_heads": 4, "patch_size": 14}
OMNI_TOKENS = {
    **{"vision_bos_token": "<|vision_bos|>", "vision_eos_token": "<|vision_eos|>", "image_token": "<|IMAGE|>"},
    **{"video_token": "<|VIDEO|>", "audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>"},
    "audio_token": "<|AUDIO|>",
}
OMNI_TEMPLATE = qwen3vl.TURNS.replace(
    "MEDIA",
    """{%- if part.type == 'image' -%}<|vision_bos|><|IMAGE|><|vision_eos|>
{%- elif part.type == 'video' -%}<|vision_bos|><|VIDEO|><|vision_eos|>
{%- elif part.type == 'audio' -%}<|audio_bos|><|AUDIO|><|audio_eos|>""",
)


def qwen3vl_instruct(seed: int = 42, cache_dir: str = CACHE, embedding_dim: Positive = DIM) -> str:
    """A Qwen3-VL that writes text and was never trained to embed."""
    tokenizer = qwen3vl.train_tokenizer()
    config = qwen3vl.qwen3vl_config(tokenizer, embedding_dim)
    processor = qwen3vl.qwen_processor(tokenizer, videos=partial(hf.Qwen3VLVideoProcessor, size=VIDEO_SIZE))
    return _saved("qwen3vl-instruct", hf.Qwen3VLForConditionalGeneration, config, processor, seed, cache_dir)


def qwen2vl(seed: int = 42, cache_dir: str = CACHE, embedding_dim: Positive = DIM) -> str:
    """The architecture of vdr-2b."""
    tokenizer = qwen3vl.train_tokenizer()
    text, vision = _text(tokenizer, embedding_dim, **QWEN2_TEXT), {"embed_dim": 64, "hidden_size": embedding_dim}
    config = qwen3vl.qwen_config(hf.Qwen2VLConfig, tokenizer, text, **QWEN2_VISION, **vision, mlp_ratio=2)
    processor = _qwen2_processor(hf.Qwen2VLProcessor, tokenizer)
    return _saved("qwen2vl", hf.Qwen2VLForConditionalGeneration, config, processor, seed, cache_dir)


def qwen25vl(seed: int = 42, cache_dir: str = CACHE, embedding_dim: Positive = DIM) -> str:
    """The architecture of nomic-embed-multimodal."""
    tokenizer = qwen3vl.train_tokenizer()
    text, vision = _text(tokenizer, embedding_dim, **QWEN2_TEXT), _qwen25_vision(embedding_dim)
    config = qwen3vl.qwen_config(hf.Qwen2_5_VLConfig, tokenizer, text, **vision)
    processor = _qwen2_processor(hf.Qwen2_5_VLProcessor, tokenizer)
    return _saved("qwen25vl", hf.Qwen2_5_VLForConditionalGeneration, config, processor, seed, cache_dir)


def qwen25omni(seed: int = 42, cache_dir: str = CACHE, embedding_dim: Positive = DIM) -> str:
    """The architecture of LCO-Embedding: the part of Qwen2.5-Omni that reads text, images, video and audio."""
    tokenizer = qwen3vl.train_tokenizer(media=OMNI_TOKENS)
    audio = {"num_mel_bins": 80, "d_model": 64, "encoder_layers": 2, "encoder_attention_heads": 4}
    audio |= {"encoder_ffn_dim": 128, "output_dim": embedding_dim, "max_source_positions": 200}
    ids: dict[str, Any] = tokenizer.get_vocab()
    config = hf.Qwen2_5OmniThinkerConfig(
        text_config=_text(tokenizer, embedding_dim, **QWEN2_TEXT),
        vision_config=INIT | {"depth": 2} | _qwen25_vision(embedding_dim),
        audio_config=INIT | audio,
        **{"image_token_index": ids["<|IMAGE|>"], "video_token_index": ids["<|VIDEO|>"]},
        **{"audio_token_index": ids["<|AUDIO|>"], "audio_start_token_id": ids["<|audio_bos|>"]},
        **{"audio_end_token_id": ids["<|audio_eos|>"], "user_token_id": ids[qwen3vl.START]},
        tie_word_embeddings=True,
        **INIT,
    )
    config.vision_start_token_id = ids["<|vision_bos|>"]  # read by the model, no field of the class
    sounds = hf.WhisperFeatureExtractor(feature_size=80, chunk_length=4)  # seconds at most
    more = {"feature_extractor": sounds, "chat_template": OMNI_TEMPLATE}
    processor = _qwen2_processor(hf.Qwen2_5OmniProcessor, tokenizer, **more)
    return _saved("qwen25omni", hf.Qwen2_5OmniThinkerForConditionalGeneration, config, processor, seed, cache_dir)


def llava_next(seed: int = 42, cache_dir: str = CACHE, embedding_dim: Positive = DIM) -> str:
    """The architecture of E5-V and BGE-VL-MLLM."""
    tokenizer, image_token = qwen3vl.train_tokenizer(), qwen3vl.MEDIA_TOKENS["image_token"]
    size, patch_size, grid = 56, 14, [[56, 112], [112, 56], [112, 112]]
    vision = INIT | {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
    vision |= {"image_size": size, "patch_size": patch_size, "projection_dim": 64}
    config = hf.LlavaNextConfig(
        text_config=hf.MistralConfig(**_text(tokenizer, embedding_dim, sliding_window=None)),
        vision_config=hf.CLIPVisionConfig(**vision),
        image_token_index=tokenizer.get_vocab()[image_token],
        image_grid_pinpoints=grid,
        image_seq_length=(size // patch_size) ** 2,
        tie_word_embeddings=True,
    )
    images = hf.LlavaNextImageProcessor(**_cropped(size), image_grid_pinpoints=grid)
    more: dict[str, Any] = {"patch_size": patch_size, "vision_feature_select_strategy": "default"}
    more |= {"image_token": image_token, "num_additional_image_tokens": 1, "chat_template": qwen3vl.CHAT_TEMPLATE}
    processor = hf.LlavaNextProcessor(image_processor=images, tokenizer=tokenizer, **more)
    return _saved("llava-next", hf.LlavaNextForConditionalGeneration, config, processor, seed, cache_dir)


def clip(seed: int = 42, cache_dir: str = CACHE, embedding_dim: Positive = DIM) -> str:
    """The architecture of clip-ViT-L-14 and BGE-VL-base."""
    tokenizer, text, vision = _contrastive(embedding_dim, max_length=128)
    projection: dict[str, Any] = {"projection_dim": embedding_dim}
    config = hf.CLIPConfig(text_config=text | projection, vision_config=vision | projection, **projection)
    processor = hf.CLIPProcessor(image_processor=hf.CLIPImageProcessor(**_cropped(IMAGE_SIZE)), tokenizer=tokenizer)
    return _saved("clip", hf.CLIPModel, config, processor, seed, cache_dir)


def siglip(seed: int = 42, cache_dir: str = CACHE, embedding_dim: Positive = DIM) -> str:
    """The architecture of the Router's image encoder (SigLIP2 at one size is a SigLIP)."""
    tokenizer, text, vision = _contrastive(embedding_dim, max_length=64)
    config = hf.SiglipConfig(text_config=text | {"projection_size": embedding_dim}, vision_config=vision)
    images = hf.SiglipImageProcessor(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
    processor = hf.SiglipProcessor(image_processor=images, tokenizer=tokenizer)
    return _saved("siglip", hf.SiglipModel, config, processor, seed, cache_dir)


def _saved(name: str, kind: type, config: Any, processor: hf.ProcessorMixin, seed: int, cache_dir: str) -> str:
    name = f"{name}-tiny-{config.text_config.hidden_size}d"
    with built(lambda to: write_checkpoint(to, kind, config, processor, seed), name, seed, cache_dir) as folder:
        return str(folder)


def _text(tokenizer: Any, dim: int, **more: Any) -> dict[str, Any]:
    """Return the sizes of a language model in heads of 32, of which at most three have keys and values."""
    heads = dim // 32
    few = next(number for number in range(qwen3vl.MOST_HEADS, 0, -1) if heads % number == 0)
    sizes = {"num_attention_heads": heads, "num_key_value_heads": few, "eos_token_id": tokenizer.eos_token_id}
    return qwen3vl.text_sizes(tokenizer, dim, **sizes, **more)


def _qwen25_vision(dim: int) -> dict[str, Any]:
    windows = {"window_size": 56, "fullatt_block_indexes": [1]}
    return QWEN2_VISION | windows | {"hidden_size": 64, "intermediate_size": 128, "out_hidden_size": dim}


def _qwen2_processor(kind: Any, tokenizer: Any, **more: Any) -> hf.ProcessorMixin:
    return qwen3vl.qwen_processor(tokenizer, kind, partial(hf.Qwen2VLVideoProcessor, size=VIDEO_SIZE), 14, **more)


def _cropped(size: int) -> dict[str, Any]:
    return {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}


def _contrastive(dim: int, max_length: int) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Return the tokenizer, which ends each text with a token to pool at, and the sizes of both towers."""
    tokenizer = qwen3vl.train_tokenizer()
    tokenizer.model_max_length = max_length
    end = (tokenizer.eos_token, tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"$A {end[0]}", special_tokens=[end])
    heads = {"num_attention_heads": 4, "eos_token_id": end[1]}
    text = qwen3vl.text_sizes(tokenizer, dim, **heads, max_position_embeddings=max_length)
    vision = {"hidden_size": dim, "intermediate_size": min(2 * dim, qwen3vl.MOST_INTERMEDIATE)}
    vision |= {"num_hidden_layers": 2, "num_attention_heads": 4, "image_size": IMAGE_SIZE, "patch_size": 16}
    return tokenizer, text, INIT | vision
