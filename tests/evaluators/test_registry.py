from __future__ import annotations

import json

import pytest

from evaluators.registry import EVALUATORS
from merge_core.errors import UnknownNameError


@pytest.fixture
def plugin():
    return EVALUATORS.get("lm_eval")


def problems(plugin, **values):
    return {p.path: p.rule for p in plugin.problems(values)}


def test_lm_eval_is_there():
    assert "lm_eval" in EVALUATORS.names()


def test_unknown_evaluator_is_answered_with_the_nearest_name():
    with pytest.raises(UnknownNameError, match=r"no evaluator is named 'lm-eval' .*'lm_eval'\?"):
        EVALUATORS.get("lm-eval")


def test_a_whole_entry_has_no_problems(plugin):
    entry = {
        "task": "gsm8k",
        "include_path": "tasks",
        "metric": "exact_match",
        "filter": "strict-match",
        "num_fewshot": 5,
        "apply_chat_template": True,
        "seed": 7,
    }
    assert plugin.problems(entry) == ()
    assert plugin.options(**entry).num_fewshot == 5


def test_the_task_alone_is_enough(plugin):
    assert problems(plugin, task="gsm8k") == {}


def test_null_means_the_default(plugin):
    assert problems(plugin, task="gsm8k", metric=None, num_fewshot=None) == {}


def test_all_problems_are_found_at_once(plugin):
    assert problems(plugin, taks="gsm8k", num_fewshot="5") == {
        "taks": "unknown key, did you mean 'task'?",
        "task": "required by evaluator 'lm_eval'",
        "num_fewshot": "expected a whole number, got '5'",
    }


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("task", 5, "expected a text or a mapping, got 5"),
        ("task", None, "expected a text or a mapping, got nothing"),
        ("include_path", True, "expected a folder, got true"),
        ("num_fewshot", True, "expected a whole number, got true"),
        ("num_fewshot", 1.5, "expected a whole number, got 1.5"),
        ("num_fewshot", -1, "must be at least 0, got -1"),
        ("apply_chat_template", 1, "expected true or false, got 1"),
        ("apply_chat_template", None, "expected true or false, got nothing"),
        ("seed", None, "expected a whole number, got nothing"),
    ],
)
def test_a_wrong_value_is_answered_in_the_words_of_the_file(plugin, key, value, rule):
    assert problems(plugin, **{"task": "gsm8k", key: value}) == {key: rule}


def test_description_is_json_with_every_option(plugin):
    told = json.loads(json.dumps(plugin.describe()))
    assert told["name"] == "lm_eval"
    assert told["options"][0] == {
        "name": "task",
        "kind": "a text or a mapping",
        "required": True,
        "default": None,
        "meaning": "name of an lm-eval task, group or tag, or one written out",
    }
    assert all(o["meaning"] for o in told["options"])
