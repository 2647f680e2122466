"""A model reference in, an opened parent out: names, shapes, and tensors when asked for."""
