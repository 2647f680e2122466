"""A plan in, merged tensors out, one after the other; documents inside documents before it."""
