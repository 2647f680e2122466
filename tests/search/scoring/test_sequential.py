"""The test that stops candidates: its error by full enumeration, its answers in known cases."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from merge_core.errors import ParameterError
from search.scoring.intervals import Vector
from search.scoring.sequential import Form, refuted
from search.scoring.units import Units

Scores = Mapping[str, Vector]
SPAN = {"t": 1.0}


def alone(**numbers: int) -> Units:
    return Units.of({t: [f"c{i}" for i in range(n)] for t, n in numbers.items()}, 0)


def ever_stopped(
    form: Form, candidate: Scores, rival: Scores, units: Units, error: float, span: float = 1.0
) -> bool:
    """Whether it is refuted at the last look at which an error can still be made."""
    there = units.prefix(units.count - 1)
    seen = {t: x[: there[t]] for t, x in candidate.items()}
    return refuted(form, seen, rival, units, dict.fromkeys(candidate, span), error)


def share_stopped(
    form: Form, candidate: Scores, rival: Scores, units: Units, error: float
) -> float:
    """The share over every order of each task's items and of its runs among the units."""
    pairs = {t: [*zip(candidate[t].tolist(), rival[t].tolist(), strict=True)] for t in candidate}
    runs = {t: np.diff(units.ends[t], prepend=0).tolist() for t in candidate}
    orders = {t: Counter(itertools.permutations(x)) for t, x in pairs.items()}  # equal ones once
    placed = {t: sorted(set(itertools.permutations(x))) for t, x in runs.items()}
    stopped = times = 0
    for chosen in itertools.product(*placed.values()):
        now = Units({t: tuple(itertools.accumulate(x)) for t, x in zip(runs, chosen, strict=True)})
        for order in itertools.product(*orders.values()):
            a, b = (
                {t: np.array(x)[:, i] for t, x in zip(pairs, order, strict=True)} for i in (0, 1)
            )
            count = math.prod(orders[t][x] for t, x in zip(pairs, order, strict=True))
            stopped += count * ever_stopped(form, a, b, now, error)
            times += count
    expected = math.prod(math.factorial(len(x)) for x in pairs.values())
    assert times == expected * math.prod(len(x) for x in placed.values())
    return stopped / times


