"""Everything about the weights: a recipe file in, a live model or a model folder out."""

import os

# Of Intel's MKL, which reads this at its first use: a row of a float32 product has the same bits
# however many rows there are. On some processors a few rows have kernels of their own otherwise.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
