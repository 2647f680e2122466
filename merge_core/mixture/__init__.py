"""Mixtures of experts. In: a recipe's ``moe``, the plan of all else; out: one plan for both."""
