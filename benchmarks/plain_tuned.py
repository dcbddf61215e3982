"""Contender 2: Sentence Transformers alone, well configured.

python -m benchmarks.plain_tuned PAGES MODEL OUT
"""

import sys
from pathlib import Path

from datasets import load_from_disk
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss, MatryoshkaLoss
from sentence_transformers.sentence_transformer.trainer import SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.training_args import (
    BatchSamplers,
    SentenceTransformerTrainingArguments,
)
from transformers import set_seed

from benchmarks import stages
from benchmarks.plain_article import DIMS, NEGATIVES


def main(pages: str, model_folder: str, out: Path) -> None:
    """Train and evaluate with the library's best settings: large mini-batches, workers, the hashed sampler."""
    stages.instrument(SentenceTransformerTrainer)
    set_seed(42)
    model = SentenceTransformer(model_folder)
    train_dataset = load_from_disk(pages)["train"].select_columns(["query", "image", "negative_0"])
    eval_dataset = load_from_disk(pages)["eval"]
    loss = MatryoshkaLoss(model, CachedMultipleNegativesRankingLoss(model, mini_batch_size=32), DIMS)
    args = SentenceTransformerTrainingArguments(
        output_dir=str(out / "checkpoints"),
        num_train_epochs=1,
        per_device_train_batch_size=64,
        per_device_eval_batch_size=64,
        learning_rate=2e-3,
        warmup_steps=0.1,
        batch_sampler=BatchSamplers.NO_DUPLICATES_HASHED,
        eval_strategy="steps",
        eval_steps=0.1,
        save_strategy="steps",
        save_steps=0.1,
        save_total_limit=2,
        logging_steps=0.05,
        seed=42,
        report_to="none",
        dataloader_num_workers=2,
        dataloader_pin_memory=False,
    )

    columns = ["image", *NEGATIVES]
    queries = {str(row): query for row, query in enumerate(eval_dataset["query"])}
    corpus = {
        str(len(eval_dataset) * index + row): page
        for index, column in enumerate(columns)
        for row, page in enumerate(eval_dataset[column])
    }
    relevant_docs = {str(row): {str(row)} for row in range(len(eval_dataset))}

    def evaluator(truncate_dim: int | None = None) -> InformationRetrievalEvaluator:
        name = "pages" if truncate_dim is None else f"pages-{truncate_dim}d"
        return InformationRetrievalEvaluator(
            queries, corpus, relevant_docs, truncate_dim=truncate_dim, batch_size=32, name=name
        )

    full = evaluator()
    with stages.stage("base evaluation"):
        full(model)
    trainer = SentenceTransformerTrainer(
        model=model,
        args=args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset.select_columns(train_dataset.column_names),
        loss=loss,
        evaluator=full,
    )
    trainer.train()
    with stages.stage("final evaluation"):
        for dim in DIMS:
            evaluator(dim)(model)
    model.save_pretrained(str(out / "final"))


if __name__ == "__main__":
    folder = Path(sys.argv[3])
    with stages.stage("rest"):
        main(sys.argv[1], sys.argv[2], folder)
    stages.write(folder / "seconds.json")
