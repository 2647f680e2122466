"""lm-evaluation-harness: a task's name in, its items and lm-eval's own scores out."""
