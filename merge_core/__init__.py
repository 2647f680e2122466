"""Everything about the weights: a recipe file in, a live model or a model folder out."""

from merge_core.rounding import ask_for_rows_alike

ask_for_rows_alike()  # before anything is multiplied
