"""Numbers become paths inside every budget, and paths become the numbers that stand for them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merge_core.errors import MergeError
from search.space.hops import Hop, slices
from search.space.paths import IN, NONE, OUT, Paths
from search.spec.layer_path import PATH, LayerPath
from search.spec.ranges import Knob

A, B = "org/a", "org/b"
SIZES = {A: [10] * 5, B: [10, 30, 10]}
SCALE = Knob(PATH, 0.5, 1.5)
Drawn = dict[str, Any]


def paths(**said: Any) -> Paths:
    return Paths(LayerPath((A, B), **{"max_layers": 6, **said}), SIZES)


def row(made: Paths, **drawn: Any) -> list[str]:
    """Return a path as ``a:0``; what is not said is as in the entry model's own."""
    point = {**made.own(A), **{key.replace("_", " "): x for key, x in drawn.items()}}
    return [f"{hop.model[-1]}:{hop.layer}" for hop in made.hops(point)]


def of(*layers: str) -> list[Hop]:
    return [Hop(f"org/{text[0]}", int(text[2:])) for text in layers]


def names(made: Paths) -> list[str]:
    return [number.name for number in made.numbers]


@st.composite
def spaces(draw: Any) -> Paths:
    """Return paths of drawn budgets that fit their parents."""
    sizes = {
        name: draw(st.lists(st.integers(1, 9), min_size=2, max_size=5)) for name in ("a", "b", "c")
    }
    first = draw(st.integers(1, len(sizes["a"]) - 1))
    said = LayerPath(
        ("a", "b", "c"),
        repeats=draw(st.integers(1, 3)),
        max_layers=draw(st.integers(2, 9)),
        min_layers=draw(st.integers(1, 5)),
        max_bytes=draw(st.none() | st.integers(10, 80)),
        keep_first=first,
        keep_last=draw(st.integers(1, len(sizes["a"]) - first)),
        encoding=draw(st.sampled_from(("hops", "signs", "flags"))),
        input_scale=draw(st.sampled_from((None, SCALE, Knob(PATH, 1.25, 1.5)))),
    )
    made = Paths(said, sizes)
    while made.problems():  # widen what does not fit
        said = replace(said, max_layers=made.most + 2, min_layers=1, max_bytes=None, repeats=2)
        made = Paths(said, sizes)
    return made


@st.composite
def points(draw: Any) -> tuple[Paths, Drawn]:
    made = draw(spaces())
    point = {
        n.name: draw(st.sampled_from(n.choices) if n.choices else st.floats(n.low, n.high))
        for n in made.numbers
    }
    return made, point


@settings(max_examples=200, deadline=None)
@given(points())
def test_every_point_is_a_path_inside_all_budgets(drawn: tuple[Paths, Drawn]) -> None:
    made, point = drawn
    said, hops = made.said, made.hops(point)
    layers = [hop.of for hop in hops]
    assert tuple(layers[: said.keep_first]) == made.first
    assert tuple(layers[len(layers) - said.keep_last :]) == made.last
    assert max(said.min_layers, said.keep_first + said.keep_last) <= len(hops) <= made.most
    assert all(layers.count(layer) <= said.repeats for layer in layers)
    if said.max_bytes is not None:
        assert sum(made.sizes[model][i] for model, i in set(layers)) <= said.max_bytes
    assert all(said.input_scale is not None or hop.scale == 1 for hop in hops)


@settings(max_examples=200, deadline=None)
@given(points())
def test_values_of_a_path_make_that_path(drawn: tuple[Paths, Drawn]) -> None:
    made, point = drawn
    hops = made.hops(point)
    assert made.hops(made.drawn(hops)) == hops


@settings(max_examples=200, deadline=None)
@given(points())
def test_mended_values_are_drawn_ones_that_make_the_same_path(drawn: tuple[Paths, Drawn]) -> None:
    made, point = drawn
    mended = made.mended(point)
    assert made.hops(mended) == made.hops(point)
    assert made.mended(mended) == mended
    for n in made.numbers:
        value = mended[n.name]
        assert value in n.choices if n.choices else n.low <= float(value) <= n.high


