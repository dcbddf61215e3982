"""A tiny Qwen3.5 built offline, and the training that makes a reranker of it learn.

From random weights a reranker doesn't learn to match images with texts. So the backbone is trained as an embedder
first, on the same drawings: what follows starts where a pretrained checkpoint would.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from sentence_transformers.sentence_transformer.trainer import SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments
from transformers import PreTrainedTokenizerFast, Qwen3_5Config, Qwen3_5ForConditionalGeneration

from experiments.data import drawings
from experiments.models import built
from experiments.tiny import INIT, MOST_INTERMEDIATE, SPECIAL_TOKENS, qwen3vl_processor, train_tokenizer

logger = logging.getLogger(__name__)

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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3_5ForConditionalGeneration(qwen3_5_config(tokenizer, embedding_dim))
    processor = qwen3vl_processor(tokenizer, CHAT_TEMPLATE)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def warm_backbone(
    *, seed: int = 42, num_steps: int = 150, batch_size: int = 32, cache_dir: str = "outputs/.cache"
) -> str:
    """Return the folder of a tiny Qwen3.5 that was trained as an embedder of drawings, once, and then is cached.

    Args:
        seed: Of the initial weights and the batches.
        num_steps: Training steps, of half a second each on two cores.
        batch_size: Pairs of a caption and its drawing in a step.
        cache_dir: Folder of the cache.
    """
    sources = (Path(__file__), Path(drawings.__file__))
    version = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:8]
    name = f"qwen3_5-tiny-warm-{version}-{num_steps}x{batch_size}-seed{seed}"

    def build(folder: Path) -> None:
        logger.info("Warm start: %d steps as an embedder of drawings, kept in %s", num_steps, Path(cache_dir) / name)
        build_qwen3_5(folder, seed=seed)
        with torch.random.fork_rng(devices=[]):  # what follows is the same, whether this was cached or not
            _fit_embedder(folder, seed, num_steps, batch_size, cache_dir)

    with built(build, name, cache_dir, alone="the tiny reranker's backbone") as folder:
        return str(folder)


def warm_embedder(
    *, seed: int = 42, num_steps: int = 150, batch_size: int = 32, cache_dir: str = "outputs/.cache"
) -> SentenceTransformer:
    """Load the embedder that `warm_backbone` trains: the retriever whose candidates the reranker puts in order."""
    folder = warm_backbone(seed=seed, num_steps=num_steps, batch_size=batch_size, cache_dir=cache_dir)
    return SentenceTransformer(folder, local_files_only=True)


def _fit_embedder(folder: Path, seed: int, num_steps: int, batch_size: int, cache_dir: str) -> None:
    """Train on drawings of the training combinations alone, and write the embedder."""
    rows = drawings.captioned(num_steps * batch_size // 4, 40, 0, cache_dir)["train"].select_columns(["text", "image"])
    transformer = Transformer(str(folder), transformer_task="feature-extraction")
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="lasttoken")
    model = SentenceTransformer(modules=[transformer, pooling, Normalize()])
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder.with_name("trainer")),
        max_steps=num_steps,
        per_device_train_batch_size=batch_size,
        learning_rate=3e-3,
        warmup_steps=0.1,
        save_strategy="no",
        report_to="none",
        logging_steps=25,
        seed=seed,
        use_cpu=True,
        dataloader_pin_memory=False,
    )
    loss = MultipleNegativesRankingLoss(model)
    SentenceTransformerTrainer(model=model, args=arguments, train_dataset=rows, loss=loss).train()
    model.save_pretrained(str(folder))
