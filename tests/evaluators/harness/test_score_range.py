"""Which scores a metric can give: lm-eval's own are known, those of a task's code are not."""

from __future__ import annotations

import pytest

from tests.evaluators.conftest import CHOICE, GENERATION, choice_docs, metric

DOCS = [{"q": f"say {c}:", "a": c} for c in "abcdefgh"]
RIGHT_OR_WRONG, SHARE, UNKNOWN = ((0, 1), True), ((0, 1), False), (None, False)
CODE = """
def share(doc, answers):
    return {"f1": 0.5 * (answers[0] == doc["a"])}

def percent(doc, answers):
    return {"f1": 100.0 * (answers[0] == doc["a"])}

def f1(references, predictions):
    return 0.25 + 0.5 * (references == predictions)
"""


def known(task):
    return task.bounds, task.binary


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"task": "gen"}, RIGHT_OR_WRONG),
        ({"task": "choice", "metric": "acc_norm"}, RIGHT_OR_WRONG),
        ({"task": "choice", "metric": "probability"}, SHARE),
        ({"task": "choice", "metric": "margin"}, UNKNOWN),
        ({"task": "ends", "metric": "acc"}, RIGHT_OR_WRONG),
        ({"task": "ends", "metric": "perplexity"}, UNKNOWN),
        ({"task": "texts", "metric": "bits_per_byte"}, UNKNOWN),
        ({"task": "texts", "metric": "word_perplexity"}, UNKNOWN),
    ],
)
def test_scores_of_lm_evals_own_metrics_are_known(options, expected, standard):
    assert known(standard.open(**options)) == expected


def test_squared_distance_of_probabilities_is_at_most_2(tasks):
    brier = {"metric": "brier_score", "higher_is_better": False}
    tasks.write("sure", choice_docs(), **CHOICE | {"metric_list": [brier]})
    assert known(tasks.open("sure")) == ((0, 2), False)


def test_several_right_answers_are_still_right_or_wrong(tasks):
    docs = [{"q": "say a:", "a": ["a", "b"]}] * 5
    tasks.write("several", docs, doc_to_target="{{a}}", **GENERATION)
    assert known(tasks.open("several")) == RIGHT_OR_WRONG


def test_of_a_filter_that_leaves_several_answers_nothing_is_known(tasks):
    every = {"name": "every", "filter": [{"function": "take_first_k", "k": 2}]}
    tasks.write("two", DOCS, repeats=2, **GENERATION | {"filter_list": [every]})
    assert known(tasks.open("two")) == UNKNOWN


@pytest.mark.parametrize(("function", "name"), [("share", "f1"), ("percent", "f1")])
def test_of_scores_by_a_tasks_own_code_nothing_is_known_whatever_they_are_called(
    function, name, tasks, trusted
):
    (tasks.folder / "code.py").write_text(CODE)
    own = {"process_results": f"!function code.{function}", "metric_list": [metric(name)]}
    tasks.write("own", DOCS, **GENERATION | own | {"filter_list": None})
    assert known(tasks.open("own")) == UNKNOWN


def test_a_function_with_the_name_of_a_metric_is_another_one(tasks, trusted):
    (tasks.folder / "code.py").write_text(CODE)
    own = {**metric("f1"), "metric": "!function code.f1"}
    tasks.write("own", DOCS, **GENERATION | {"metric_list": [own], "filter_list": None})
    assert known(tasks.open("own")) == UNKNOWN
