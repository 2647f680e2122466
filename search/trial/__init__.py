"""A recipe and a pool in, item scores out."""
