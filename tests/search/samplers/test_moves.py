"""Moves keep a path a path, children are new, and an order is found that random draws do not find.

The landscapes are made up: a row is worth less the more pairs of its layers stand the wrong way
round (Kendall's distance) and the more of them are missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import create_trial
from scipy.stats import kendalltau

from search.samplers.ask import ask
from search.samplers.coordinates import Coordinates
from search.samplers.moves import MovesSampler
from search.samplers.registry import find
from search.samplers.rows import (
    MOVES,
    NONE,
    Gene,
    Hops,
    Random,
    crossed,
    rows_of_flags,
    rows_of_hops,
)
from search.samplers.screen import MOST, Screen, _squared
from search.samplers.testing import SamplerContract

LAYERS = tuple(f"{model}:{i}" for model in "ab" for i in range(4))
CHOICE = CategoricalDistribution((NONE, *LAYERS))
ROW = {f"path/hop {i}": CHOICE for i in range(1, 9)}
SCALES = {f"path/scale {i}": FloatDistribution(0.5, 1.5) for i in range(1, 9)}
ORDER = ("b:2", "a:0", "a:3", "b:0", "b:1", "a:1", "b:3", "a:2")
HOPS = Hops(tuple(ROW), {}, LAYERS, None)


class TestMoves(SamplerContract):
    name = "moves"


class OnceEach:
    """``ask.Conditions``: a layer counts once in a path, what is none stands at the end."""

    deciding = ()

    def active(self, drawn: Mapping[str, Any]) -> frozenset[str]:
        return frozenset(ROW)

    def mended(self, drawn: Mapping[str, Any]) -> Mapping[str, Any]:
        layers = dict.fromkeys(gene.layer for gene in HOPS.read(drawn))
        return {**drawn, **HOPS.written([Gene(layer) for layer in layers])}


def worth(point: Mapping[str, Any]) -> float:
    """Return 0 for ``ORDER``, less for every pair of its layers that a path does not have so."""
    there = [gene.layer for gene in HOPS.read(OnceEach().mended(point))]
    at = {layer: i for i, layer in enumerate(there)}
    right = sum(at.get(a, 9) < at.get(b, -1) for a, b in combinations(ORDER, 2))
    return float(right - 28)


def trials_needed(name: str, seed: int, most: int) -> int:
    """Return after how many trials the order was found; ``most`` + 1: it was not."""
    study, conditions = optuna.create_study(direction="maximize"), OnceEach()
    start = HOPS.written([Gene(f"a:{i}") for i in range(4)])
    study.add_trial(create_trial(params=start, distributions=ROW, value=worth(start)))
    for number in range(1, most + 1):
        trial = ask(study, ROW, find(name), start, seed, number, conditions)
        value = worth(trial.params)
        study.tell(trial, value)
        if value == 0:
            return number
    return most + 1


def test_an_order_of_eight_layers_is_found_in_a_hundred_trials_and_not_at_random() -> None:
    found = [trials_needed("moves", seed, 100) for seed in range(3)]
    assert max(found) <= 100
    assert trials_needed("random", 0, 300) == 301


def test_auto_takes_moves_where_there_are_hops_and_not_elsewhere() -> None:
    flags = {"path/1/a:0": CategoricalDistribution((False, True))}
    signs = {"path/1/a:0": FloatDistribution(-1.0, 1.0), "path/1/a:1": FloatDistribution(-1.0, 1.0)}
    kinds = [type(find("auto")(space, None, 0)).__name__ for space in (ROW, flags, signs)]
    assert kinds == ["MovesSampler", "CatCmaSampler", "CmaSampler"]


def test_no_child_is_a_candidate_that_was_there() -> None:
    study, conditions = optuna.create_study(direction="maximize"), OnceEach()
    start = HOPS.written([Gene("a:0")])
    for number in range(40):
        trial = ask(study, ROW, find("moves"), start, 0, number, conditions)
        if number % 4:  # the others fail, or stay in flight
            study.tell(trial, worth(trial.params))
    counted = [tuple(conditions.mended(t.params).values()) for t in study.trials]
    assert len(set(counted)) == 40


def test_a_baseline_is_a_parent_too() -> None:
    study = optuna.create_study(direction="maximize")
    best = HOPS.written([Gene(layer) for layer in ORDER])
    study.add_trial(
        create_trial(params=best, distributions=ROW, value=0.0, user_attrs={"baseline": "own"})
    )
    trial = ask(study, ROW, find("moves"), best, 0, 1)
    same = sum(trial.params[name] == best[name] for name in ROW)
    assert 0 < same < 8 or len(HOPS.read(trial.params)) != 8


def test_several_objectives_spread_over_the_front() -> None:
    """More layers in order are better, and fewer layers are: each number of them has its best."""
    study = optuna.create_study(directions=["maximize", "maximize"])
    conditions, start = OnceEach(), HOPS.written([Gene(f"a:{i}") for i in range(4)])
    for number in range(100):
        trial = ask(study, ROW, find("moves"), start, 0, number, conditions)
        mended = HOPS.read(conditions.mended(trial.params))
        study.tell(trial, [worth(trial.params), -float(len(mended))])
    counts = {-t.values[1] for t in study.best_trials}
    assert len(counts) >= 6
    best = {
        count: max(t.values[0] for t in study.trials if -t.values[1] == count) for count in counts
    }
    most = {count: count * (count - 1) / 2 - 28 for count in counts}
    assert sum(most[count] - best[count] for count in counts) <= 8


genes = st.lists(st.sampled_from(LAYERS).map(Gene), min_size=1, max_size=8)


@settings(max_examples=200, deadline=None)
@given(genes, st.integers(0, 2**32 - 1))
def test_every_move_makes_a_row_of_layers(row: list[Gene], seed: int) -> None:
    for move, _ in MOVES:
        made = move(row, HOPS, Random(seed))
        assert {gene.layer for gene in made} <= {*LAYERS}
        sizes = {"swap": 0, "move": 0, "replace": 0}
        change = len(made) - len(row)
        assert change == sizes.get(move.__name__, change)
        assert (move.__name__ != "drop") or change < 0
        assert (move.__name__ not in ("insert", "repeat")) or change > 0
        if move.__name__ in ("swap", "move"):
            assert sorted(made) == sorted(row)


@settings(max_examples=50, deadline=None)
@given(genes, genes, st.integers(0, 2**32 - 1))
def test_a_crossed_row_begins_as_the_one_and_ends_as_the_other(
    one: list[Gene], other: list[Gene], seed: int
) -> None:
    made = crossed(one, other, Random(seed))
    assert any(
        made == one[:i] + other[j:] for i in range(len(one) + 1) for j in range(len(other) + 9)
    )


def test_written_rows_are_read_back_without_their_gaps() -> None:
    (row,) = rows_of_hops({**ROW, **SCALES})
    row_of = [Gene("a:1", 0.75), Gene("b:2", 1.25)]
    point = row.written(row_of)
    assert row.read(point) == row_of
    assert point["path/hop 3"] == NONE
    gap = {**point, "path/hop 2": NONE, "path/hop 5": "b:3", "path/scale 5": 0.5}
    assert row.read(gap) == [Gene("a:1", 0.75), Gene("b:3", 0.5)]
    assert row.names == {*ROW, *SCALES}
    assert row.usual == 1.0
    above = dict.fromkeys(SCALES, FloatDistribution(1.25, 1.5))
    assert rows_of_hops({**ROW, **above})[0].usual == 1.25
    grid = dict.fromkeys(SCALES, FloatDistribution(0.55, 1.55, step=0.2))
    assert rows_of_hops({**ROW, **grid})[0].usual == pytest.approx(0.95)


def test_rows_are_known_by_their_names_and_choices() -> None:
    other = {
        "path/hop 1": CategoricalDistribution(("x", "y")),
        "hop 2": CHOICE,
        "path/1/a:0": CategoricalDistribution(("x", "y")),
        "path/1/a:1": CategoricalDistribution((False, True)),
    }
    assert rows_of_hops(other) == []
    assert rows_of_flags(other) == [("path/1/a:1",)]


def screen_of(points: list[dict[str, Any]], losses: list[float]) -> Screen:
    return Screen([HOPS], Coordinates(tuple(ROW.items())), points, np.array(losses))


def test_distance_of_two_orders_is_kendalls() -> None:
    random = np.random.default_rng(0)
    orders = [[LAYERS[i] for i in random.permutation(8)] for _ in range(6)]
    points = [HOPS.written([Gene(x) for x in order]) for order in orders]
    before = screen_of(points, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0])._parts[1]
    found = _squared(before, before)
    for i, j in combinations(range(6), 2):
        places = ([order.index(x) for x in LAYERS] for order in (orders[i], orders[j]))
        wrong = 28 * (1 - kendalltau(*places).statistic) / 2
        assert found[i, j] == pytest.approx(4 * wrong)


def test_screen_tells_near_the_best_from_near_the_worst() -> None:
    random = np.random.default_rng(1)
    orders = [[LAYERS[i] for i in random.permutation(8)] for _ in range(60)]
    points = [HOPS.written([Gene(x) for x in order]) for order in orders]
    made = screen_of(points, [-worth(point) for point in points])
    best = HOPS.written([Gene(x) for x in ORDER])
    worst = HOPS.written([Gene(x) for x in reversed(ORDER)])
    assert made.best([worst, best]) == 1


def test_screen_of_many_trials_keeps_the_best_and_the_last() -> None:
    random = np.random.default_rng(2)
    losses = random.permutation(MOST * 2).astype(float)
    points = [HOPS.written([Gene(LAYERS[i]) for i in random.permutation(8)]) for _ in losses]
    made = screen_of(points, losses.tolist())
    assert len(made._targets) == MOST
    assert isinstance(MovesSampler(ROW, points[0], 0), MovesSampler)
