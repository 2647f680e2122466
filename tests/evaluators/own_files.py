"""A user's own benchmark in a temporary folder, and engines that say what a test tells them to."""

from __future__ import annotations

import json
from types import SimpleNamespace

from evaluators.protocol import LiveModel
from evaluators.registry import EVALUATORS


def write_lines(path, rows):
    """Write rows as JSON lines and return the file's name."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.name


def open_entry(evaluator, folder, tokenizer, **entry):
    """Open a score entry as a study does."""
    plugin = EVALUATORS.get(evaluator)
    assert plugin.problems(entry) == ()
    return plugin.open(plugin.options(**entry), folder, tokenizer)


def score_all(evaluator, live):
    """Score all items in one call."""
    return evaluator.score(live, range(len(evaluator.items))).tolist()


class ScriptedEngine:
    """Answers by two functions and remembers what it was asked."""

    def __init__(self, nats, says):
        self._nats, self._says = nats, says
        self.asked = []

    def loglikelihood(self, pairs):
        self.asked += pairs
        return [(self._nats(*pair), False) for pair in pairs]

    def loglikelihood_rolling(self, texts):
        self.asked += texts
        return [self._nats("", text) for text in texts]

    def generate_until(self, prompts):
        self.asked += prompts
        return [self._says(prompt) for prompt, _ in prompts]

    def fingerprint(self):
        return "scripted"


def scripted(nats=None, says=None, window=512, tokenizer=None):
    """A model of which only the window is there, run by a scripted engine."""
    config = SimpleNamespace(max_position_embeddings=window)
    return LiveModel(SimpleNamespace(config=config), tokenizer, 8, ScriptedEngine(nats, says))
