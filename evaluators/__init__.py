"""A live model and items in, one score per item out."""
