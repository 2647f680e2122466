"""What a strict model refuses, in the words of the file's language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError, field_validator

from merge_core.errors import Problems
from merge_core.validation import StrictModel, Words, failed, kind_of, read, read_by


def _even(value: Any, path: str, problems: Problems) -> int:
    if value == "two":
        problems += [(path, "is a text"), (f"{path}.parts[0]", "is odd")]
    return 2


def problems_in(values: Any, model: type[StrictModel]) -> Problems:
    problems: Problems = []
    found = read(model, values, "", problems)
    assert (found is None) == bool(problems)
    return problems


class Inner(StrictModel):
    size: int = Field(1, ge=1, lt=9)
    share: float = Field(0.5, gt=0, le=1)
    amount: int | float = Field(1, ge=0)


class Outer(StrictModel):
    needed: str
    worded: str = Field("x", title="required by the law")
    inner: Inner = Inner()
    many: list[Inner] = Field([])
    flag: bool = False
    mode: Literal["fast", "slow"] | None = None
    either: Annotated[Annotated[str, Field(min_length=1)] | list[str], Words("a name or names")] = (
        "x"
    )
    plain: str | list[str] = "x"
    renamed: int = Field(1, validation_alias="other")
    read: Annotated[Any, read_by(_even)] = 2
    checked: int = 0

    @field_validator("checked")
    @classmethod
    def _small(cls, value: int) -> int:
        if value > 5:
            raise ValueError("more than five")
        return value


@pytest.mark.parametrize(
    ("values", "path", "rule"),
    [
        ({"nedeed": 1}, "nedeed", "unknown key, did you mean 'needed'?"),
        ({"renamed": 1}, "renamed", "unknown key, did you mean 'read'?"),
        ({5: 1}, "5", "unknown key"),
        ({"inner": {"syze": 1}}, "inner.syze", "unknown key, did you mean 'size'?"),
        ({"needed": None}, "needed", "expected a text, got nothing"),
        ({"flag": 1}, "flag", "expected true or false, got 1"),
        ({"other": True}, "other", "expected a whole number, got true"),
        ({"inner": {"size": 1.0}}, "inner.size", "expected a whole number, got 1.0"),
        ({"inner": {"size": 0}}, "inner.size", "must be at least 1, got 0"),
        ({"inner": {"size": 9}}, "inner.size", "must be below 9, got 9"),
        ({"inner": {"share": 0}}, "inner.share", "must be above 0, got 0"),
        ({"inner": {"share": 1.5}}, "inner.share", "must be at most 1, got 1.5"),
        ({"inner": {"share": "1"}}, "inner.share", "expected a number, got '1'"),
        ({"inner": {"amount": True}}, "inner.amount", "expected a number, got true"),
        ({"inner": {"amount": float("nan")}}, "inner.amount", "expected a number, got nan"),
        ({"inner": {"amount": -1}}, "inner.amount", "must be at least 0, got -1"),
        ({"inner": 3}, "inner", "expected a mapping, got 3"),
        ({"many": {}}, "many", "expected a list, got a mapping"),
        ({"many": [{}, {"size": "x"}]}, "many[1].size", "expected a whole number, got 'x'"),
        ({"mode": "fats"}, "mode", "expected one of fast, slow, got 'fats', did you mean 'fast'?"),
        ({"mode": 1}, "mode", "expected one of fast, slow, got 1"),
        ({"either": ""}, "either", "expected a name or names, got ''"),
        ({"either": ["a", 5]}, "either", "expected a name or names, got ['a', 5]"),
        ({"plain": 5}, "plain", "expected a text or a list, got 5"),
        ({"checked": 6}, "checked", "more than five"),
    ],
)
def test_one_wrong_value_is_one_problem_at_its_path(
    values: dict[Any, Any], path: str, rule: str
) -> None:
    given = {"needed": "x", "worded": "x", **values}
    assert problems_in(given, Outer) == [(path, rule)]


def test_a_missing_key_is_required_in_the_words_of_its_title() -> None:
    class Titled(StrictModel):
        plain: int
        titled: int = Field(title="required in a range")

    found = problems_in({}, Titled)
    assert found == [("plain", "required"), ("titled", "required in a range")]


def test_a_reader_may_name_several_places_inside_its_value() -> None:
    assert problems_in({"needed": "x", "worded": "x", "read": "two"}, Outer) == [
        ("read", "is a text"),
        ("read.parts[0]", "is odd"),
    ]


def test_a_validator_may_name_several_places_inside_its_value() -> None:
    class Failing(StrictModel):
        many: list[int] = Field([])

        @field_validator("many")
        @classmethod
        def _none(cls, value: list[int]) -> list[int]:
            raise failed([((1,), "is odd"), (("parts", 0), "is odd, too"), ((), "is a list")])

    assert problems_in({"many": [1, 1]}, Failing) == [
        ("many[1]", "is odd"),
        ("many.parts[0]", "is odd, too"),
        ("many", "is a list"),
    ]


def test_all_problems_come_at_once() -> None:
    given = {"inner": {"size": 0, "share": 0}, "mode": "x", "flag": 0, "more": 1}
    paths = [path for path, _ in problems_in(given, Outer)]
    assert paths == ["needed", "inner.size", "inner.share", "flag", "mode", "more"]


def test_what_is_written_in_code_is_refused_in_the_same_words() -> None:
    with pytest.raises(ValidationError, match="must be at least 1, got 0"):
        Inner(size=0)


def test_numbers_stay_what_they_are() -> None:
    whole, real = Inner(amount=3).amount, Inner(amount=3.0).amount
    assert (type(whole), type(real)) == (int, float)
    assert Inner(amount=3) == Inner(amount=3)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (str, "a text"),
        (bool | None, "true or false"),
        (int | float, "a number"),
        (float | str, "a number or a text"),
        (Literal["a", "b"], "one of a, b"),
        (Mapping[str, Any], "a mapping"),
        (dict[str, int] | str, "a mapping or a text"),
        (Sequence[str], "a list"),
        (Inner, "a mapping"),
        (Annotated[str, Words("a file")] | None, "a file"),
        (Annotated[int, Field(ge=1)], "a whole number"),
    ],
)
def test_a_type_is_told_in_words(kind: Any, words: str) -> None:
    assert kind_of(kind) == words
