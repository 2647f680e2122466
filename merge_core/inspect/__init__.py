"""A recipe and its parents in, what is known before a merge out: norms, angles, conflicts."""
