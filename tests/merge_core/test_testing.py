"""The contract suite catches the methods it was written against."""

import math
from dataclasses import replace

import pytest
import torch

from merge_core.contract import Method, Param, Prepared
from merge_core.errors import MergeError
from merge_core.methods import dare_linear, linear, slerp
from merge_core.testing import MethodContract, assert_same_bits, threads

WEIGHT = Param("weight", "factor", low=0, high=1, start=1)


def mean(inputs):
    return sum(model.float() for model in inputs.models) / len(inputs.models)


def suite(merge=None, **changes):
    """The contract of a method that is fine but for ``merge`` and ``changes``."""
    whole = None if "prepare" in changes else mean
    texts = {"about": "the mean", "formula": "out = mean_i W_i", "when": "always"}
    fine = Method("mean", (WEIGHT,), "none", (1, None), "by hand", merge=whole, **texts)

    class Suite(MethodContract):
        method = replace(fine, **changes, **({"merge": merge} if merge else {}))

    return Suite()


def in_place(inputs):
    return inputs.models[0].mul_(2.0)


def ambient(inputs):
    return inputs.models[0] + torch.rand(inputs.models[0].shape)


def thread_bound(inputs):
    return inputs.models[0].float() + inputs.models[0].float().sum() * torch.get_num_threads()


def forgetful(inputs):
    inputs.values[0]["weight"] = 7
    return inputs.models[0].float().clone()


def hiding(inputs):
    return inputs.models[0].float().nan_to_num()


def squaring(inputs):
    return inputs.models[0].float() ** 2


def hidden_slope(block):
    """The weighted sum, but torch sees one and a half times its slopes."""
    weights = [torch.as_tensor(w) for w in block.numbers["weight"]]
    pairs = zip(block.models, weights, strict=True)
    return sum(x * (w + 0.5 * (w - w.detach())) for x, w in pairs)


BROKEN = {
    "an input tensor was changed": ("test_inputs_are_left_as_they_were", suite(in_place)),
    "a parameter was changed": ("test_inputs_are_left_as_they_were", suite(forgetful)),
    "a second call gives other bits": ("test_same_inputs_give_the_same_bits", suite(ambient)),
    "the output shares memory": (
        "test_output_is_a_new_finite_float32_tensor_of_the_same_shape",
        suite(lambda x: x.models[0].float()),
    ),
    "got float64 of shape": (
        "test_output_is_a_new_finite_float32_tensor_of_the_same_shape",
        suite(lambda x: x.models[0].double()),
    ),
    "got float32 of shape": (
        "test_output_is_a_new_finite_float32_tensor_of_the_same_shape",
        suite(lambda x: x.models[0].float().reshape(-1)[None]),
    ),
    "the output is not finite": (
        "test_output_is_a_new_finite_float32_tensor_of_the_same_shape",
        suite(lambda x: x.models[0] / 0),
    ),
    "weight of model 0": (
        "test_gradients_are_those_of_finite_differences",
        suite(
            prepare=lambda x: Prepared({"weight": x.numbers("weight")}),
            entry=hidden_slope,
            params=(replace(WEIGHT, smooth=True),),
        ),
    ),
    "no parameter of 'mean' has a derivative": (
        "test_gradients_are_those_of_finite_differences",
        suite(mean, params=(replace(WEIGHT, smooth=True),)),
    ),
    "Tensor-likes are not close": (
        "test_sources_equal_to_the_base_give_the_base",
        suite(lambda x: x.models[0] * 1.00001),
    ),
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_method_is_told_what_it_breaks(message):
    law, broken = BROKEN[message]
    with pytest.raises((AssertionError, MergeError), match=message):
        getattr(broken, law)((16, 33))


LONE = {
    "two threads give other bits": (
        "test_thread_count_does_not_change_the_bits",
        suite(thread_bound),
    ),
    "not finite from": (
        "test_every_product_of_special_values_is_merged_to_finite_values",
        suite(squaring),
    ),
    "draws is True, but other mask keys change nothing": (
        "test_masks_decide_the_result_only_where_the_method_says_that_it_draws",
        suite(draws=True),
    ),
    "draws is False, but other mask keys change the result": (
        "test_masks_decide_the_result_only_where_the_method_says_that_it_draws",
        suite(lambda x: x.models[0] + x.keys[0]),
    ),
    "not finite with": (
        "test_every_product_of_parameter_values_is_refused_or_gives_finite_values",
        suite(lambda x: x.models[0] / x.numbers("weight")[0]),
    ),
    "declared twice": ("test_declaration_is_complete", suite(params=(WEIGHT, WEIGHT))),
    "no meaning given for": ("test_declaration_is_complete", suite(params=(Param("weight", ""),))),
    "names no paper": ("test_declaration_is_complete", suite(source="")),
    "nothing to say: no about$": ("test_declaration_is_complete", suite(about="")),
    "nothing to say: no formula, when$": (
        "test_declaration_is_complete",
        suite(formula=" ", when=""),
    ),
    "models: 3 to 2": ("test_declaration_is_complete", suite(models=(3, 2))),
    "a name is one word": ("test_declaration_is_complete", suite(name="my-mean")),
    "weight: default must be in": (
        "test_usual_range_and_default_lie_within_the_hard_limits",
        suite(params=(replace(WEIGHT, default=2, maximum=1),)),
    ),
    "weight: no low": (
        "test_usual_range_and_default_lie_within_the_hard_limits",
        suite(params=(replace(WEIGHT, low=None),)),
    ),
    "weight: low is above high": (
        "test_usual_range_and_default_lie_within_the_hard_limits",
        suite(params=(replace(WEIGHT, low=2),)),
    ),
    "'no such choice' is not refused": (
        "test_values_outside_the_hard_limits_are_refused",
        suite(params=(replace(WEIGHT, choices=("no such choice",)),)),
    ),
}


@pytest.mark.parametrize("message", LONE)
def test_broken_method_or_declaration_is_told_what_it_breaks(message):
    law, broken = LONE[message]
    with pytest.raises((AssertionError, ZeroDivisionError), match=message):
        getattr(broken, law)()


def test_method_that_turns_nan_into_a_number_is_caught():
    with pytest.raises(AssertionError, match=r"nan in tensor 0 became 0\.0"):
        suite(hiding).test_nothing_hides_a_broken_parent(math.nan)


def test_method_that_computes_in_the_stored_type_is_caught():
    law = suite(lambda x: (x.models[0] + x.models[1]).float())
    with pytest.raises(AssertionError, match=r"torch\.bfloat16 is not read as float32"):
        law.test_stored_type_does_not_change_the_arithmetic(torch.bfloat16)


@pytest.mark.parametrize(("method", "count"), [(linear, 4), (slerp, 1), (dare_linear, 3)])
def test_as_many_models_are_merged_as_the_method_takes_up_to_four(method, count):
    law = suite()
    type(law).method = method.METHOD
    inputs = law.inputs((7,))
    assert len(inputs.models) == count
    assert (inputs.base is None) == (method is linear)


def test_same_bits_tell_minus_zero_from_zero_and_one_type_from_another():
    zero, nan = torch.zeros(2), torch.full((2,), math.nan)
    assert_same_bits(nan, nan.clone(), "nan is nan")
    for other in (-zero, zero.half(), zero[None]):
        with pytest.raises(AssertionError, match="differ"):
            assert_same_bits(zero, other, "differ")


def test_thread_count_is_put_back():
    before = torch.get_num_threads()
    with threads(2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == before
