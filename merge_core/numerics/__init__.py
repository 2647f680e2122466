"""Tensors in, numbers out that are the same in whatever order and on however many threads."""
