"""Any two keys of a study file that are wrong: both are named, each by line, path and rule."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from merge_core.errors import DocumentError
from search.spec import sections
from search.spec.study_file import StudyFile
from tests.search.toy import STUDY, spec_of

RANGE = {"low": 0.0, "high": 1.5}
WRONG: dict[str, list[tuple[Any, str]]] = {  # key path -> values, and what is said of each
    "name": [(3, "expected a text"), ("", "expected a text")],
    "recipe.merge_method": [("taskarithmetic", "no merge method"), (7, "expected a name")],
    "recipe.base_model": [("", "expected a name"), (True, "expected a name")],
    "recipe.dtype": [("float8", "expected float32"), (RANGE, "ranges and choices go in")],
    "recipe.seed": [(-1, "expected a whole number"), ({"choices": [1, 2]}, "draws no masks")],
    "recipe.models[0].take_part": [(True, "expected {choices"), (RANGE, "expected {choices")],
    "recipe.models[0].parameters.weight": [
        ({"low": 0}, "required in a range"),
        ({**RANGE, "per": "tensors"}, "expected layer, tensor"),
        ({**RANGE, "per": [[0, 1], [1, 3]]}, "which a band before it has"),
        ({**RANGE, "per": 2, "cosine": 3}, "has per and cosine; choose one"),
        ({**RANGE, "gradient": 1}, "expected a whole number from 2"),
        ({**RANGE, "cosine": 0}, "expected a whole number from 1"),
        ({**RANGE, "shape": "lines"}, "expected one of line, kernel"),
        ({**RANGE, "step": 0.4}, "whole number of steps"),
        ({**RANGE, "log": True}, "needs low above 0"),
        ({**RANGE, "ordered": True}, "needs an order of values"),
        ({**RANGE, "tied": "x"}, "nothing else is tied"),
        ({**RANGE, "start": 2}, "must be in [0, 1.5]"),
        ({"sum": 1}, "a sum of one model's weight"),
        ({"sum": 1, **RANGE}, "a sum has no ends"),
        ({"choices": [1]}, "expected a list of 2 to 100 values"),
        ({"choices": [1, 2], "start": 3}, "must be one of the choices"),
        ("all", "expected a number"),
        ({"lo": 0, "high": 1}, "unknown key"),
    ],
    "score": [([], "expected a list of tasks"), (None, "expected a list of tasks")],
    "aggregate": [("median", "expected one of"), (1, "expected one of")],
    "items.search": [(0, "must be at least 1"), (1.5, "expected a whole number")],
    "items.report": [("all", "expected a whole number of at least 1 or 'rest'")],
    "search.sampler": [("grid", "expected one of"), (1, "expected a text")],
    "search.seed": [(-1, "must be at least 0"), (True, "expected a whole number")],
    "search.trials": [(0, "must be at least 1"), ("9", "expected a whole number")],
    "search.hours": [(0, "must be above 0"), ("9", "expected a number")],
    "search.patience": [(0, "must be at least 1"), (0.5, "expected a whole number")],
    "search.target": [("best", "expected a number")],
    "search.finalists": [(0, "must be at least 1"), (True, "expected a whole number")],
    "search.start": [(3, "expected a recipe file"), ("no.yaml", "no.yaml: cannot be read")],
    "search.race": [(3, "expected on, off, or {margin, error}"), ("no", "expected on, off")],
    "search.order": [("any", "expected one of"), (True, "expected one of")],
    "search.prior": [(3, "expected a study file"), ("", "expected a study file")],
    "engine.name": [("tgi", "expected one of hf, vllm")],
    "engine.batch_size": [(0, "must be at least 1")],
    "keep_answers": [(-1, "must be at least 0"), (1.5, "expected a whole number")],
    "storage": [(7, "expected a text"), ("study.db", "expected a storage URL")],
    "baselines": [([1], "expected names with recipe files"), ({"base": "x"}, "")],
    "serch": [({}, "unknown key, did you mean 'search'?")],
}
OF_METHODS = ("draws no masks", "expected a number")
CASES = [(path, value, rule) for path, several in WRONG.items() for value, rule in several]
PAIRS = [(a, b) for a, b in itertools.combinations(CASES, 2) if a[0] != b[0]]


def place(path: str) -> list[Any]:
    return [
        int(key) if key.isdecimal() else key
        for key in path.replace("[", ".").replace("]", "").split(".")
    ]


def problems_of(cases: Any) -> dict[str, str]:
    """Return key path -> rules, of the toy study with wrong values, as a file with lines."""
    data = yaml.safe_load(STUDY)
    for path, value, _ in cases:
        *before, last = place(path)
        owner = data
        for key in before:
            owner = owner.setdefault(key, {}) if isinstance(owner, dict) else owner[key]
        owner[last] = value
    text = yaml.safe_dump(data, sort_keys=False)
    with pytest.raises(DocumentError) as caught:
        spec_of(text, Path("/nowhere"))
    lines = text.splitlines()
    found: dict[str, str] = {}
    for problem in caught.value.problems:
        assert 1 <= problem.line <= len(lines)
        found[problem.path] = f"{found.get(problem.path, '')} {problem.rule}"
    return found


def named(found: dict[str, str], path: str, rule: str) -> bool:
    return any(where.startswith(path) and rule in said for where, said in found.items())


@pytest.mark.parametrize(("path", "value", "rule"), CASES, ids=str)
def test_a_wrong_value_is_a_problem_at_its_key(path: str, value: Any, rule: str) -> None:
    found = problems_of([(path, value, rule)])
    assert named(found, path, rule), found


@pytest.mark.parametrize("first", sorted({a[0] for a, _ in PAIRS}))
def test_of_two_wrong_keys_both_are_named(first: str) -> None:
    mine = [pair for pair in PAIRS if pair[0][0] == first]
    for pair in mine[:: max(1, len(mine) // 25)]:
        if "recipe.merge_method" in (first, pair[1][0]) and pair[1][2] in OF_METHODS:
            continue  # what a method draws or takes is not known of one that there is not
        found = problems_of(pair)
        for path, _, rule in pair:
            assert named(found, path, rule), (pair, found)


def test_every_key_of_the_search_is_tried() -> None:
    tried = {path.partition(".")[2] for path in WRONG if path.startswith("search.")}
    assert tried == set(sections.Search.declared())
    top = {path.partition(".")[0] for path in WRONG}
    assert set(StudyFile.declared()) <= top
