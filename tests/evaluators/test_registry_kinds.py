from __future__ import annotations

import json
import subprocess
import sys
from typing import Literal

import pytest
from pydantic import Field

from evaluators.protocol import Suite
from evaluators.registry import EVALUATORS, EvaluatorPlugin
from merge_core.errors import EvaluationError
from merge_core.validation import File, Number, StrictModel, Texts


class Options(StrictModel):
    file: File = "x"
    texts: Texts | None = None
    number: Number = Field(1, ge=0)
    metric: Literal["acc", "acc_norm"] = "acc"
    maybe: Literal["acc", "acc_norm"] | None = None


PLUGIN = EvaluatorPlugin("x", "x", Options, lambda *_: None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("file", "x.jsonl"),
        ("texts", "a"),
        ("texts", ["a", ""]),
        ("texts", None),
        ("number", 0),
        ("number", 0.5),
        ("metric", "acc_norm"),
        ("maybe", None),
    ],
)
def test_a_value_of_its_kind_has_no_problem(key, value):
    assert PLUGIN.problems({key: value}) == ()


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("file", 5, "expected a file, got 5"),
        ("texts", [], "expected a text or a list of texts, got []"),
        ("texts", ["a", 5], "expected a text or a list of texts, got ['a', 5]"),
        ("texts", 5, "expected a text or a list of texts, got 5"),
        ("number", True, "expected a number, got true"),
        ("number", float("nan"), "expected a number, got nan"),
        ("number", float("inf"), "expected a number, got inf"),
        ("number", "1", "expected a number, got '1'"),
        ("number", -0.5, "must be at least 0, got -0.5"),
        ("metric", "acc_nrom", "expected one of acc, acc_norm, got 'acc_nrom', did you mean"),
        ("metric", "one of acc", "expected one of acc, acc_norm, got 'one of acc'"),
        ("metric", ["acc"], "expected one of acc, acc_norm, got ['acc']"),
        ("metric", None, "expected one of acc, acc_norm, got nothing"),
        ("maybe", "x", "expected one of acc, acc_norm, got 'x'"),
    ],
)
def test_a_wrong_value_is_answered_in_the_words_of_the_file(key, value, rule):
    (problem,) = PLUGIN.problems({key: value})
    assert problem.path == key
    assert problem.rule.startswith(rule)


@pytest.mark.parametrize("name", EVALUATORS.names())
def test_a_built_in_evaluator_is_named_as_it_is_registered_and_tells_its_options(name):
    told = json.loads(json.dumps(EVALUATORS.get(name).describe()))
    assert told["name"] == name
    assert all(o["meaning"] for o in told["options"])


def test_checking_a_study_imports_no_library():
    code = (
        "import sys; from evaluators.registry import EVALUATORS; import evaluators.plugin_file\n"
        "for name in EVALUATORS.names(): EVALUATORS.get(name).problems({})\n"
        "heavy = {'torch', 'transformers', 'lm_eval', 'datasets', 'jinja2', 'pyarrow', 'pandas'}\n"
        "print(heavy & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


@pytest.mark.parametrize("found", [object(), Suite("both", ((object(), 1.0),))])
def test_what_is_no_evaluator_is_refused_where_it_is_opened(found):
    plugin = EvaluatorPlugin("mine", "x", Options, lambda *_: found)
    with pytest.raises(EvaluationError, match=r"^evaluator 'mine' opens object, which is no subcl"):
        plugin.opened(Options(), None, None)
