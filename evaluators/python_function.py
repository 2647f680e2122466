"""The place that plugin files written earlier import ``scorer`` from."""

from evaluators.jsonl.python_function import Scorer, scorer

__all__ = ["Scorer", "scorer"]
