import pytest

from merge_core.errors import ParameterError
from merge_core.methods import task_arithmetic, ties
from merge_core.methods.shared.sparsify.middle import GAMMA
from merge_core.methods.shared.sparsify.rank_bernoulli import EPSILON
from merge_core.methods.shared.task_vectors import density, params
from merge_core.methods.shared.weighted_sum import summed, weighted
from tests.merge_core.methods.merging import merge, tensor

BASE = tensor(10, 20, 30, 40)
WAYS = ("sum", "count")
DELTAS = [tensor(4, 4, -3, 0), tensor(2, -2, 3, -1)]


def run(method, **given):
    models = [BASE + delta for delta in DELTAS]
    return (merge(method, BASE, models, **{"normalize": False, **given}) - BASE).tolist()


added, elected = task_arithmetic.METHOD, ties.METHOD


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
    base = tensor(0, 0)
    models = [tensor(-5, 5), tensor(1, -1), tensor(1, -1)]
    by = {way: merge(elected, base, models, normalize=False, consensus=way) for way in WAYS}
    assert by["sum"].tolist() == [-5, 5]
    assert by["count"].tolist() == [2, -2]


def test_golden_sums_in_order():
    assert weighted(DELTAS, [1, -0.5]).tolist() == [3.0, 5.0, -4.5, 0.5]
    assert summed(DELTAS).tolist() == [6.0, 2.0, 0.0, -1.0]
    assert weighted(DELTAS, [1, 1]).equal(summed(DELTAS))


def test_negative_weight_votes_for_the_other_sign():
    # By hand, weights 1 and -1: 4 - 2; 4 + 2; -3 - 3; 0 + 1.
    assert run(elected, weight=[1, -1]) == [4.0, 6.0, -6.0, 1.0]


def test_weights_that_cancel_in_an_entry_leave_the_sum_undivided():
    # By hand: in entry 1, 4 and -1 * -2 agree and their weights sum to 0.
    assert run(elected, weight=[1, -1], normalize=True)[1] == 6.0


def test_entry_in_which_nobody_moves_stays_at_the_base():
    assert merge(elected, BASE, [BASE], normalize=True).equal(BASE)


def test_sum_of_weights_that_is_zero_up_to_rounding_is_refused():
    with pytest.raises(
        ParameterError, match=r"the weights sum to .* and cannot be normalized; got"
    ):
        run(added, weight=[0.1 + 0.2, -0.3], normalize=True)


@pytest.mark.parametrize("method", [added, elected])
def test_no_models_beside_the_base_give_the_base(method):
    assert merge(method, BASE.bfloat16(), []).equal(BASE)


@pytest.mark.parametrize(("value", "rule"), [(-0.1, "-0.1"), (1.01, "1.01")])
def test_density_is_from_0_to_1(value, rule):
    assert density(0.5).rule_broken_by(value) == f"must be in [0, 1], got {rule}"
    assert density(0.5).rule_broken_by(0) is None
    assert density(0.5).rule_broken_by(1) is None


def test_parameters_of_a_sparsifying_method_have_the_defaults_asked_for():
    made = {p.name: p for p in params(GAMMA, EPSILON, start=0.3, normalized=True, rescaled=False)}
    names = "weight density gamma epsilon normalize rescale lambda int8_mask"
    assert list(made) == names.split()
    assert (made["density"].default, made["density"].start) == (1.0, 0.3)
    assert (made["normalize"].default, made["rescale"].default) == (True, False)
