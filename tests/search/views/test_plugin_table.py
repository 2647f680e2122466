"""What scripts may rely on in the lists of methods and evaluators."""

from __future__ import annotations

import json
from typing import Any

import pytest

from evaluators.registry import EVALUATORS
from merge_core.contract import Method
from merge_core.methods.registry import METHODS, method
from merge_core.recipe.mixture_schema import GATE_MODES, Expert, Mixture
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
        "smooth": False,
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


def words_of(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("name", METHODS.names())
def test_one_method_says_its_formula_parameters_source_and_when_to_choose_it(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin_table.OUT, "width", 300)  # so that no meaning is wrapped
    plugin_table.one_method(name, as_json=False)
    out, found = capsys.readouterr().out, method(name)
    lines = [words_of(line) for line in out.splitlines()]
    assert lines[0] == f"method {name}"
    first, *others = found.formula.splitlines()
    assert f"formula {first}" in lines
    assert set(map(words_of, others)) <= set(lines)
    assert f"about {found.about}" in words_of(out)
    assert f"when {found.when}" in words_of(out)
    assert f"source {plugin_table.linked(found.source)}" in lines
    for param in found.params:
        row = next(line for line in lines if line.startswith(f"│ {param.name} │"))
        assert param.scope in row
        assert param.meaning in row
    smooth = ", ".join(param.name for param in found.params if param.smooth)
    assert (f"by gradient {smooth}" in lines) == bool(smooth)


def test_one_method_says_how_many_models_and_whether_a_base(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = {
        "slerp": "models 2; base_model: required, and one of them",
        "nuslerp": "models 2 to 3; base_model: optional, and one of them",
        "karcher": "models 1 or more; base_model: not used",
        "passthrough": "models 1; base_model: not used",
    }
    for name, line in said.items():
        plugin_table.one_method(name, as_json=False)
        assert line in map(words_of, capsys.readouterr().out.splitlines())


def test_brackets_of_a_formula_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    plugin_table.one_method("ram", as_json=False)
    assert "a_i = [|d_i| > epsilon] of each entry" in capsys.readouterr().out


def test_a_method_that_says_little_is_printed_without_empty_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = Method("bare", (), "none", (1, 1), "nobody", merge=lambda inputs: inputs.models[0])
    monkeypatch.setitem(METHODS._added, "bare", bare)
    plugin_table.one_method("bare", as_json=False)
    facts = ["method bare", "models 1; base_model: not used", "source nobody"]
    assert [words_of(line) for line in capsys.readouterr().out.splitlines()] == facts


@pytest.mark.parametrize("name", ["ram", "ties"])
def test_one_method_as_json_is_its_entry_in_the_list(
    name: str, methods: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    plugin_table.one_method(name, as_json=True)
    entry = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert entry == methods[name]
    told = method(name)
    said = (told.about, told.formula, told.when)
    assert (entry["about"], entry["formula"], entry["when"]) == said


def test_sources_get_the_address_that_follows_from_their_number() -> None:
    sources = {
        "arXiv:2306.01708": "arXiv:2306.01708 (https://arxiv.org/abs/2306.01708)",
        "doi:10.1145/325334.325242": (
            "doi:10.1145/325334.325242 (https://doi.org/10.1145/325334.325242)"
        ),
        "https://arcee.ai": "https://arcee.ai",
        "by hand": "by hand",
    }
    assert {source: plugin_table.linked(source) for source in sources} == sources


@pytest.mark.parametrize("name", [*METHODS.names(), "moe"])
def test_every_method_and_mixtures_are_told_in_a_paragraph(name: str) -> None:
    found = plugin_table.described()[name]
    assert 40 <= len(found.about.split()) <= 130
    assert {what for what, _ in plugin_table.said(found)} >= {
        *("about", "formula", "when", "models", "source")
    }


def test_mixtures_are_told_as_methods_are_with_the_defaults_that_recipes_have(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plugin_table.one_method("moe", as_json=True)
    entry = json.loads(capsys.readouterr().out, parse_constant=refuse)
    told = {param["name"]: param["default"] for param in entry["params"]}
    recipe = {**vars(Mixture(experts=())), **vars(Expert("x"))}
    assert told == {name: recipe[name] for name in told}
    assert entry["params"][0]["choices"] == list(GATE_MODES)
    assert "base" not in entry
    plugin_table.one_method("moe", as_json=False)
    out = words_of(capsys.readouterr().out)
    assert "method moe" in out
    assert "models experts: 1 or more" in out
    assert "source arXiv:2401.04088 (https://arxiv.org/abs/2401.04088)" in out


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
