"""What a study file may say of layer paths, and every rule by its exact key path."""

from __future__ import annotations

from typing import Any

import pytest

from search.spec.layer_path import LayerPath, parse
from search.spec.ranges import Knob

TWO = {"parents": ["org/a", "org/b"]}
SIZE = "expected a number of bytes, such as 800MB, 1.5GB or 1.5GiB"


def problems_of(data: Any) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    assert parse(data, "here", found) is None
    return found


def path_of(**more: Any) -> LayerPath:
    found: list[tuple[str, str]] = []
    path = parse({**TWO, **more}, "here", found)
    assert path is not None, found
    return path


def test_everything_but_the_parents_has_a_default() -> None:
    assert path_of() == LayerPath(("org/a", "org/b"), 1, None, 1, None, 1, 1, "hops", None)


def test_every_key_is_read() -> None:
    said = path_of(
        parents=[{"path": "org/a", "revision": "v1"}, "org/b"],
        repeats=2,
        max_layers=40,
        min_layers=8,
        max_bytes="1.5GB",
        keep_first=2,
        keep_last=3,
        encoding="signs",
        input_scale={"low": 0.5, "high": 1.5, "start": 0.9},
    )
    scale = Knob(("slices", "path", "input_scale"), 0.5, 1.5, start=0.9)
    parents = ("org/a@v1", "org/b")
    assert said == LayerPath(parents, 2, 40, 8, 1_500_000_000, 2, 3, "signs", scale)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (4096, 4096),
        ("800MB", 800_000_000),
        ("1.5 GiB", 3 * 2**29),
        ("2k", 2000),
        ("3KiB", 3072),
        ("7", 7),
    ],
)
def test_bytes_are_a_number_or_a_text_with_a_unit(text: str | int, count: int) -> None:
    assert path_of(max_bytes=text).max_bytes == count


@pytest.mark.parametrize(
    ("change", "path", "rule"),
    [
        ({"parents": []}, "here.parents", "expected a list of models, the entry model first, got"),
        ({"parents": "org/a"}, "here.parents", "expected a list of models, the entry model first"),
        ({"parents": ["org/a", 7]}, "here.parents[1]", "expected a model, got 7"),
        ({"parents": ["b", "b"]}, "here.parents[1]", "listed before; `repeats` says how often"),
        ({"repeat": 2}, "here.repeat", "unknown key, did you mean 'repeats'?"),
        ({"repeats": 0}, "here.repeats", "must be at least 1, got 0"),
        ({"repeats": 1.0}, "here.repeats", "expected a whole number, got 1.0"),
        ({"max_layers": 2}, "here.max_layers", "must be above keep_first + keep_last, which are 2"),
        ({"max_layers": 4, "min_layers": 5}, "here.min_layers", "must be at most max_layers, whi"),
        ({"max_bytes": "2 elephants"}, "here.max_bytes", f"{SIZE}, got '2 elephants'"),
        ({"max_bytes": 0}, "here.max_bytes", f"{SIZE}, got 0"),
        ({"max_bytes": 1.5}, "here.max_bytes", f"{SIZE}, got 1.5"),
        ({"keep_first": 0}, "here.keep_first", "a path begins with the entry model's first layer"),
        ({"keep_last": -1}, "here.keep_last", "a path ends with the entry model's last layer: 1"),
        ({"encoding": "sings"}, "here.encoding", "expected one of hops, signs, flags, got 'sings'"),
        ({"input_scale": 1.5}, "here.input_scale", "expected a range {low, high}, got 1.5"),
        ({"input_scale": {"low": 2}}, "here.input_scale.high", "required in a range"),
        (
            {"input_scale": {"low": 1, "high": 2, "per": "layer"}},
            "here.input_scale.per",
            "every hop has a factor of its own in one range; omit it",
        ),
    ],
)
def test_rule_is_told_at_its_key(change: dict[str, Any], path: str, rule: str) -> None:
    ((where, told),) = problems_of({**TWO, **change})
    assert where == path
    assert told.startswith(rule)


def test_all_problems_come_at_once() -> None:
    wrong = {
        "parents": [7],
        "repeats": 0,
        "encodings": "hops",
        "input_scale": {"low": 3, "high": 1},
    }
    assert {where for where, _ in problems_of(wrong)} == {
        "here.parents[0]",
        "here.repeats",
        "here.encodings",
        "here.input_scale",
    }


def test_parents_are_required() -> None:
    assert problems_of({}) == [("here.parents", "required: the models whose layers there are")]
