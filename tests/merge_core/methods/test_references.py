"""Every method's plain formula on whole tensors, which its blocks and its kernel are held to."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from merge_core.contract import Inputs, Method, Value
from merge_core.kernels import compiled, run
from merge_core.methods.registry import METHODS, method
from merge_core.testing import tried
from tests.merge_core.methods.merging import inputs_for, merge, random_models, tensor
from tests.merge_core.whole_cuts import cuts

PLAIN = [name for name in METHODS.names() if method(name).reference is not None]
SHAPES = [(1,), (7,), (99,), (8, 1), (1, 8), (16, 33), (4, 3, 5), (5, 3, 7), (2, 3, 2, 3)]
OVER_WORTH = (29, 31)  # entries enough for a kernel, odd
LINES = 15
WEIGHTS = [0.9, 0.6, 1.3, 0.4]
ROWS = {"nuslerp_flatten": False}
# What else is tried than defaults with WEIGHTS, and every form.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "iso_c": [{"weight": [0.5, -0.3, 1.5], "lambda_": 0.7}],
    "karcher": [{"max_iter": 1}, {"max_iter": 50, "tol": 1e-8}],
    "linear": [{"weight": [0.2, 0.9, -0.4, 1], "normalize": x} for x in (True, False)],
    "model_stock": [{"filter_wise": True}],
    "multislerp": [
        {"weight": [0.2, 0.9, 0.4], **x} for x in ({"eps": 1e-4}, {"normalize_weights": False})
    ],
    "nearswap": [{"t": t} for t in (1e-3, 0.05)],
    "nuslerp": [
        {"weight": [0.3, 0.9], **x} for x in ({}, ROWS, {**ROWS, "nuslerp_row_wise": True})
    ],
    "passthrough": [{"scale": -0.3}],
    "ram": [{"epsilon": epsilon} for epsilon in (0.05, 0)],
    "ramplus_tl": [{"epsilon": 0.1, "r": 0.5, "alpha": 0.9}, {"epsilon": 0}],
    "sce": [{"select_topk": share} for share in (0.5, 0.05)],
    "slerp": [{"t": t} for t in (0.25, 0.5, 1.4)],
    "tsv_m": [{"rank_share": 0.1}, {"weight": [0.5, 2, -1], "lambda_": 0.7, "rank_share": 0.4}],
}


def written(name: str) -> str:
    return "lambda_" if name == "lambda" else name


def usual(name: str) -> dict[str, Value | None]:
    params = method(name).params
    return {written(p.name): p.default if p.start is None else p.start for p in params}


def forms(name: str) -> list[dict[str, Any]]:
    """Every choice of flags and words, with numbers in the middle of their range and not 1."""
    params = [p for p in method(name).params if p.name != "weight"]
    middle = {
        written(p.name): p.low + 0.3 * (p.high - p.low)
        for p in params
        if p.low is not None and p.high is not None
    }
    choices = [[(p.name, value) for value in tried(p)] for p in params if p.choices]
    return [middle | dict(chosen) for chosen in itertools.product(*choices)]


def settings(name: str, count: int) -> list[dict[str, Any]]:
    """All that a method is tried with, a weight of its own for every model where it has weights."""
    weighted = {"weight": WEIGHTS[:count]} if "weight" in usual(name) else {}
    every = [{}, weighted, *(weighted | form for form in forms(name)), *SETTINGS.get(name, [])]
    return [usual(name) | chosen for chosen in every]


def models_for(
    name: str, shape: tuple[int, ...], spread: float, moved: float
) -> tuple[Tensor, list[Tensor]]:
    """A base of about 1, and as many models as go in; ``moved``: share of other entries in each."""
    least, most = method(name).models
    count = (4 if most is None else most) - (method(name).base != "none")
    stream = torch.Generator().manual_seed(7)
    base = torch.randn(shape, generator=stream)
    changed = (torch.rand((count, *shape), generator=stream) < moved).float()
    assert count >= least - 1
    return base, list(base + spread * changed * torch.randn((count, *shape), generator=stream))


def bases(name: str, base: Tensor) -> list[Tensor | None]:
    return {"none": [None], "required": [base], "optional": [None, base]}[method(name).base]


def assert_is_the_reference(found: Method, inputs: Inputs, fuse: bool = False) -> None:
    """Sums of up to four terms and a few factors: under 16 roundings of 2**-24 of the largest.

    The reference works in float64 where no threshold depends on float32, and rounds as seldom as
    the kernels elsewhere. Of dot products, float32 task vectors are what both take.
    """
    assert found.reference is not None
    expected = found.reference(inputs).double()
    out = run.merge(found, inputs, fuse=fuse)
    assert expected.shape == out.shape
    most = max(float(x.abs().max()) for x in inputs.models)
    size = max(float(expected.abs().max()), min(1.0, most))
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=size * 16 * 2**-24)


@pytest.mark.parametrize(("spread", "moved"), [(0.1, 1.0), (0.1, 2 / 3), (2.0, 2 / 3)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.slow
def test_blocks_give_what_the_reference_gives(
    name: str, shape: tuple[int, ...], spread: float, moved: float
) -> None:
    base, models = models_for(name, shape, spread, moved)
    for ground, chosen in itertools.product(bases(name, base), settings(name, len(models))):
        assert_is_the_reference(method(name), inputs_for(method(name), ground, models, **chosen))


@pytest.mark.slow
@pytest.mark.skipif(not compiled.available("cpu"), reason="kernels need a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
@pytest.mark.parametrize("name", PLAIN)
def test_kernel_gives_what_the_reference_gives(name: str) -> None:
    base, models = models_for(name, OVER_WORTH, 0.1, 1.0)
    chosen = settings(name, len(models))[2]
    inputs = inputs_for(method(name), bases(name, base)[-1], models, **chosen)
    assert_is_the_reference(method(name), inputs, fuse=True)


@pytest.mark.parametrize("name", PLAIN)
def test_every_parameter_is_tried_with_other_values_than_its_default(name: str) -> None:
    for param in method(name).params:
        values = [chosen[written(param.name)] for chosen in settings(name, 3)]
        assert any(value != param.default for value in values), param.name


@pytest.mark.parametrize("densities", [[0.5, 0.2, 0.9], [0.01, 0.3, 1.0]])
def test_tensors_trimmed_together_are_the_reference_of_the_whole_task_vector(
    densities: list[float],
) -> None:
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
    size = max(float(x.abs().max()) for x in models)
    assert ties.reference is not None
    expected = ties.reference(whole).float()
    torch.testing.assert_close(torch.cat(parts), expected, rtol=0, atol=16 * 2**-24 * size)


@pytest.mark.parametrize("name", PLAIN)
def test_inputs_are_left_as_they_were_by_a_reference(name: str) -> None:
    base, models = models_for(name, (16, 33), 0.1, 2 / 3)
    chosen = forms(name)[0]
    inputs = inputs_for(method(name), bases(name, base)[-1], models, **chosen)
    before = [x.clone() for x in (base, *models)]
    reference = method(name).reference
    assert reference is not None
    reference(inputs)
    assert all(x.equal(was) for x, was in zip((base, *models), before, strict=True))


@pytest.mark.parametrize("name", PLAIN)
def test_a_reference_is_at_most_15_lines_without_its_docstring(name: str) -> None:
    reference = method(name).reference
    assert reference is not None
    tree = ast.parse(textwrap.dedent(inspect.getsource(reference))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    doc, *body = tree.body
    lines = {
        line for part in body for line in range(part.lineno, (part.end_lineno or part.lineno) + 1)
    }
    assert ast.get_docstring(tree) is not None
    assert 1 + len(lines) <= LINES
    assert doc.lineno == tree.lineno + 1, "the def line is one line"


@pytest.mark.parametrize("name", PLAIN)
def test_a_method_says_its_formula_in_four_lines_and_when_to_choose_it(name: str) -> None:
    found = method(name)
    lines = found.formula.splitlines()
    assert 1 <= len(lines) <= 4
    assert any(line.startswith("out = ") for line in lines)
    assert max(map(len, lines)) <= 96
    assert found.when.endswith(".")


@pytest.mark.parametrize(
    ("name", "given"), [("slerp", {"t": 0.3}), ("nuslerp", {"weight": [0.7, 0.3]})]
)
def test_a_right_angle_is_parted_by_the_sine_and_the_cosine(
    name: str, given: dict[str, Any]
) -> None:
    # By hand: theta = pi / 2, so cos(0.3 pi / 2) of the first and sin(0.3 pi / 2) of the second.
    a, b = tensor(2, 0), tensor(0, 4)
    base, models = (a, [b]) if name == "slerp" else (None, [a, b])
    out = merge(method(name), base, models, **given)
    assert out.tolist() == pytest.approx([2 * 0.8910065, 4 * 0.4539905], rel=1e-6)


def test_parallel_models_and_models_of_zeros_are_as_their_references_say() -> None:
    a, zero = tensor(3, -4, 1), torch.zeros(3)
    tiny = 1e-9 * a
    cases: list[tuple[str, Tensor | None, list[Tensor], dict[str, Any]]] = [
        *[("slerp", a, [b], {"t": 0.3}) for b in (2 * a, -a, zero, tiny)],
        *[("nuslerp", None, [a, b], {"weight": [0.7, 0.3]}) for b in (2 * a, -a, zero)],
        ("nuslerp", None, [a, a.flip(0)], {"weight": [0.5, -0.5]}),
        *[("multislerp", None, [a, b], {}) for b in (2 * a, -a, zero)],
        ("multislerp", a, [a, a, a], {}),
        ("multislerp", a, [2 * a], {"weight": 0.3}),
        *[("karcher", None, [a, b, c], {}) for b in (2 * a, -a, zero) for c in (a, -a)],
        ("karcher", None, [zero, zero], {}),
        *[("model_stock", a, [2 * a, b], {}) for b in (3 * a, zero, a)],
        *[(name, a, [a, a], {}) for name in ("ram", "ramplus_tl", "sce", "iso_c", "tsv_m")],
        *[(name, zero[None], [zero[None]] * 2, {}) for name in ("iso_c", "tsv_m")],
        ("arcee_fusion", a, [a], {}),
        ("sce", zero, [a * 1e-4, -a * 3e-4], {}),
        ("sce", zero, [a, a, a.abs()], {"select_topk": 0.9}),
    ]
    for name, base, models, given in cases:
        assert_is_the_reference(method(name), inputs_for(method(name), base, models, **given))
