"""Another vocabulary for a model. In: a model, a tokenizer; out: the model with rows for it."""