@pytest.mark.parametrize("error", [0.1, 0.3])
@pytest.mark.parametrize(
    ("candidate", "rival"),
    [
        ([1, 1, 1, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0, 0]),
        ([1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0, 0]),
        ([0.9, 0.9, 0.0, 1.0, 0.0, 0.5], [0.8, 0.8, 0.2, 0.2, 0.2, 0.6]),
        ([0, 0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0, 1]),
        ([1, 1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_of_all_orders_of_a_tiny_pool_at_most_the_stated_share_stops_a_true_claim(
    candidate, rival, error
):
    a, b = {"t": np.array(candidate, float)}, {"t": np.array(rival, float)}
    form = Form({"t": 1.0}, float(np.mean(candidate)))  # just true
    assert share_stopped(form, a, b, alone(t=len(candidate)), error) <= error


@pytest.mark.parametrize("error", [0.25, 0.4])
def test_of_all_orders_of_two_tasks_in_uneven_units_at_most_the_stated_share_stops(error):
    candidate = {"a": np.array([1.0, 0, 0, 1]), "b": np.array([0.0, 0.5, 1])}
    rival = {"a": np.array([1.0, 1, 0, 0]), "b": np.array([0.0, 1, 0.5])}
    form = Form({"a": 0.7, "b": 0.6}, 0.7 * 0.5 + 0.6 * 0.5)
    uneven = Units({"a": (1, 2, 4), "b": (1, 2, 3)})  # one of three units has two items of a
    assert share_stopped(form, candidate, rival, uneven, error) <= error


@pytest.mark.parametrize("error", [0.2, 0.5])
@pytest.mark.parametrize("form", [Form({"a": 0.5, "b": 0.5}, 0.45), Form({"b": 1.0}, 0.5)])
def test_units_without_an_item_of_a_tiny_task_keep_the_stated_error(form, error):
    candidate = {"a": np.array([1.0, 0, 1, 0, 0]), "b": np.array([0.0, 1])}
    rival = {"a": np.array([1.0, 0, 0, 0, 1]), "b": np.array([1.0, 1])}
    units = Units({"a": (1, 2, 3, 4, 5), "b": (0, 1, 1, 2, 2)})
    assert share_stopped(form, candidate, rival, units, error) <= error


def wealth_ever(c: Sequence[float], r: Sequence[float], least: float, error: float) -> float:
    """The formula of the module, one item a unit, scores in [0, 1], one unit after the other."""
    count = len(r)
    small = math.sqrt(-2 * math.log(error) / count)
    number = 2 + math.ceil(math.log(1.5 / small) / math.log(2.5))
    wealth, most = np.ones(number), 0.0
    for j in range(len(c)):
        rest, rho = (count * least - sum(c[:j])) / (count - j), float(np.mean(r[j:]))
        guess = 30 * np.var(r)
        covariance = variance = 0.0
        if j:
            covariance, variance = j * np.cov(c[:j], r[:j], ddof=0)[0, 1], j * np.var(r[:j])
        slope = round(min(max((covariance + 0.6 * guess) / (variance + guess), 0.0), 1.0), 1)
        left = np.array(c[:j]) - slope * np.array(r[:j])
        spread = j * np.var(left) if j else 0.0
        sd = math.sqrt((4 * max(0.64 * np.var(r), 0.01) + spread) / (4 + j))
        top = 1 - slope * min(r) - rest + slope * rho
        gain = c[j] - rest - slope * (r[j] - rho)
        for g, size in enumerate(np.geomspace(small, 1.5, number)):
            wealth[g] *= 1 - min(size / (1 + size**2) / sd, 0.95 / top) * gain
        most = max(most, float(wealth.mean()))
    return most


def test_the_answer_is_that_of_the_formula_computed_one_unit_after_the_other():
    stream = np.random.default_rng(9)
    answers = []
    for _ in range(60):
        rival = (stream.uniform(size=60) < 0.7).astype(float)
        candidate = np.where(stream.uniform(size=60) < 0.6, rival, stream.integers(0, 2, 60))
        least, seen = float(rival.mean()) + 0.05, candidate[:40]
        ours = refuted(Form({"t": 1.0}, least), {"t": seen}, {"t": rival}, alone(t=60), SPAN, 0.1)
        assert ours == (wealth_ever(seen.tolist(), rival.tolist(), least, 0.1) >= 10)
        answers.append(ours)
    assert 10 < sum(answers) < 50


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("error", [0.05, 0.1])
def test_of_random_orders_of_large_pools_at_most_the_stated_share_stops_a_true_claim(graded, error):
    stream = np.random.default_rng(5)
    units = alone(a=150, b=90)
    asked = []
    for _ in range(300):
        candidate, rival = {}, {}
        for task, n in {"a": 150, "b": 90}.items():
            easy = stream.uniform(size=n)
            draw = stream.uniform(size=(2, n)) * 0.5 + easy * 0.5
            candidate[task], rival[task] = draw if graded else (draw > 0.45).astype(float)
        form = Form({"a": 0.4, "b": 0.6}, 0.0)
        form = Form(form.factors, form.value(candidate))
        asked.append(ever_stopped(form, candidate, rival, units, error))
    assert np.mean(asked) <= error + 2 * math.sqrt(error * (1 - error) / 300)


def test_clusters_that_agree_do_not_raise_the_error():
    stream = np.random.default_rng(6)
    ids = [f"p{i // 5}" for i in range(200)]
    units = Units.of({"t": ids}, 0)
    assert units.count == 40
    asked = []
    for _ in range(400):
        passages = stream.uniform(size=(2, 40)) > 0.5
        candidate, rival = ({"t": np.repeat(x, 5).astype(float)} for x in passages)
        form = Form({"t": 1.0}, float(candidate["t"].mean()))
        asked.append(ever_stopped(form, candidate, rival, units, 0.1))
    assert np.mean(asked) <= 0.1 + 2 * math.sqrt(0.09 / 400)


def test_what_is_refuted_at_a_prefix_is_refuted_at_longer_ones():
    stream = np.random.default_rng(1)
    units = alone(t=200)
    for span in (1.0, math.inf):
        for _ in range(20):
            rival = {"t": (stream.uniform(size=200) < 0.7).astype(float)}
            candidate = (stream.uniform(size=200) < 0.6).astype(float)
            form = Form({"t": 1.0}, float(rival["t"].mean()) + 0.02)
            asked = [
                refuted(form, {"t": candidate[:k]}, rival, units, {"t": span}, 0.1)
                for k in range(0, 200, 7)
            ]
            assert asked == sorted(asked)


def test_a_candidate_that_is_always_wrong_is_stopped_within_a_few_units():
    units = alone(t=120)
    rival = {"t": np.tile([1.0, 1, 1, 0], 30)}
    form = Form({"t": 1.0}, 0.77)
    asked = [
        refuted(form, {"t": np.zeros(k)}, rival, units, {"t": 1.0}, 0.05) for k in range(1, 25)
    ]
    assert not any(asked[:3])
    assert asked[11]


def test_the_whole_pool_is_compared():
    units = alone(t=10)
    rival = {"t": np.tile([1.0, 0.0], 5)}
    for right, expected in ((5, True), (6, False), (7, False)):
        candidate = {"t": np.r_[np.zeros(10 - right), np.ones(right)]}
        assert refuted(Form({"t": 0.3}, 0.18), candidate, rival, units, {"t": 1.0}, 0.1) is expected


def test_what_cannot_be_reached_any_more_is_refuted_whatever_the_error():
    units = alone(t=10)
    rival = {"t": np.r_[np.ones(9), np.zeros(1)]}
    form = Form({"t": 1.0}, 0.6)
    for wrong, expected in ((4, False), (5, True)):
        seen = {"t": np.zeros(wrong)}
        assert refuted(form, seen, rival, units, {"t": 1.0}, 1e-12) is expected


def test_scaled_and_shifted_scores_have_the_same_answer():
    stream = np.random.default_rng(2)
    units = alone(t=100)
    for span in (1.0, math.inf):
        for _ in range(20):
            rival = (stream.uniform(size=100) < 0.7).astype(float)
            candidate = (stream.uniform(size=60) < 0.55).astype(float)
            plain = refuted(
                Form({"t": 1.0}, 0.72), {"t": candidate}, {"t": rival}, units, {"t": span}, 0.1
            )
            other = refuted(
                Form({"t": 0.5}, 0.5 * (8 * 0.72 - 8)),
                {"t": 8 * candidate - 8},
                {"t": 8 * rival - 8},
                units,
                {"t": 8 * span},
                0.1,
            )
            assert plain == other


def test_scores_without_bounds_are_tested_from_twenty_units_on_and_keep_the_error():
    stream = np.random.default_rng(3)
    units = alone(t=300)
    asked, worse = [], []
    for _ in range(400):
        easy = stream.normal(0, 1, 300)
        candidate, rival = easy + stream.normal(0, 0.5, (2, 300))
        pool = {"t": rival}
        for shift, found in ((0.0, asked), (0.5, worse)):
            form = Form({"t": 1.0}, float(candidate.mean()) + shift)
            found.append(refuted(form, {"t": candidate[:299]}, pool, units, {"t": math.inf}, 0.1))
            assert not refuted(form, {"t": candidate[:19]}, pool, units, {"t": math.inf}, 0.1)
    assert np.mean(asked) <= 0.1 + 2 * math.sqrt(0.09 / 400)
    assert np.mean(worse) > 0.98


def test_equal_scores_are_refuted_by_a_margin_without_bounds():
    rival = {"t": np.random.default_rng(0).normal(size=100)}
    form = Form({"t": 1.0}, float(rival["t"].mean()) + 0.01)
    seen = {"t": rival["t"][:40]}
    assert not refuted(form, seen, rival, alone(t=100), {"t": 1e9}, 0.1)
    assert refuted(Form({"t": 1.0}, 10.0), seen, rival, alone(t=100), {"t": math.inf}, 0.1)


def test_items_beyond_the_last_whole_unit_are_not_used():
    units = Units.of({"t": ["a", "a", "b", "b", "c", "c"]}, 0)
    rival = {"t": np.array([1.0, 0, 1, 0, 1, 0])}
    form = Form({"t": 1.0}, 0.5)
    answers = {
        refuted(form, {"t": np.array([0.0, 0.0, x])}, rival, units, {"t": 1.0}, 0.7)
        for x in (0.0, 1.0)
    }
    assert len(answers) == 1
    assert refuted(form, {"t": np.zeros(4)}, rival, units, {"t": 1.0}, 0.7)


def test_no_units_refute_nothing():
    rival = {"t": np.ones(5)}
    for span in (1.0, math.inf):
        assert not refuted(
            Form({"t": 1.0}, 1.0), {"t": np.empty(0)}, rival, alone(t=5), {"t": span}, 0.1
        )


def test_scores_beyond_their_span_are_refused():
    rival = {"t": np.array([0.0, 1, 0, 1])}
    with pytest.raises(ParameterError, match="differ by 3, but its metric allows 1"):
        refuted(Form({"t": 1.0}, 0.5), {"t": np.array([3.0])}, rival, alone(t=4), {"t": 1.0}, 0.1)
