"""The live transformers model: token batches in, log-likelihoods and greedy text out."""
