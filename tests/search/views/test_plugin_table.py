"""What scripts may rely on in the lists of methods and evaluators."""

from __future__ import annotations

import json
from typing import Any

import pytest

from evaluators.registry import EVALUATORS
from merge_core.contract import Method
from merge_core.methods.registry import METHODS, method
from search.views import plugin_table


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


@pytest.fixture
def methods(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    plugin_table.methods(as_json=True)
    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    return {entry["name"]: entry for entry in found}


def test_every_installed_method_is_listed_by_name(methods: dict[str, Any]) -> None:
    assert tuple(methods) == METHODS.names()
    assert {"linear", "slerp", "ties", "dare_ties", "dare_linear", "task_arithmetic"} <= set(
        methods
    )


def test_a_method_has_parameters_base_and_numbers_of_models(methods: dict[str, Any]) -> None:
    for name, entry in methods.items():
        assert {"name", "params", "base", "models"} <= set(entry)
        assert entry["base"] in ("required", "optional", "none")
        assert entry["models"] == list(method(name).models)
        assert [p["name"] for p in entry["params"]] == [p.name for p in method(name).params]
        for param in entry["params"]:
            assert {"name", "low", "high", "default", "scope"} <= set(param)


def test_numbers_have_a_range_and_flags_have_choices(methods: dict[str, Any]) -> None:
    density, normalize = (
        next(p for p in methods["ties"]["params"] if p["name"] == name)
        for name in ("density", "normalize")
    )
    assert density == {
        "name": "density",
        "low": 0.1,
        "high": 1,
        "default": 1.0,
        "scope": "model",
        "choices": [],
        "meaning": "share of task vector entries kept",
    }
    assert (normalize["low"], normalize["high"], normalize["choices"]) == (
        None,
        None,
        [True, False],
    )
    assert (normalize["default"], normalize["scope"]) == (True, "shared")


def test_limits_of_models_are_least_and_greatest(methods: dict[str, Any]) -> None:
    assert methods["slerp"]["models"] == [2, 2]
    assert methods["ties"]["models"] == [1, None]
    assert (methods["slerp"]["base"], methods["linear"]["base"]) == ("required", "none")


def test_evaluators_are_listed_with_their_keys(capsys: pytest.CaptureFixture[str]) -> None:
    plugin_table.evaluators(as_json=True)
    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert [entry["name"] for entry in found] == list(EVALUATORS.names())
    options = {o["name"]: o for o in next(e for e in found if e["name"] == "lm_eval")["options"]}
    assert options["task"]["required"]
    assert (options["include_path"]["required"], options["include_path"]["default"]) == (
        False,
        None,
    )


def test_the_table_of_methods_has_every_parameter_and_its_range(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plugin_table.methods(as_json=False)
    lines = capsys.readouterr().out.splitlines()
    density = next(line for line in lines if "density" in line)
    assert "0.1 to 1" in density
    assert "share of task vector entries kept" in density
    for name in METHODS.names():
        assert any(name in line for line in lines)


def test_a_method_without_parameters_stands_in_the_table_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = Method("bare", (), "none", (1, 1), "nobody", merge=lambda inputs: inputs.models[0])
    monkeypatch.setitem(METHODS._added, "bare", bare)
    plugin_table.methods(as_json=False)
    assert any("bare" in line for line in capsys.readouterr().out.splitlines())


def test_the_table_of_evaluators_marks_required_keys(capsys: pytest.CaptureFixture[str]) -> None:
    plugin_table.evaluators(as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert any("lm_eval" in line and "task" in line and "required" in line for line in lines)
    assert any("num_fewshot" in line and "null" in line for line in lines)
