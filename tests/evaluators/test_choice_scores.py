from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit, softmax

from evaluators.choice_scores import GRADED, margin, probability

EXACT = 4 * np.finfo(float).eps  # a few roundings of exp, a sum and a quotient


@pytest.mark.parametrize("choices", [2, 3, 8, 26])
def test_probability_is_the_softmax_of_the_log_probabilities(choices):
    nats = np.random.default_rng(choices).normal(-20, 5, choices)
    found = [probability(nats.tolist(), i) for i in range(choices)]
    assert found == pytest.approx(softmax(nats).tolist(), rel=1e-13)
    assert sum(found) == pytest.approx(1, rel=EXACT * choices)  # so chance is one over choices


def test_probability_by_hand():
    # 1/2, 1/4 and 1/8 of all continuations: the second is 2 of 7 parts
    nats = [math.log(1 / 2), math.log(1 / 4), math.log(1 / 8)]
    assert probability(nats, 1) == pytest.approx(2 / 7, rel=EXACT)


@pytest.mark.parametrize("lead", [-800.0, -3.0, 0.0, 0.5, 40.0, 800.0])
def test_probability_of_one_of_two_choices_is_the_logistic_function_of_its_margin(lead):
    nats = [-7.0 + lead, -7.0]
    assert margin(nats, 0) == lead
    assert probability(nats, 0) == pytest.approx(expit(lead), rel=1e-14, abs=0)


@pytest.mark.parametrize("nats", [0.0, -3.0, -1e4])
def test_choices_that_tie_share_the_probability_and_lead_by_nothing(nats):
    assert [probability([nats] * 4, i) for i in range(4)] == [0.25] * 4
    assert [margin([nats] * 4, i) for i in range(4)] == [0.0] * 4


def test_very_unlikely_choices_have_the_probabilities_of_likely_ones():
    near, far = [-1.0, -1.5, -3.0], [-1e4 - 1.0, -1e4 - 1.5, -1e4 - 3.0]
    for i in range(3):
        assert probability(far, i) == probability(near, i)
        assert margin(far, i) == margin(near, i)


def test_probability_stays_between_0_and_1_where_choices_are_far_apart():
    assert [probability([0.0, -1e4], i) for i in range(2)] == [1.0, 0.0]


def test_margin_leads_by_the_best_other_choice_only():
    assert [margin([-3.0, -4.0, -2.5], i) for i in range(3)] == [-0.5, -1.5, 0.5]


def test_a_likelier_right_choice_is_never_scored_lower():
    for score in GRADED.values():
        found = [score([x, -2.0, -3.0], 0) for x in np.linspace(-9, 0, 50).tolist()]
        assert sorted(found) == found
        assert len(set(found)) == len(found)
