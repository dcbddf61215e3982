"""How a model learns: losses, mini-batches, sampler, trainers, warm starts."""