@settings(max_examples=200, deadline=None)
@given(points())
def test_what_changes_nothing_needs_no_value(drawn: tuple[Paths, Drawn]) -> None:
    made, point = drawn
    off = {n.name for n in made.numbers if n.hangs_on and point[n.hangs_on] in (NONE, False)}
    assert made.hops({k: x for k, x in point.items() if k not in off}) == made.hops(point)


@settings(max_examples=100, deadline=None)
@given(points())
def test_slices_are_the_path_in_as_few_ranges_as_can_be(drawn: tuple[Paths, Drawn]) -> None:
    made, point = drawn
    hops, told = made.hops(point), slices(made.hops(point))
    found: list[Hop] = []
    for one in told:
        (source,) = one["sources"]
        first, end = source["layer_range"]
        inside = [Hop(source["model"], i) for i in range(first, end)]
        found += [inside[0]._replace(scale=one.get("input_scale", 1.0)), *inside[1:]]
    assert found == list(hops)
    for (a, b), other in zip(pairwise(told), told[1:], strict=True):
        (left,), (right,) = a["sources"], b["sources"]
        follows = left["model"] == right["model"]
        follows &= left["layer_range"][1] == right["layer_range"][0]
        assert not follows or "input_scale" in other


def test_names_say_hop_or_repeat_and_layer() -> None:
    assert names(paths()) == [f"path/hop {i}" for i in (1, 2, 3, 4)]
    assert len(names(paths(max_layers=14, repeats=2))) == 12
    assert names(paths(max_layers=14, repeats=2))[0] == "path/hop 01"
    between = ["a:1", "a:2", "a:3", "b:0", "b:1", "b:2"]
    assert names(paths(encoding="signs")) == [f"path/1/{x}" for x in between]
    twice = ["1/a:1", "1/a:4", "1/b:2", "2/a:0", "2/a:1"]
    assert {f"path/{x}" for x in twice} < {*names(paths(encoding="flags", repeats=2))}
    scaled = names(paths(encoding="hops", max_layers=3, input_scale=SCALE))
    assert scaled == ["path/hop 1", "path/scale 1", "path/scale exit"]


def test_models_of_one_last_name_are_called_by_their_whole_names() -> None:
    made = Paths(LayerPath(("x/m", "y/m", "z/n")), {"x/m": [1] * 3, "y/m": [1], "z/n": [1]})
    assert set(made.labels.values()) == {"x/m:1", "y/m:0", "n:0"}


def test_hops_and_flags_keep_the_earlier_ones_and_signs_the_largest() -> None:
    made = paths(max_layers=9)
    same = {f"path/hop {i}": "a:2" for i in (1, 2, 3)}
    assert row(made, **same) == ["a:0", "a:2", "a:4"]
    on = {f"path/1/{x}": True for x in ("a:1", "a:2", "a:3", "b:0", "b:1")}
    assert row(paths(max_layers=4, encoding="flags"), **on) == ["a:0", "a:1", "a:2", "a:4"]
    signs = dict(zip(on, (0.3, 0.9, 0.1, -0.5, 0.7), strict=True))
    assert row(paths(max_layers=4, encoding="signs"), **signs) == ["a:0", "a:2", "b:1", "a:4"]


def test_bytes_count_each_layer_once() -> None:
    made = paths(max_layers=9, repeats=3, max_bytes=30)
    wanted = {"path/hop 1": "a:2", "path/hop 2": "a:2", "path/hop 3": "b:0", "path/hop 4": "a:0"}
    assert row(made, **wanted) == ["a:0", "a:2", "a:2", "a:0", "a:4"]


