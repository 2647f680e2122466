"""Regular expressions of task files, which may not end."""

from __future__ import annotations

import dataclasses

import pytest

from merge_core.errors import EvaluationError, ItemError
from tests.evaluators.conftest import GENERATION, metric

DOCS = [{"q": f"say {c}:", "a": c} for c in "abc"]
ENDLESS = r"(a|aa)+$"


def by(**settings):
    """A list of one filter, whose first part has these settings."""
    return [{"name": "cut", "filter": [settings, {"function": "take_first"}]}]


class Says:
    """An engine that says one thing."""

    def generate_until(self, prompts):
        return ["a" * 60 + "b" for _ in prompts]

    def fingerprint(self):
        return "{}"


@pytest.fixture
def saying(live):
    return dataclasses.replace(live, engine=Says())


@pytest.mark.slow
def test_a_filter_that_does_not_end_fails_the_item_and_is_named(tasks, saying):
    filters = by(function="regex", regex_pattern=ENDLESS)
    task = tasks.open(tasks.write("gen", DOCS, **GENERATION | {"filter_list": filters}))
    with pytest.raises(ItemError, match=r"^gen: filter 'cut': the regular expression .* takes"):
        task.score(saying, [0])


def test_what_a_metric_is_to_ignore_ends_too(tasks, saying):
    metrics = [metric("exact_match", regexes_to_ignore=[ENDLESS])]
    tasks.write("gen", DOCS, **GENERATION | {"metric_list": metrics})
    with pytest.raises(ItemError, match=r"the regular expression .* takes more than 1 s"):
        tasks.open("gen", filter="whole").score(saying, [0])


@pytest.mark.parametrize(
    ("part", "rule"),
    [
        ({"function": "regex", "regex_pattern": "("}, "missing \\), unterminated subpattern"),
        ({"function": "regex", "pattern": "a"}, "unexpected keyword argument 'pattern'"),
    ],
)
def test_a_filter_that_cannot_be_made_is_refused_at_opening(part, rule, tasks):
    tasks.write("gen", DOCS, **GENERATION | {"filter_list": by(**part)})
    with pytest.raises(EvaluationError, match=f"'gen': filter 'cut' cannot be made: .*{rule}"):
        tasks.open("gen")
