"""A study file in, settled trials and results out."""
