"""A recipe and its opened parents in, merged tensors out, one at a time."""
