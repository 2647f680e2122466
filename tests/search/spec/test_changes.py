"""What differs between two studies' files, key path by key path."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest

from search.spec import sections
from search.spec.changes import MAY_CHANGE, STAYS, changes
from tests.search.spec.test_study_file import data_of


def changed_paths(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the key paths at which two studies' plain data differ, those that may change aside."""
    return [found.path for found in changes(old, new) if not found.may]


@pytest.mark.parametrize(
    ("place", "value", "paths"),
    [
        (("search", "seed"), 4, ["search.seed"]),
        (("search", "seed"), True, ["search.seed"]),
        (("search", "trials"), 99, []),
        (("search", "hours"), 1.5, []),
        (("search", "finalist"), 3, ["search.finalist"]),
        (("recipe", "models", 1, "model"), "org/tw", ["recipe.models[1].model"]),
        (("recipe", "models"), [], ["recipe.models"]),
        (("score", 1, "weight"), 0.25, ["score[1].weight"]),
        (("score", 0), None, ["score[0].evaluator", "score[0].task"]),
        (("engine",), {"batch_size": 1, "threads": 2}, []),
        (
            ("engine",),
            {"name": "vllm", "max_model_len": 9},
            ["engine.name", "engine.max_model_len"],
        ),
        (("items", "report"), 99, []),
        (("items", "report"), "rest", []),
        (("items", "report"), 1, ["items.report"]),
        (("items", "report"), True, ["items.report"]),
        (("items", "select"), 99, ["items.select"]),
        (("baselines",), {"mine": "mine.yaml", "a.b": "c.yaml"}, []),
        (("engine",), {"kernels": "blocked", "cache": "elsewhere"}, []),
        (("engine",), {"parents": "pinned", "device": "cuda:1"}, []),
        (("engine",), {"name": "vllm"}, ["engine.name"]),
        (("search", "patience"), 9, []),
        (("search", "target"), 0.8, []),
        (("search", "finalists"), 9, []),
        (("name",), "toys", []),
        (("storage",), "sqlite:///moved.db", []),
    ],
)
def test_changed_paths_names_each_difference_once(place: Any, value: Any, paths: Any) -> None:
    new = copy.deepcopy(data_of())
    owner = new
    for key in place[:-1]:
        owner = owner[key]
    owner[place[-1]] = value
    assert changed_paths(data_of(), new) == paths


def test_all_differences_are_named() -> None:
    new = data_of(name="toys", items={"search": 1}, search={"seed": 3, "trials": 7})
    assert changed_paths(data_of(), new) == [
        "items.search",
        "items.select",
        "search.sampler",
        "search.race.margin",
        "search.race.error",
    ]


def test_a_race_that_says_its_defaults_is_no_other_than_none() -> None:
    for said in (True, "on", {}, {"margin": 0.02}, {"error": 0.1, "margin": 0.02}):
        assert changed_paths({"search": {}}, {"search": {"race": said}}) == []
    changed = changed_paths({"search": {"race": "off"}}, {"search": {"race": False}})
    assert changed == []


def test_true_is_not_1_at_any_depth_but_1_is_1_0() -> None:
    assert changed_paths({"a": [{"b": True}]}, {"a": [{"b": 1}]}) == ["a[0].b"]
    assert changed_paths({"a": [{"b": 1.0}]}, {"a": [{"b": 1}]}) == []


def test_a_key_that_says_its_default_is_no_change() -> None:
    bare = data_of(items=None, search=None)
    items = {"search": 300, "select": 300, "report": "rest"}
    told = data_of(items=items, search={"seed": 0}, engine={"batch_size": 64}, aggregate="mean")
    assert changed_paths(bare, told) == changed_paths(told, bare) == []
    assert changed_paths(bare, data_of(items={"search": 299}, search=None)) == ["items.search"]
    assert changed_paths(bare, data_of(items=None, search=None, aggregate="min")) == ["aggregate"]


def test_a_search_section_with_nothing_but_its_length_may_come_and_go() -> None:
    with_length = data_of(search={"trials": 7, "hours": 2})
    assert changed_paths(data_of(search=None), with_length) == []
    assert changed_paths(with_length, data_of(search=None)) == []


def test_a_file_that_went_through_json_is_unchanged() -> None:
    assert changed_paths(json.loads(json.dumps(data_of())), data_of()) == []


def test_a_difference_says_what_was_and_what_is() -> None:
    new = data_of(name="toys", search={"trials": 9}, items={"search": 7}, engine={"threads": 2})
    told = {found.path: str(found) for found in changes(data_of(), new)}
    assert told["name"] == "name was 'toy', is 'toys'"
    assert told["search.trials"] == "search.trials was 6, is 9"
    assert told["engine.threads"] == "engine.threads was not set, is 2"
    long = data_of(recipe={"merge_method": "linear", "models": ["x" * 99]})
    (found,) = [x for x in changes(data_of(), long) if x.path == "recipe.models"]
    assert str(found) == f"recipe.models was a list, is ['{'x' * 55}..."


def test_every_key_of_the_engine_is_decided_with_a_reason() -> None:
    decided = {**MAY_CHANGE, **STAYS}
    assert {f"engine.{key}" for key in sections.Engine.declared()} == {
        path for path in decided if path.startswith("engine.")
    }
    assert not MAY_CHANGE.keys() & STAYS.keys()
    assert all(decided.values())


def test_threads_that_a_file_leaves_to_the_study_are_the_studys_own() -> None:
    said, silent = data_of(engine={"threads": 2}), data_of()
    assert changes(silent, said, threads=2) == changes(said, silent, threads=2) == []
    (found,) = changes(silent, said, threads=1)
    assert (str(found), found.may) == ("engine.threads was 1, is 2", True)
    assert "a few items may score otherwise" in found.why


def test_a_baseline_may_come_but_not_go_or_change() -> None:
    one, other = (data_of(baselines={"mine": file}) for file in ("a.yaml", "b.yaml"))
    assert changed_paths(data_of(), one) == []
    assert changed_paths(one, other) == changed_paths(one, data_of()) == ["baselines.mine"]


def test_a_report_pool_may_grow_but_not_shrink() -> None:
    for was, now, paths in (("rest", 9, ["items.report"]), (9, "rest", []), (9, 9, [])):
        old, new = (data_of(items={"report": n}) for n in (was, now))
        assert changed_paths(old, new) == paths
