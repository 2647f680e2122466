import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merge_core.contract import Param
from merge_core.errors import ParameterError
from merge_core.recipe.interpolate import at, resolve, value_of
from merge_core.recipe.schema import Conditional

MLP, ATTENTION = "model.layers.1.mlp.up_proj.weight", "model.layers.1.self_attn.q_proj.weight"
WEIGHT = Param("weight", "factor", low=0, high=1)


@pytest.mark.parametrize(
    ("gradient", "t", "value"),
    [
        # By hand, as the mergekit dialect has it.
        ((1e-5, 1e-3), 0.5, 0.000505),
        ((2, 4), 0.5, 3.0),
        ((0.0, 1.0, 4.0), 0.75, 2.5),
        ((7.0,), 0.3, 7.0),
        ((0.1, 0.9), 0.0, 0.1),
        ((0.1, 0.9), 1.0, 0.9),
    ],
)
def test_golden_gradients(gradient, t, value):
    assert at(gradient, t) == pytest.approx(value, rel=1e-15)


def test_flags_and_words_do_not_mix():
    assert at((True, False, True), 0.99) is False
    assert at(("l1", "none"), 0.99) == "l1"
    assert at(("l1", "none"), 1.0) == "none"


@settings(max_examples=100)
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=9), st.floats(0, 1))
def test_gradient_is_linear_interpolation(gradient, t):
    expected = np.interp(t, np.linspace(0, 1, len(gradient)), gradient)
    # neighbours are at most 20 apart, and a place within 1e-9 of one of them counts as there
    assert at(gradient, t) == pytest.approx(expected, abs=2.1e-8)


@pytest.mark.parametrize("kind", [float, str])
def test_list_with_one_value_per_layer_gives_every_layer_exactly_its_own(kind):
    for count in range(2, 130):
        values = [kind(i) for i in range(count)]
        assert [at(values, i / (count - 1)) for i in range(count)] == values


def test_first_matching_filter_holds():
    setting = (Conditional("mlp", 0.1), Conditional("layers.1", 0.2), Conditional(None, 0.3))
    assert resolve(setting, MLP, 0.0) == 0.1
    assert resolve(setting, ATTENTION, 0.0) == 0.2
    assert resolve(setting, "lm_head.weight", 0.0) == 0.3


def test_star_matches_all_and_a_filter_that_matches_nothing_gives_none():
    assert resolve((Conditional("*", 0.5),), MLP, 0.0) == 0.5
    assert resolve((Conditional("MLP", 0.5),), MLP, 0.0) is None


def test_filter_may_hold_a_gradient():
    assert resolve((Conditional("mlp", (0.0, 1.0)),), MLP, 0.25) == 0.25


def test_more_specific_setting_goes_before_the_shared_one_and_that_before_the_default():
    param = Param("density", "share", low=0, high=1, default=0.9)
    own, top = (Conditional("mlp", 0.1),), 0.2
    assert value_of(param, [own, top], MLP, 0.0) == 0.1
    assert value_of(param, [own, top], ATTENTION, 0.0) == 0.2
    assert value_of(param, [own], ATTENTION, 0.0) == 0.9


def test_zero_and_false_are_values():
    assert value_of(WEIGHT, [0, 1], MLP, 0.0) == 0
    assert value_of(WEIGHT, [False, True], MLP, 0.0) is False


def test_tensor_without_a_value_and_without_a_default_is_refused():
    with pytest.raises(ParameterError, match=r"^lm_head: no value of 'weight' holds for it and"):
        value_of(WEIGHT, [(Conditional("mlp", 1),)], "lm_head", 0.0)
