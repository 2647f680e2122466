"""Every method's plain formula on whole tensors, which its blocks and its kernel are held to."""

import inspect
import itertools
import math
from dataclasses import replace

import pytest
import torch

from merge_core.kernels import compiled, run
from merge_core.methods.registry import METHODS, method
from merge_core.numerics.order_statistics import cuts
from merge_core.testing import given, tried
from tests.merge_core.methods.merging import inputs_for, random_models

PLAIN = [name for name in METHODS.names() if method(name).reference is not None]
SHAPES = [(1,), (7,), (99,), (8, 1), (1, 8), (16, 33), (5, 3, 7)]
OVER_WORTH = (29, 31)  # entries enough for a kernel, odd
LINES = 15


def inputs_of(name, shape, **chosen):
    """Three models, or as many as the method takes, of other weights, where it has any."""
    found = method(name)
    base, models = random_models(math.prod(shape), seed=math.prod(shape))
    most = found.models[1]
    count = min(3, (most or 4) - (found.base != "none"))
    models = [model.reshape(shape) for model in models[:count]]
    start = {p.name: p.default if p.start is None else p.start for p in found.params}
    if "weight" in start:
        start["weight"] = [0.9, 0.6, 1.3][:count]
    start = {("lambda_" if k == "lambda" else k): v for k, v in start.items()}
    base = base.reshape(shape) if found.base != "none" else None
    return given(inputs_for(found, base, models, **start), chosen)


def assert_close(made, expected, inputs):
    """Sums of up to four terms and a few factors: under 16 roundings of 2**-24 of the largest."""
    size = max(float(x.abs().max()) for x in [expected, *inputs.models])
    torch.testing.assert_close(made, expected.float(), rtol=0, atol=16 * 2**-24 * size)


def forms(name):
    """Every choice of flags and words, with numbers in the middle of their range and not 1."""
    params = method(name).params
    middle = {p.name: p.low + 0.3 * (p.high - p.low) for p in params if not p.choices}
    middle = {key: value for key, value in middle.items() if key != "weight"}
    choices = [[(p.name, value) for value in tried(p)] for p in params if p.choices]
    return [middle | dict(chosen) for chosen in itertools.product(*choices)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", PLAIN)
def test_blocks_give_what_the_reference_gives(name, shape):
    for chosen in [{}, *forms(name)]:
        inputs = inputs_of(name, shape, **chosen)
        assert_close(run.merge(method(name), inputs), method(name).reference(inputs), inputs)


@pytest.mark.slow
@pytest.mark.skipif(not compiled.available("cpu"), reason="kernels need a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
@pytest.mark.parametrize("name", PLAIN)
def test_kernel_gives_what_the_reference_gives(name):
    inputs = inputs_of(name, OVER_WORTH, **forms(name)[0])
    made = run.merge(method(name), inputs, fuse=True)
    assert_close(made, method(name).reference(inputs), inputs)


@pytest.mark.parametrize("densities", [[0.5, 0.2, 0.9], [0.01, 0.3, 1.0]])
def test_tensors_trimmed_together_are_the_reference_of_the_whole_task_vector(densities):
    ties, sizes = method("ties"), [300, 1, 698]
    base, models = random_models(999)
    pieces = [(model - base).split(sizes) for model in models]
    found = [cuts(lambda x=x: x, share) for x, share in zip(pieces, densities, strict=True)]
    whole = inputs_for(ties, base, models, density=densities, trim="global")
    parts = []
    for i, part in enumerate(base.split(sizes)):
        own = [model.split(sizes)[i] for model in models]
        inputs = replace(whole, base=part, models=own, cuts=[cut[i] for cut in found])
        parts.append(run.merge(ties, inputs))
    assert_close(torch.cat(parts), ties.reference(whole), whole)


@pytest.mark.parametrize("name", PLAIN)
def test_reference_is_short(name):
    reference = method(name).reference
    lines = [line for line in inspect.getsource(reference).splitlines() if line.strip()]
    described = len((reference.__doc__ or "").splitlines())
    assert len(lines) - described <= LINES


@pytest.mark.parametrize("name", PLAIN)
def test_formula_and_advice_fit_a_terminal(name):
    found = method(name)
    lines = found.formula.splitlines()
    assert 1 <= len(lines) <= 4
    assert max(map(len, lines)) <= 100
    assert found.when
