"""From a checkpoint to a model that is ready to train or to embed: embedders, Routers, rerankers, adapters.

What a model learns by is in `training`, what it scores in `evaluation`; the offline twins are in `tiny/`.
"""
