"""Laws that every merge method keeps, as a test class for plugin authors and for our own methods.

    from merge_core.testing import MethodContract

    class TestMine(MethodContract):
        method = METHOD

These laws do not know what a method is for: the law of its paper needs a test of its own.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from merge_core.contract import Inputs, Method, Param, Value
from merge_core.errors import MergeError
from merge_core.kernels.gradients import of_parameters
from merge_core.kernels.run import merge

SHAPES = [  # where slices and counts go wrong
    *((), (0,), (0, 3), (3, 0), (2, 0, 4), (1,), (7,), (99,), (1, 1), (8, 1), (1, 8), (16, 33)),
    *((2, 3, 4), (2, 3, 4, 5)),
]
FINITE = (0.0, -0.0, 1.4e-45, 1.2e-38, 1.0, -1.0, 1e30, -1e30)  # zeros, subnormal, smallest, large
BROKEN = (math.nan, math.inf, -math.inf)
SIDE = 0.002  # of a parameter: a step to either side, for finite differences
LARGE = (401, 331)  # 132,731 entries: torch splits its work over threads from 32,768


class MethodContract:
    """Subclass, set ``method``, run pytest.

    A method's parameters stand at ``start``, or at ``default`` where no start is declared.
    """

    method: ClassVar[Method]

    def inputs(
        self, shape: tuple[int, ...], *, spread: float = 0.1, count: int | None = None, key: int = 1
    ) -> Inputs:
        """Return random inputs: a base of about 1 and models ``spread`` away from it, float32.

        Args:
            shape: Of every tensor.
            spread: 0 makes all models equal to the base.
            count: Number of models beside the base; None: three, if so many may.
            key: Of the random masks.
        """
        based = self.method.base != "none"
        if count is None:
            least, most = self.method.models
            count = max(least, 4 if most is None else min(4, most)) - based
        stream = torch.Generator().manual_seed(math.prod(shape))
        base = torch.randn(shape, generator=stream)
        models = [base + spread * torch.randn(shape, generator=stream) for _ in range(count)]
        values, shared = (
            {p.name: usual(p) for p in self.method.params if p.scope == scope}
            for scope in ("model", "shared")
        )
        return Inputs(
            models=models,
            base=base if based else None,
            values=[dict(values) for _ in range(count)],
            shared=shared,
            keys=[key * 1_000_003 + i for i in range(count)],
        )

    def test_declaration_is_complete(self) -> None:
        least, most = self.method.models
        assert self.method.name.isidentifier(), "a name is one word, to be written in YAML"
        assert self.method.source, "source: names no paper"
        untold = [x for x in ("about", "formula", "when") if not getattr(self.method, x).strip()]
        assert not untold, f"`mergetune methods` has nothing to say: no {', '.join(untold)}"
        assert 1 <= least <= (least if most is None else most), f"models: {least} to {most}"
        names = [param.name for param in self.method.params]
        assert len(set(names)) == len(names), f"params: a name is declared twice in {names}"
        unexplained = [param.name for param in self.method.params if not param.meaning]
        assert not unexplained, f"params: no meaning given for {unexplained}"

    def test_usual_range_and_default_lie_within_the_hard_limits(self) -> None:
        for param in self.method.params:
            if not param.choices:
                assert param.low is not None, f"{param.name}: no low"
                assert param.high is not None, f"{param.name}: no high"
                assert param.low <= param.high, f"{param.name}: low is above high"
            for name in ("default", "start", "low", "high"):
                value = getattr(param, name)
                rule = None if value is None else param.rule_broken_by(value)
                assert rule is None, f"{param.name}: {name} {rule}"

    def test_values_outside_the_hard_limits_are_refused(self) -> None:
        for param in self.method.params:
            for value in refused(param):
                assert param.rule_broken_by(value), f"{param.name}: {value!r} is not refused"
            for value in accepted(param):
                rule = param.rule_broken_by(value)
                assert rule is None, f"{param.name}: {value!r} is refused: {rule}"

    @pytest.mark.parametrize("shape", SHAPES)
    def test_sources_equal_to_the_base_give_the_base(self, shape: tuple[int, ...]) -> None:
        inputs = self.inputs(shape, spread=0.0)
        base = inputs.models[0] if inputs.base is None else inputs.base
        # a sum of k products and a quotient: under 16 roundings of 2**-24
        torch.testing.assert_close(merge(self.method, inputs), base, rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_output_is_a_new_finite_float32_tensor_of_the_same_shape(
        self, shape: tuple[int, ...]
    ) -> None:
        inputs = self.inputs(shape)
        out = merge(self.method, inputs)  # refuses other types and shapes
        assert bool(out.isfinite().all()), "the output is not finite"
        memory = out.untyped_storage().data_ptr()
        assert not out.numel() or all(
            x.untyped_storage().data_ptr() != memory for x in tensors(inputs)
        ), "the output shares memory with an input"

    @pytest.mark.parametrize("shape", SHAPES)
    def test_every_choice_merges_tensors_of_every_shape(self, shape: tuple[int, ...]) -> None:
        chosen = [[(p.name, value) for value in tried(p)] for p in self.method.params if p.choices]
        for choice in itertools.product(*chosen):
            inputs = given(self.inputs(shape), dict(choice))
            out = merge(self.method, inputs)
            assert out.shape == shape, f"{dict(choice)}: {tuple(out.shape)} from {shape}"
            assert bool(out.isfinite().all()), f"not finite with {dict(choice)}"

    def test_tensor_of_no_dimension_is_merged_as_a_vector_of_one_entry(self) -> None:
        inputs = self.inputs((1,))
        out, single = (
            merge(self.method, converted(inputs, Tensor.squeeze)),
            merge(self.method, inputs),
        )
        assert_same_bits(out.reshape(1), single, "other bits than of the vector")

    @pytest.mark.parametrize("shape", SHAPES)
    def test_same_inputs_give_the_same_bits(self, shape: tuple[int, ...]) -> None:
        first, second = (merge(self.method, self.inputs(shape)) for _ in range(2))
        assert_same_bits(first, second, "a second call gives other bits")

    def test_thread_count_does_not_change_the_bits(self) -> None:
        outs = []
        for n in (1, 2):
            with threads(n):
                outs.append(merge(self.method, self.inputs(LARGE)))
        assert_same_bits(outs[0], outs[1], "two threads give other bits than one")

    @pytest.mark.parametrize("shape", SHAPES)
    def test_inputs_are_left_as_they_were(self, shape: tuple[int, ...]) -> None:
        inputs = self.inputs(shape)
        before = deepcopy(inputs)
        merge(self.method, inputs)
        for tensor, was in zip(tensors(inputs), tensors(before), strict=True):
            assert_same_bits(tensor, was, "an input tensor was changed")
        settings, were = ((x.values, x.shared, x.keys) for x in (inputs, before))
        assert settings == were, "a parameter was changed"

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    def test_stored_type_does_not_change_the_arithmetic(self, dtype: torch.dtype) -> None:
        stored = converted(self.inputs((16, 33)), lambda x: x.to(dtype))
        out, wide = (merge(self.method, x) for x in (stored, converted(stored, Tensor.float)))
        assert_same_bits(out, wide, f"{dtype} is not read as float32")

    def test_least_number_of_models_can_be_merged(self) -> None:
        count = self.method.models[0] - (self.method.base == "required")
        inputs = self.inputs((7,), count=count)
        if self.method.base == "optional":
            inputs = replace(inputs, base=None)
        assert bool(merge(self.method, inputs).isfinite().all())

    def test_one_model_that_the_method_passes_on_comes_out_as_it_went_in(self) -> None:
        values = [{p.name: x for p in self.method.params} for x in (1.0, 0.5, 0.0)]
        one = torch.tensor(FINITE)
        for own in values:
            if self.method.passes_on is not None and self.method.passes_on(own):
                shared = {p.name: usual(p) for p in self.method.params if p.scope == "shared"}
                found = merge(self.method, Inputs([one], None, [own], shared, [0]))
                assert found.view(torch.int32).equal(one.view(torch.int32)), own

    def test_masks_decide_the_result_only_where_the_method_says_that_it_draws(self) -> None:
        first, second = (merge(self.method, self.inputs((16, 33), key=key)) for key in (1, 2))
        assert self.method.draws != bool(first.equal(second)), (
            f"draws is {self.method.draws}, but other mask keys "
            f"{'change nothing' if self.method.draws else 'change the result'}"
        )

    @pytest.mark.parametrize("shape", [(16, 33), (3, 4, 5)])
    def test_gradients_are_those_of_finite_differences(self, shape: tuple[int, ...]) -> None:
        """In all parameters that are declared as smooth, with each choice of each flag."""
        smooth = [param for param in self.method.params if param.smooth]
        choices = [{p.name: value} for p in self.method.params for value in p.choices]
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(7))
        for choice in choices or [{}]:
            inputs = unequal(given(self.inputs(shape), choice))
            for param in smooth:
                for i in range(len(inputs.models)) if param.scope == "model" else [None]:
                    self._check_slope(inputs, param.name, i, gradient)

    def _check_slope(self, inputs: Inputs, name: str, i: int | None, gradient: Tensor) -> None:
        """Compare where no elected sign flips on the way: there both sides have one slope."""
        below, here, above = (
            merge(self.method, moved(inputs, name, i, x)).double() for x in (-SIDE, 0.0, SIDE)
        )
        slope, bend = (above - below) / (2 * SIDE), (above + below - 2 * here).abs()
        flips = bend > 0.1 * float((above - below).abs().flatten().quantile(0.9))
        assert float(flips.double().mean()) < 0.3, f"{name}: no slope at too many entries"
        gradient = gradient.masked_fill(flips, 0.0)
        found = of_parameters(self.method, inputs, gradient)
        got = found.shared[name] if i is None else found.values[i][name]
        terms, rounding = gradient.double() * slope, gradient.double() * here * 2**-24 / SIDE
        most = 1e-3 * float(terms.norm()) + float(rounding.norm())
        want = float(terms.sum())
        assert abs(got - want) <= most, f"{name} of model {i}: {got}, not {want}"

    def test_every_product_of_special_values_is_merged_to_finite_values(self) -> None:
        inputs = self.inputs((1,))
        columns = [torch.tensor(FINITE)] * len(tensors(inputs))
        parts = iter(torch.cartesian_prod(*columns).reshape(-1, len(columns)).T.contiguous())
        out = merge(self.method, converted(inputs, lambda _: next(parts)))
        assert bool(out.isfinite().all()), f"not finite from {FINITE}"

    @pytest.mark.parametrize("broken", BROKEN)
    def test_nothing_hides_a_broken_parent(self, broken: float) -> None:
        """So that the core can refuse it: where an input is not finite, the output is not."""
        for place in range(len(tensors(self.inputs((7,))))):
            inputs = self.inputs((7,))
            tensors(inputs)[place][3] = broken
            try:
                out = merge(self.method, inputs)
            except MergeError:
                continue
            assert not math.isfinite(out[3]), f"{broken} in tensor {place} became {float(out[3])}"

    def test_every_product_of_parameter_values_is_refused_or_gives_finite_values(self) -> None:
        names = [param.name for param in self.method.params]
        for chosen in itertools.product(*map(tried, self.method.params)):
            inputs = given(self.inputs((5,)), dict(zip(names, chosen, strict=True)))
            try:
                out = merge(self.method, inputs)
            except MergeError:
                continue
            assert bool(out.isfinite().all()), f"not finite with {names} = {chosen}"


def usual(param: Param) -> Value:
    """Return where the tests put a parameter: its start, else its default."""
    value = param.default if param.start is None else param.start
    assert value is not None, f"{param.name}: neither start nor default"
    return value


def tried(param: Param) -> list[Value]:
    """Return all choices, or the ends of the usual range and the usual value."""
    found = param.choices or (param.low, usual(param), param.high)
    return list(dict.fromkeys(value for value in found if value is not None))


def refused(param: Param) -> list[Any]:
    """Return values that no parameter of its kind may have, and those just past its limits."""
    ever: list[Any] = [None, [], {}, math.nan, math.inf, -math.inf, "no such choice", 10**400]
    if param.choices:
        return ever
    past = [math.nextafter(param.minimum, -math.inf), math.nextafter(param.maximum, math.inf)]
    return [*ever, True, False, "1", *past, param.above]  # no limit: an infinite one


def accepted(param: Param) -> Sequence[Value]:
    """Return the choices, or the values just inside the limits."""
    inside = (param.minimum, param.maximum, math.nextafter(param.above, math.inf))
    return param.choices or [x for x in inside if abs(x) < sys.float_info.max]


def tensors(inputs: Inputs) -> list[Tensor]:
    """Return all tensors of the inputs, the base first if there is one."""
    return [*([] if inputs.base is None else [inputs.base]), *inputs.models]


def converted(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """Return the inputs with every tensor changed, the base first."""
    base = None if inputs.base is None else change(inputs.base)
    return replace(inputs, base=base, models=[change(model) for model in inputs.models])


def given(inputs: Inputs, settings: dict[str, Value]) -> Inputs:
    """Return the inputs with these parameters, the same for every model."""
    values = [{name: settings.get(name, was[name]) for name in was} for was in inputs.values]
    shared = {name: settings.get(name, was) for name, was in inputs.shared.items()}
    return replace(inputs, values=values, shared=shared)


def moved(inputs: Inputs, name: str, i: int | None, side: float) -> Inputs:
    """Return the inputs with a parameter moved: of model ``i``, or the shared one."""
    if i is None:
        return replace(inputs, shared={**inputs.shared, name: inputs.number(name) + side})
    values = [dict(was) for was in inputs.values]
    values[i][name] = float(values[i][name]) + side
    return replace(inputs, values=values)


def unequal(inputs: Inputs) -> Inputs:
    """Return the inputs with weights that differ between the models."""
    values: list[dict[str, Value]] = [dict(was) for was in inputs.values]
    for i, own in enumerate(values):
        if "weight" in own:
            own["weight"] = 0.3 + 0.25 * i
    return replace(inputs, values=values)


def assert_same_bits(a: Tensor, b: Tensor, otherwise: str) -> None:
    """Assert that two tensors have the same type, shape and bits; -0 is not 0, nan is nan."""
    same = a.dtype == b.dtype and a.shape == b.shape
    first, second = (x.reshape(-1).contiguous().view(torch.uint8) for x in (a, b))
    assert same, otherwise
    assert first.equal(second), otherwise


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Let torch use ``n`` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
