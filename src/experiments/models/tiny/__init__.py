"""The offline twins of real architectures, with weights drawn from a seed.

Twins that are trained before they are used are made by `training.warm_starts`.
"""
