"""Plugin files as they were written before evaluators became a class to subclass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from evaluators import python_function
from evaluators.jsonl.python_function import scorer
from evaluators.protocol import Evaluator, items_of
from evaluators.registry import EvaluatorPlugin, option
from merge_core.errors import EvaluationError


@dataclass(frozen=True)
class Options:
    file: str = option("a file", "what to read")
    items: int = option("a whole number", "how many", default=3, low=1)
    mode: str = option("one of all, odd", "which", default="all")


class Lengths:
    unit, higher_is_better, chance = "characters", True, 0.25

    def __init__(self, options, folder, tokenizer):
        self.task, self.items = options.file, items_of(options.file, range(options.items))
        self.failures = {}

    def score(self, model, which):
        self.failures = {self.items[i].id: "odd" for i in which if i % 2}
        return np.array([float(i) for i in which])

    def fingerprint(self):
        return "lengths"


PLUGIN = EvaluatorPlugin(name="lengths", meaning="x", options=Options, open=Lengths)


def test_a_dataclass_of_options_is_checked_like_a_model():
    assert PLUGIN.problems({"file": "a"}) == ()
    wrong = {p.path: p.rule for p in PLUGIN.problems({"items": 0, "mode": "al", "fiel": 1})}
    assert wrong == {
        "file": "required by evaluator 'lengths'",
        "items": "must be at least 1, got 0",
        "mode": "expected one of all, odd, got 'al', did you mean 'all'?",
        "fiel": "unknown key, did you mean 'file'?",
    }
    described = {option["name"]: option for option in PLUGIN.describe()["options"]}
    assert described["items"]["kind"] == "a whole number"
    assert described["items"]["default"] == 3


def test_an_object_with_the_attributes_of_a_task_is_an_evaluator():
    opened = PLUGIN.opened(PLUGIN.options(file="t", items=4), Path(), None)
    assert isinstance(opened, Evaluator)
    assert len(opened.items) == 4
    assert opened.task == "t"
    assert (opened.chance, opened.measured, opened.fingerprint()) == (0.25, False, "lengths")
    assert opened.score(None, [2, 1]).tolist() == [2.0, 1.0]
    assert opened.failures == {opened.items[1].id: "odd"}


def test_an_attribute_that_is_a_fact_of_later_is_the_plugins_own():
    class Exact(Lengths):
        exact, bounds, clusters, binary = "yes", "none", 3, "no"

    plugin = EvaluatorPlugin(name="exact", meaning="x", options=Options, open=Exact)
    opened = plugin.opened(plugin.options(file="t"), Path(), None)
    assert (opened.exact, opened.bounds, opened.clusters, opened.binary) == (False, None, None, 0)
    assert opened.cluster_ids == tuple(item.id for item in opened.items)


def test_what_lacks_an_attribute_of_a_task_is_refused():
    class Nameless:
        items, unit, higher_is_better = (), "x", True

    plugin = EvaluatorPlugin("n", "x", Options, lambda *_: Nameless())
    with pytest.raises(EvaluationError, match=r"'n' opens Nameless, which is no subclass"):
        plugin.opened(plugin.options(file="t"), Path(), None)


def test_options_that_are_neither_are_refused():
    with pytest.raises(EvaluationError, match=r"options int: expected a subclass of .*StrictModel"):
        EvaluatorPlugin("n", "x", int, Lengths)

    @dataclass
    class Plain:
        count: int = 1

    with pytest.raises(EvaluationError, match=r"options Plain: expected a subclass"):
        EvaluatorPlugin("n", "x", Plain, Lengths)


def test_scorer_is_found_at_its_earlier_place():
    assert python_function.scorer is scorer
