"""Merged tensors in, a live model, a stream or a model folder out."""
