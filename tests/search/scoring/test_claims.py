"""What a candidate must reach that is better than a rival: against the numbers themselves."""

from __future__ import annotations

import numpy as np
import pytest

from search.scoring.aggregate import Aggregate, Entry
from search.scoring.claims import better

MARGIN = 0.03


def aggregate(kind, chance=0.0):
    entries = [
        Entry("a", {"a": 1.0}, {"a": chance} if chance else {}, 1.0 if kind == "min" else 2.0),
        Entry("group", {"b": 0.25, "c": 0.75}, {}, 1.0, group=True),
    ]
    return Aggregate(kind, entries)


def holds(claim, means):
    each = [
        sum(f * means[t] for t, f in form.factors.items()) >= form.least for form in claim.forms
    ]
    return any(each) if claim.one else all(each)


def drawn(count=400):
    random = np.random.default_rng(0)
    rival = {t: float(random.uniform(0.4, 0.8)) for t in "abc"}
    for _ in range(count):
        yield rival, {t: x + float(random.normal(0, 0.08)) for t, x in rival.items()}


@pytest.mark.parametrize("kind", ["mean", "min"])
def test_the_claim_says_that_the_number_is_higher_by_the_margin(kind):
    whole = aggregate(kind, chance=0.25)
    found = [
        (holds(better(whole, rival, MARGIN), ours), whole.at(ours) >= whole.at(rival) + MARGIN)
        for rival, ours in drawn()
    ]
    assert all(one == other for one, other in found)
    assert {other for _, other in found} == {True, False}


def test_the_claim_of_a_geometric_mean_is_implied_by_the_number_and_close_to_it():
    whole = aggregate("geometric_mean", chance=0.25)
    pairs = [
        (holds(better(whole, rival, MARGIN), ours), whole.at(ours) >= whole.at(rival) + MARGIN)
        for rival, ours in drawn()
    ]
    assert all(one for one, other in pairs if other), "who is better is never refuted"
    assert sum(one != other for one, other in pairs) < 0.05 * len(pairs)


def test_a_geometric_mean_of_nothing_claims_nothing():
    whole = aggregate("geometric_mean", chance=0.25)
    assert better(whole, {"a": 0.2, "b": 0.5, "c": 0.5}, MARGIN).forms == ()


def test_several_objectives_claim_that_one_of_them_is_better():
    whole = aggregate("apart")
    for rival, ours in drawn(100):
        values = zip(whole.values_at(ours), whole.values_at(rival), strict=True)
        assert holds(better(whole, rival, MARGIN), ours) == any(x >= y + MARGIN for x, y in values)


def test_an_exact_objective_is_better_by_any_difference_and_not_by_none():
    whole = Aggregate("apart", [Entry("acc", {"acc": 1.0}, {}), Entry("size", {"size": 1.0}, {})])
    rival = {"acc": 0.5, "size": -1e9}
    claim = better(whole, rival, MARGIN, exact={"size"})
    assert not holds(claim, {"acc": 0.5, "size": -1e9})
    assert holds(claim, {"acc": 0.1, "size": -1e9 + 1})
    assert holds(claim, {"acc": 0.54, "size": -2e9})