def test_a_path_that_is_too_short_gets_the_first_layers_or_those_of_the_largest_numbers() -> None:
    off = dict.fromkeys(names(paths(min_layers=4)), NONE)
    assert row(paths(min_layers=4), **off) == ["a:0", "a:1", "a:2", "a:4"]
    flags = paths(min_layers=4, encoding="flags")
    assert row(flags, **dict.fromkeys(names(flags), False)) == ["a:0", "a:1", "a:2", "a:4"]
    signs = paths(min_layers=4, encoding="signs")
    below = {**dict.fromkeys(names(signs), -0.9), "path/1/b:1": -0.1, "path/1/a:3": -0.2}
    assert row(signs, **below) == ["a:0", "a:3", "b:1", "a:4"]


@pytest.mark.parametrize("encoding", ["hops", "signs", "flags"])
def test_a_parents_own_layers_stand_between_the_kept_ones(encoding: str) -> None:
    made = paths(encoding=encoding)
    assert [hop.of for hop in made.hops(made.own(A))] == [(A, i) for i in range(5)]
    assert [hop.of for hop in made.hops(made.own(B))] == [(A, 0), (B, 1), (A, 4)]


def test_signs_start_two_deviations_from_zero() -> None:
    made = paths(encoding="signs")
    own = made.own(A)
    assert {own[f"path/1/a:{i}"] for i in (1, 2, 3)} == {IN}
    assert {own[f"path/1/b:{i}"] for i in (0, 1, 2)} == {OUT}


def test_a_parent_that_is_too_deep_gives_its_first_layers() -> None:
    made = paths(max_layers=3)
    assert [hop.of for hop in made.hops(made.own(A))] == [(A, 0), (A, 1), (A, 4)]


def test_scales_stand_before_their_layers_and_before_the_last_ones() -> None:
    made = paths(input_scale=SCALE)
    point = {**made.own(A), "path/scale 2": 0.75, "path/scale exit": 1.25}
    assert [hop.scale for hop in made.hops(point)] == [1, 1, 0.75, 1, 1.25]
    assert slices(made.hops(point)) == [
        {"sources": [{"model": A, "layer_range": [0, 2]}]},
        {"sources": [{"model": A, "layer_range": [2, 4]}], "input_scale": 0.75},
        {"sources": [{"model": A, "layer_range": [4, 5]}], "input_scale": 1.25},
    ]


@pytest.mark.parametrize(
    ("hops", "rule"),
    [
        (of("a:1", "a:4"), "every path begins with the first 1 layers of the entry model org/a, "),
        (of("a:0", "a:1"), "every path ends with the last 1 layers of the entry model org/a, this"),
        (of("a:0"), "every path ends with the last 1 layers"),
        (of("a:0", "b:2", "b:2", "a:4"), "the nearest path that the study can say has 3 layers"),
        (of("a:0", "b:2", "b:1", "a:4"), "the nearest path that the study can say has 3 layers"),
        ([*of("a:0"), Hop(B, 1, 0.5), *of("a:4")], "input_scale 0.5 before org/b:1, where the st"),
    ],
)
def test_what_the_study_cannot_say_is_refused(hops: list[Hop], rule: str) -> None:
    with pytest.raises(MergeError, match=f"^{rule}"):
        paths(encoding="flags").drawn(hops)


@pytest.mark.parametrize(
    ("said", "key", "rule"),
    [
        ({"keep_first": 3, "keep_last": 3}, "keep_first", "with keep_last they are 6, and the ent"),
        ({"keep_first": 3, "keep_last": 2, "max_layers": None}, "max_layers", "nothing is left"),
        ({"min_layers": 9, "max_layers": None}, "min_layers", "expected at most 5, which a path"),
        ({"max_bytes": 59}, "max_bytes", "2 layers, the fewest of a path, take up to 60 bytes, g"),
    ],
)
def test_budgets_that_do_not_fit_the_parents_are_told(said: Any, key: str, rule: str) -> None:
    ((where, told),) = paths(**said).problems()
    assert where == key
    assert told.startswith(rule)
