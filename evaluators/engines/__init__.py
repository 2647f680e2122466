"""Prompts in, log-likelihoods or text out; what all engines share stands here."""
