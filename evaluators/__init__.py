"""A live model in, one score per item out; knows nothing of trials or recipes."""
