"""How a model learns: losses, mini-batches, sampler, trainers, warm starts.

What is measured of it is in `evaluation`.
"""
