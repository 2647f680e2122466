"""A vLLM that stays up: weights in by tensor, log-likelihoods and text out."""
