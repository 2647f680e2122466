"""Everything about the weights: a recipe file in, a live model or a model folder out."""
