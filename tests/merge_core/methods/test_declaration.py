import pytest
import torch

from merge_core.contract import Inputs, Method, Param
from merge_core.errors import shown

NUMBER = Param("weight", "factor", low=0, high=1, minimum=-1, maximum=2)
FREE = Param("weight", "factor", low=0, high=1)
SHARE = Param("density", "share", low=0.1, high=1, above=0, maximum=1)
FLAG = Param("normalize", "divide", default=True, choices=(True, False))
CHOICE = Param("trim", "where", default="tensor", choices=("tensor", "global"))


@pytest.mark.parametrize(
    ("param", "value", "rule"),
    [
        (NUMBER, 2.5, "must be in [-1, 2], got 2.5"),
        (NUMBER, -1.5, "must be in [-1, 2], got -1.5"),
        (Param("x", "y", minimum=0), -1, "must be in [0, inf), got -1"),
        (SHARE, 0, "must be in (0, 1], got 0"),
        (FREE, "1", "expected a number, got '1'"),
        (FREE, True, "expected a number, got true"),
        (FREE, None, "expected a number, got nothing"),
        (FREE, [1], "expected a number, got a list"),
        (FREE, {"low": 0}, "expected a number, got a mapping"),
        (FREE, float("nan"), "expected a finite number, got nan"),
        (FREE, float("-inf"), "expected a finite number, got -inf"),
        (FREE, 10**309, f"expected a finite number, got {10**309}"),
        (FLAG, 1, "expected true or false, got 1"),
        (FLAG, "true", "expected true or false, got 'true'"),
        (CHOICE, "nobody", "expected 'tensor' or 'global', got 'nobody'"),
        (CHOICE, True, "expected 'tensor' or 'global', got true"),
    ],
)
def test_broken_rule_is_told_with_the_value(param, value, rule):
    assert param.rule_broken_by(value) == rule


@pytest.mark.parametrize(
    ("param", "value"),
    [
        *[(NUMBER, -1), (NUMBER, 2.0), (SHARE, 1e-300), (SHARE, 1), (FREE, -1e300)],
        *[(FREE, 10**308), (FLAG, True), (FLAG, False), (CHOICE, "global")],
    ],
)
def test_value_within_the_limits_breaks_no_rule(param, value):
    assert param.rule_broken_by(value) is None


def test_values_are_shown_in_the_words_of_yaml():
    values = [True, False, None, {}, [], "x", 1.5]
    assert [shown(value) for value in values] == [
        "true",
        "false",
        "nothing",
        "a mapping",
        "a list",
        "'x'",
        "1.5",
    ]


def test_inputs_give_parameters_as_floats_and_deltas_in_float32():
    base = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    inputs = Inputs([base + 1, base + 2], base, [{"w": 1}, {"w": 2}], {"lambda": 3}, [0, 0])
    assert inputs.numbers("w") == [1.0, 2.0]
    assert inputs.number("lambda") == 3.0
    assert [delta.tolist() for delta in inputs.deltas()] == [[1.0, 1.0], [2.0, 2.0]]
    assert {delta.dtype for delta in inputs.deltas()} == {torch.float32}


def test_delta_is_taken_in_float32_not_in_the_stored_type():
    base = torch.tensor([256.0], dtype=torch.bfloat16)
    model = torch.tensor([-0.75], dtype=torch.bfloat16)
    (delta,) = Inputs([model], base, [{}], {}, [0]).deltas()
    assert delta.tolist() == [-256.75]  # bfloat16 would give -257


def test_method_finds_its_parameters_by_name():
    method = Method(
        "m", (FREE, FLAG), "none", (1, None), "by hand", merge=lambda inputs: inputs.models[0]
    )
    assert method.param("normalize") is FLAG
    assert method.param("normalise") is None
