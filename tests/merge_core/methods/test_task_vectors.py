import pytest
import torch

from merge_core.errors import ParameterError
from merge_core.methods.task_vectors import added, agreeing, density, elected, merged, summed
from merge_core.methods.ties import METHOD
from tests.merge_core.methods.merging import inputs_for, tensor

BASE = tensor(10, 20, 30, 40)
DELTAS = [tensor(4, 4, -3, 0), tensor(2, -2, 3, -1)]


def run(function, **given):
    inputs = inputs_for(METHOD, BASE, [BASE, BASE], **{"normalize": False, **given})
    return (function(inputs, DELTAS) - BASE).tolist()


def test_golden_sums():
    # By hand: 1*[4,4,-3,0] + 0.5*[2,-2,3,-1].
    assert run(added, weight=[1, 0.5]) == [5.0, 3.0, -1.5, -0.5]
    assert run(added, weight=[1, 0.5], lambda_=2) == [10.0, 6.0, -3.0, -1.0]
    assert run(added, weight=[1, 0.25], normalize=True, lambda_=5) == [18.0, 14.0, -9.0, -1.0]


def test_golden_elections():
    # By hand: both; 4 alone; a tie counts as plus, so 3 alone; -1 alone.
    assert run(elected) == [6.0, 4.0, 3.0, -1.0]
    assert run(elected, normalize=True) == [3.0, 4.0, 3.0, -1.0]
    # Weighted: 4 + 1; 4; -3 + 1.5 < 0, so -3 alone; -0.5 alone. Then divided by their weights.
    assert run(elected, weight=[1, 0.5]) == [5.0, 4.0, -3.0, -0.5]
    assert run(elected, weight=[1, 0.5], normalize=True) == [
        pytest.approx(5 / 1.5, rel=1e-6),
        4.0,
        -3.0,
        -1.0,
    ]


def test_golden_elections_by_count():
    # By hand, signs ++, +-, -+, -: 4 + 2; one each counts as plus, so 4 alone and 3 alone; -1.
    assert run(elected, consensus="count") == [6.0, 4.0, 3.0, -1.0]
    # A weight of zero has no vote: ++ and three times the sign of the first, or none.
    assert run(elected, consensus="count", weight=[1, 0]) == [4.0, 4.0, -3.0, 0.0]
    # A negative weight votes for the other sign: +-, ++, --, +.
    assert run(elected, consensus="count", weight=[1, -1]) == [4.0, 6.0, -6.0, 1.0]


def test_many_small_terms_outvote_a_large_one_only_where_they_are_counted():
    terms = [tensor(-5, 5), tensor(1, -1), tensor(1, -1)]
    by_sum, by_count = agreeing(terms), agreeing(terms, count=True)
    assert [x.tolist() for x in by_sum] == [[True, True], [False, False], [False, False]]
    assert [x.tolist() for x in by_count] == [[False, False], [True, True], [True, True]]


def test_golden_sum_with_weights():
    assert summed(DELTAS, [1, -0.5]).tolist() == [3.0, 5.0, -4.5, 0.5]


def test_negative_weight_votes_for_the_other_sign():
    # By hand, weights 1 and -1: 4 - 2; 4 + 2; -3 - 3; 0 + 1.
    assert run(elected, weight=[1, -1]) == [4.0, 6.0, -6.0, 1.0]


def test_weights_that_cancel_in_an_entry_leave_the_sum_undivided():
    # By hand: in entry 1, 4 and -1 * -2 agree and their weights sum to 0.
    assert run(elected, weight=[1, -1], normalize=True)[1] == 6.0


def test_entry_in_which_nobody_moves_stays_at_the_base():
    inputs = inputs_for(METHOD, BASE, [BASE], normalize=True)
    assert elected(inputs, [torch.zeros(4)]).equal(BASE)


def test_deltas_are_left_as_they_are():
    before = [delta.clone() for delta in DELTAS]
    run(added, weight=[1, 0.5], normalize=True, lambda_=3)
    run(elected, weight=[1, 0.5], normalize=True, lambda_=3)
    assert all(a.equal(b) for a, b in zip(DELTAS, before, strict=True))


def test_sum_of_weights_that_is_zero_up_to_rounding_is_refused():
    with pytest.raises(
        ParameterError, match=r"the weights sum to .* and cannot be normalized; got"
    ):
        run(added, weight=[0.1 + 0.2, -0.3], normalize=True)


def test_merged_takes_the_way_it_is_told():
    inputs = inputs_for(METHOD, BASE, [BASE, BASE], normalize=False)
    assert merged(inputs, DELTAS, elect=True).equal(elected(inputs, DELTAS))
    assert merged(inputs, DELTAS, elect=False).equal(added(inputs, DELTAS))
    alone = inputs_for(METHOD, BASE.bfloat16(), [])
    assert merged(alone, [], elect=True).equal(BASE)


@pytest.mark.parametrize(("value", "rule"), [(0, "0"), (-0.1, "-0.1"), (1.01, "1.01")])
def test_density_is_more_than_0_and_at_most_1(value, rule):
    assert density(1.0, 0.5).rule_broken_by(value) == f"must be in (0, 1], got {rule}"
    assert density(1.0, 0.5).rule_broken_by(1) is None
