"""Commands that need more than a few lines: options in, one call, answer out."""
