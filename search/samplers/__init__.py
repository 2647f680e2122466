"""Settled trials in, the next point out."""
