"""Finetune and evaluate multimodal embedding models with Sentence Transformers, composed by Hydra."""
