"""Every key of a study file that is wrong: in type, in range, in name, and with its neighbours.

What a key takes is read off its declaration, so a key that is added is covered by itself. The
recipe's keys and ranges have tests of their own.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from evaluators.registry import EVALUATORS
from merge_core.errors import DocumentError
from merge_core.recipe import yaml_document
from merge_core.recipe.schema import Recipe
from merge_core.validation import StrictModel
from search.run import check as checks
from search.run import study as studies
from search.spec import study_file
from search.spec.score import Score
from search.spec.sections import OF_ONE, Engine, Items, Race, Search
from search.spec.study_file import StudyFile
from tests.search import toy
from tests.search.spec.test_study_file import data_of, problems_of

VALUES: dict[str, Any] = {  # one of each kind that YAML has
    "flag": True,
    "whole": 7,
    "number": 7.5,
    "text": "no such",
    "list": [[7.5]],
    "mapping": {"no such": {}},
    "nothing": None,
}
OWN = {
    "recipe",
    "score",
    "baselines",
    "evaluator",
    "start",
}  # read by functions of their own, see below
SECTIONS: dict[str, type[StrictModel]] = {"items": Items, "search": Search, "engine": Engine}


class Key(NamedTuple):
    """A key, where it stands, and a study that is right but for what is put there."""

    path: str
    field: FieldInfo
    data: dict[str, Any]
    place: tuple[Any, ...]  # of the mapping that holds it

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    def with_(self, name: str, value: Any) -> dict[str, Any]:
        """Return the study with a value under a name beside, or instead of, the key."""
        data = copy.deepcopy(self.data)
        owner = data
        for part in self.place:
            owner = owner.setdefault(part, {}) if isinstance(owner, dict) else owner[part]
        owner[name] = value
        return data


def entry_of(evaluator: str) -> dict[str, Any]:
    """Return the least that a score entry of an evaluator says."""
    fields = EVALUATORS.get(evaluator).options.model_fields
    needed = {name: given(field) for name, field in fields.items() if field.is_required()}
    return {"evaluator": evaluator, **needed}


def given(field: FieldInfo) -> Any:
    """Return a value that a key takes."""
    names = [x for part in parts(field) if get_origin(part) is Literal for x in get_args(part)]
    return names[0] if names else "x"


def keys() -> Iterator[Key]:
    for name in StudyFile.declared().keys() - OWN - SECTIONS.keys():
        yield Key(name, StudyFile.declared()[name], data_of(), ())
    for section, model in SECTIONS.items():
        yield from _of_section(section, model)
    for name in Score.declared().keys() - OWN - {"options", "steer"}:  # steer is read as a metric
        yield Key(f"score[0].{name}", Score.declared()[name], data_of(), ("score", 0))
    for evaluator in EVALUATORS.names():
        data = data_of(score=[entry_of(evaluator)])
        for name, field in EVALUATORS.get(evaluator).options.model_fields.items():
            yield Key(f"score[0].{name}", field, data, ("score", 0))


def _of_section(section: str, model: type[StrictModel]) -> Iterator[Key]:
    for name in model.declared().keys() - OWN:
        field = model.declared()[name]
        owner = next((x for x, names in OF_ONE.items() if name in names), None)
        data = data_of(engine={"name": owner}) if owner else data_of()
        yield Key(f"{section}.{name}", field, data, (section,))


def parts(annotation: Any) -> Iterator[Any]:
    """Yield the plain types that an annotation is made of."""
    if isinstance(annotation, FieldInfo):
        annotation = annotation.annotation
    if get_origin(annotation) is Annotated:
        yield from parts(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from parts(part)
    else:
        yield annotation


def taken(field: FieldInfo) -> set[str]:
    """Return the kinds of YAML values that a key may take."""
    found = set()
    for part in parts(field):
        plain = get_origin(part) or part
        if plain is Literal:
            continue  # its names are none of ours
        if plain is Any:
            return set(VALUES)
        for kind, names in (
            (bool, ["flag"]),
            (int, ["whole"]),
            (float, ["whole", "number"]),
            (str, ["text"]),
            (Recipe, ["text"]),  # the name of its file
            (Race, ["flag"]),  # on and off
            (NoneType, ["nothing"]),
        ):
            if plain is kind:
                found |= {*names}
        if isinstance(plain, type) and issubclass(plain, (Mapping, BaseModel)):
            found.add("mapping")
        elif isinstance(plain, type) and issubclass(plain, Sequence) and plain is not str:
            found.add("list")
    return found


def limits(annotation: Any) -> Iterator[tuple[str, float]]:
    """Yield the bounds of an annotation, such as ``("ge", 1)``, those of its parts included."""
    marks = list(getattr(annotation, "metadata", getattr(annotation, "__metadata__", ())))
    for mark in marks:
        for name in ("ge", "gt", "le", "lt"):
            if getattr(mark, name, None) is not None:
                yield name, getattr(mark, name)
        yield from limits(mark) if isinstance(mark, FieldInfo) else ()
    inside = annotation.annotation if isinstance(annotation, FieldInfo) else annotation
    if isinstance(annotation, FieldInfo) or get_origin(annotation) is not None:
        for part in [inside] if inside is not annotation else get_args(annotation):
            if get_origin(part) is not Literal and not isinstance(part, (str, int)):
                yield from limits(part)


def outside(field: FieldInfo) -> list[Any]:
    """Return numbers just outside what a key takes, and those that are none."""
    whole = "number" not in taken(field)
    step = {"ge": -1, "gt": 0, "le": 1, "lt": 0} if whole else {"ge": -1e-9, "le": 1e-9}
    found: list[Any] = [bound + step.get(name, 0) for name, bound in limits(field)]
    if not whole:
        found += [math.nan, math.inf, -math.inf]
    return found


KEYS = sorted(keys(), key=lambda key: key.path)
IDS = [f"{key.data['score'][0]['evaluator']}:{key.path}" for key in KEYS]


def refused(data: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(DocumentError) as caught:
        study_file.of_document(yaml_document.Document("study.yaml", data, {}), Path("/nowhere"))
    return [(p.path, p.rule) for p in caught.value.problems]


def test_all_sections_and_evaluators_are_looked_at() -> None:
    paths = {key.path for key in KEYS}
    assert {"name", "aggregate", "storage", "search.patience", "engine.kernels"} < paths
    assert {"items.report", "score[0].weight", "score[0].chat_template_args"} < paths
    assert {x for key in KEYS for x, _ in limits(key.field)} == {"ge", "gt", "le", "lt"}


@pytest.mark.parametrize("key", KEYS, ids=IDS)
def test_a_value_of_another_kind_is_one_problem_at_its_key(key: Key) -> None:
    wrong = VALUES.keys() - taken(key.field)
    assert wrong or key.field.annotation is Any
    for kind in sorted(wrong):
        ((path, rule),) = refused(key.with_(key.name, VALUES[kind]))
        assert path == key.path, kind
        assert rule.startswith("expected "), kind
        assert "input" not in rule.lower(), "words of pydantic"


@pytest.mark.parametrize("key", KEYS, ids=IDS)
def test_a_value_out_of_range_is_one_problem_at_its_key(key: Key) -> None:
    for value in outside(key.field):
        ((path, rule),) = refused(key.with_(key.name, value))
        assert path == key.path, value
        assert rule.startswith(("must be ", "expected ")), value


@pytest.mark.parametrize("key", KEYS, ids=IDS)
def test_a_key_that_is_misspelt_is_one_problem_that_names_it(key: Key) -> None:
    half = len(key.name) // 2
    typo = key.name[:half] + key.name[half] + key.name[half:]  # a letter twice
    (found,) = refused(key.with_(typo, key.field.default))
    assert found == (f"{key.path.removesuffix(key.name)}{typo}", f"unknown key{did(key.name)}")


def did(name: str) -> str:
    return f", did you mean '{name}'?"


@pytest.mark.parametrize("evaluator", EVALUATORS.names())
def test_every_required_key_is_missed_at_once(evaluator: str) -> None:
    needed = entry_of(evaluator).keys() - {"evaluator"}
    found = refused(data_of(score=[{"evaluator": evaluator}])) if needed else []
    rule = f"required by evaluator {evaluator!r}"
    assert {*found} == {(f"score[0].{name}", rule) for name in needed}


@pytest.mark.parametrize("name", ["recipe", "score", "baselines", "search", "items", "engine"])
def test_a_section_of_another_kind_is_one_problem_at_its_key(name: str) -> None:
    takes = {"score": "list"}.get(name, "mapping")
    for kind in sorted(VALUES.keys() - {takes, "nothing"}):
        found = refused(data_of(**{name: VALUES[kind]}))
        assert [path for path, _ in found] == [name], kind


@pytest.mark.parametrize("kind", sorted(VALUES.keys() - {"text", "mapping", "nothing"}))
def test_a_start_of_another_kind_than_a_recipe_is_one_problem_at_its_key(kind: str) -> None:
    ((path, _),) = refused(data_of(search={"start": VALUES[kind]}))
    assert path == "search.start"


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, dict[str, int]]:
    """A study file in which every key is wrong: path -> its line."""
    text, lines = ["recipe: 7"], {"recipe": 1}

    def add(path: str, line: str) -> None:
        text.append(line)
        lines[path] = len(text)

    for name in StudyFile.declared().keys() - OWN - SECTIONS.keys():
        add(name, f"{name}: [[7.5]]")
    for section, model in SECTIONS.items():
        text.append(f"{section}:")
        for name in model.declared().keys() - OWN:
            value = "{no such: {}}" if "mapping" not in taken(model.declared()[name]) else "7"
            add(f"{section}.{name}", f"  {name}: {value}")
            add(f"{section}.{name}{name}", f"  {name}{name}: 1")
    text.append("score:")
    for i, evaluator in enumerate(EVALUATORS.names()):
        text.append(f"  - evaluator: {evaluator}")
        for name, field in EVALUATORS.get(evaluator).options.model_fields.items():
            value = "{no such: {}}" if "mapping" not in taken(field) else "7"
            add(f"score[{i}].{name}", f"    {name}: {value}")
        add(f"score[{i}].weight", "    weight: -1")
        add(f"score[{i}].chance", "    chance: 1")
        add(f"score[{i}].taskk", "    taskk: 1")
    add("baselines", "baselines: 7")
    file = tmp_path / "study.yaml"
    file.write_text("\n".join(text))
    return file, lines


def test_all_problems_of_a_file_in_which_every_key_is_wrong_come_at_once_with_their_lines(
    written: tuple[Path, dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, lines = written
    monkeypatch.setattr("merge_core.validation.SHOWN", 10**6)  # else the first hundred
    for found in (checks.check, lambda path: studies.run(path, toy.Listener(), toy.never)):
        with pytest.raises(DocumentError) as caught:
            found(file)  # type: ignore[operator]
        assert {p.path: p.line for p in caught.value.problems} == lines
    assert [path.name for path in file.parent.iterdir()] == ["study.yaml"], "nothing is made"


TWO = {"evaluator": "lm_eval", "task": "other", "weight": 2.0}
CHOICES = {"normalize": {"choices": [True, False]}}
CHAT = {"apply_chat_template": True}
COMBINATIONS: list[tuple[dict[str, Any], str, str]] = [
    ({"aggregate": "min", "score": [entry_of("lm_eval"), TWO]}, "aggregate", "omit the weights"),
    (
        {"aggregate": "geometric_mean", "score": [{**entry_of("lm_eval"), "steer": "acc"}]},
        "aggregate",
        "omit `steer`",
    ),
    ({"aggregate": "apart", "score": [TWO]}, "aggregate", "at least two entries"),
    ({"aggregate": "apart", "search": {"sampler": "cma-es"}}, "search.sampler", "one objective"),
    (
        {"recipe": {**data_of()["recipe"], "parameters": CHOICES}, "search": {"sampler": "cma-es"}},
        "search.sampler",
        "choices",
    ),
    ({"score": [TWO, TWO]}, "score[1]", "stands here twice"),
    ({"score": [{**TWO, "chat_template_args": {}}]}, "score[0].chat_template_args", "needs `appl"),
    (
        {"score": [{**TWO, **CHAT, "chat_template_args": {"enable_thinking": True}}]},
        "score[0].think_end_token",
        "required with `enable_thinking: true`",
    ),
    (
        {"score": [{**entry_of("cost"), "steer": "nonsense"}]},
        "score[0].steer",
        "expected one of ",
    ),
    ({"score": [{**entry_of("bits_per_byte"), "steer": "x"}]}, "score[0].steer", "has no `metric`"),
    ({"baselines": {"uniform": "mine.yaml"}}, "baselines.uniform", "mine.yaml"),
    ({"storage": "sqlite:///:memory:"}, "storage", "outlives"),
    *(
        ({"engine": {"name": other, key: value}}, f"engine.{key}", f"only for `name: {owner}`")
        for (owner, names), other in zip(OF_ONE.items(), ("vllm", "hf"), strict=True)
        for key, value in zip(
            names, {"hf": ["cpu", "auto"], "vllm": [1, 0.5, 9]}[owner], strict=True
        )
    ),
]


@pytest.mark.parametrize(("changes", "path", "words"), COMBINATIONS)
def test_keys_that_do_not_go_together_are_one_problem_at_one_of_them(
    changes: dict[str, Any], path: str, words: str
) -> None:
    ((where, rule),) = problems_of(**changes)
    assert where == path
    assert words in rule


def test_combinations_do_not_hide_each_other_nor_a_wrong_key() -> None:
    together = [x for x in COMBINATIONS if x[1].startswith(("engine.max", "score[0].chat"))]
    together += [({"search": {"sampler": "cma-es", "trials": 0}}, "search.trials", "at least 1")]
    changes: dict[str, Any] = {}
    for part, _, _ in together:
        changes |= part
    found = dict(problems_of(**changes))
    assert found.keys() == {path for _, path, _ in together}


@pytest.mark.parametrize("key", KEYS, ids=IDS)
def test_the_studies_that_these_tests_spoil_are_right_themselves(key: Key) -> None:
    document = yaml_document.Document("study.yaml", key.data, {})
    assert study_file.of_document(document, Path("/nowhere")).scores
