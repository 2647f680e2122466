"""Every method outside the task-vector family gives what its plain reference gives."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

import pytest
import torch
from torch import Tensor

from merge_core.contract import Inputs, Method
from merge_core.kernels import run
from merge_core.methods.registry import method
from tests.merge_core.methods.merging import inputs_for, merge, tensor

NAMES = (
    "arcee_fusion",
    "iso_c",
    "karcher",
    "linear",
    "model_stock",
    "multislerp",
    "nearswap",
    "nuslerp",
    "passthrough",
    "ram",
    "ramplus_tl",
    "sce",
    "slerp",
    "tsv_m",
)
SHAPES = [(7,), (16, 33), (1, 8), (8, 1), (4, 3, 5)]
ROWS = {"nuslerp_flatten": False}
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("arcee_fusion", {}),
    *[("iso_c", x) for x in ({}, {"weight": [0.5, -0.3, 1.5], "lambda_": 0.7})],
    *[("karcher", x) for x in ({}, {"max_iter": 1}, {"max_iter": 50, "tol": 1e-8})],
    *[("linear", x) for x in ({}, {"weight": [0.2, 0.9, -0.4, 1]})],
    ("linear", {"weight": [0.2, 0.9, -0.4, 1], "normalize": False}),
    *[("model_stock", x) for x in ({}, {"filter_wise": True})],
    *[("multislerp", x) for x in ({}, {"weight": [0.2, 0.9, 0.4], "eps": 1e-4})],
    ("multislerp", {"weight": [0.2, 0.9, 0.4], "normalize_weights": False}),
    *[("nearswap", {"t": t}) for t in (1e-3, 0.05)],
    *[
        ("nuslerp", x | {"weight": [0.3, 0.9]})
        for x in ({}, ROWS, ROWS | {"nuslerp_row_wise": True})
    ],
    *[("passthrough", x) for x in ({}, {"scale": -0.3})],
    *[("ram", {"epsilon": epsilon}) for epsilon in (1e-5, 0.05, 0)],
    *[("ramplus_tl", x) for x in ({}, {"epsilon": 0.1, "r": 0.5, "alpha": 0.9}, {"epsilon": 0})],
    *[("sce", x) for x in ({}, {"select_topk": 0.5}, {"select_topk": 0.05})],
    *[("slerp", {"t": t}) for t in (0.25, 0.5, 1.4)],
    ("tsv_m", {"rank_share": 0.1}),
    *[("tsv_m", x) for x in ({}, {"weight": [0.5, 2, -1], "lambda_": 0.7, "rank_share": 0.4})],
]


def models_for(name: str, shape: tuple[int, ...], spread: float) -> tuple[Tensor, list[Tensor]]:
    """A base of about 1, and as many models as go in, a third of whose entries stay the base's."""
    least, most = method(name).models
    count = (4 if most is None else most) - (method(name).base != "none")
    stream = torch.Generator().manual_seed(7)
    base = torch.randn(shape, generator=stream)
    moved = (torch.rand((count, *shape), generator=stream) > 1 / 3).float()
    assert count >= least - 1
    return base, list(base + spread * moved * torch.randn((count, *shape), generator=stream))


def bases(name: str, base: Tensor) -> list[Tensor | None]:
    return {"none": [None], "required": [base], "optional": [None, base]}[method(name).base]


def assert_is_the_reference(found: Method, inputs: Inputs, fuse: bool = False) -> None:
    """Entries are below 8 (16 for a scale over 1): 16 roundings of 2**-24 of that at most.

    The reference works in float64 where no threshold depends on float32, and rounds as seldom as
    the kernels elsewhere. Of dot products, float32 task vectors are what both take.
    """
    assert found.reference is not None
    expected = found.reference(inputs)
    out = run.merge(found, inputs, fuse=fuse)
    assert expected.shape == out.shape
    size = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(out.double(), expected.double(), rtol=0, atol=size * 16 * 2**-24)


@pytest.mark.parametrize("spread", [0.1, 2.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("name", "given"), SETTINGS, ids=str)
def test_a_method_gives_what_its_reference_gives(
    name: str, given: dict[str, Any], shape: tuple[int, ...], spread: float
) -> None:
    base, models = models_for(name, shape, spread)
    for ground in bases(name, base):
        assert_is_the_reference(method(name), inputs_for(method(name), ground, models, **given))


def test_every_method_here_is_tried_with_other_parameters_than_the_defaults() -> None:
    tried = {(name, key) for name, given in SETTINGS for key in given}
    for name in NAMES:
        names = {
            p.name.replace("lambda", "lambda_", p.name == "lambda") for p in method(name).params
        }
        assert {(name, key) for key in names - {"int8_mask"}} <= tried


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_left_as_they_were_by_a_reference(name: str) -> None:
    base, models = models_for(name, (16, 33), 0.1)
    shared = {"t": 0.5} if name in ("slerp", "nearswap") else {}
    if name == "sce":
        shared = {"select_topk": 0.5}
    inputs = inputs_for(method(name), bases(name, base)[-1], models, **shared)
    before = [x.clone() for x in (base, *models)]
    reference = method(name).reference
    assert reference is not None
    reference(inputs)
    assert all(x.equal(was) for x, was in zip((base, *models), before, strict=True))


@pytest.mark.parametrize("name", NAMES)
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
    assert 1 + len(lines) <= 15
    assert doc.lineno == tree.lineno + 1, "the def line is one line"


@pytest.mark.parametrize("name", NAMES)
def test_a_method_says_its_formula_in_four_lines_and_when_to_choose_it(name: str) -> None:
    found = method(name)
    assert 1 <= len(found.formula.splitlines()) <= 4
    assert any(line.startswith("out = ") for line in found.formula.splitlines())
    assert all(len(line) <= 96 for line in found.formula.splitlines())
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
