"""A plan in; a live model, a stream of tensors or a model folder out."""
