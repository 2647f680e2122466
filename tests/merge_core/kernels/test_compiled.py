"""Fused kernels against blocks: the same bits, for every method and in every form."""

import itertools

import pytest
import torch

from merge_core.contract import Inputs
from merge_core.errors import CheckpointError, NonFiniteError
from merge_core.kernels import compiled
from merge_core.kernels.eager import merge_blocks
from merge_core.methods.registry import METHODS, method
from merge_core.numerics import weights_hash
from merge_core.output.live_model import Candidate
from tests.merge_core.recipes import RECIPES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not compiled.available("cpu"), reason="kernels need a C++ compiler"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch's own, while it compiles
]
SHAPES = [(257, 401), (70_001,)]  # over WORTH, odd


def inputs_for(found, shape, dtype, seed=0, **given):
    """Random parents of a stored type, with -0.0, many of whose task vectors' sizes are equal."""
    stream = torch.Generator().manual_seed(seed)
    least, most = found.models
    count = max(least, 3 if most is None else min(most, 3)) - (found.base != "none")
    base = torch.randn(shape, generator=stream).to(dtype)
    models = [
        (base.float() + 0.1 * torch.randn(shape, generator=stream)).to(dtype) for _ in range(count)
    ]
    for i, parent in enumerate([base, *models]):
        parent.view(-1)[:: 7 * 2**i] = -0.0
    values, shared = {}, {}
    for param in found.params:
        value = param.default if param.start is None else param.start
        place = shared if param.scope == "shared" else values
        place[param.name] = given.get(param.name, value)
    own = [
        {k: v * (1 - i / 10) if k == "weight" else v for k, v in values.items()}
        for i in range(count)
    ]
    keys = [7 * 2**40 + 11 * i for i in range(count)]
    return Inputs(models, base if found.base != "none" else None, own, shared, keys)


def both(found, inputs, dtype):
    """The tensor by blocks, and by a kernel."""
    made = []
    for way in (
        lambda out: merge_blocks(found, inputs, found.prepare(inputs), out),
        lambda out: compiled.merge(found, inputs, out),
    ):
        out = torch.full(inputs.models[0].shape, 9.0, dtype=dtype)
        way(out)
        made.append(out)
    return made


@pytest.mark.parametrize(("stored", "written"), [("bfloat16", "bfloat16"), ("float32", "float32")])
@pytest.mark.parametrize("name", METHODS.names())
def test_kernel_gives_the_bits_of_blocks(name, stored, written):
    found = method(name)
    for shape in SHAPES if name not in ("tsv_m", "iso_c") else SHAPES[1:]:
        inputs = inputs_for(found, shape, getattr(torch, stored))
        blocks, kernel = both(found, inputs, getattr(torch, written))
        assert kernel.view(torch.int16).equal(blocks.view(torch.int16))


FORMS = {
    "ties": {"normalize": [True, False], "consensus": ["sum", "count"], "rescale": [True]},
    "dare_ties": {"normalize": [True], "rescale": [True, "inverse_density", "none"]},
    "della": {"density": [0.4, 1.0], "epsilon": [0.2]},
    "breadcrumbs": {"density": [0.9, 1.0], "gamma": [0.0, 0.1]},
    "model_stock": {"filter_wise": [True]},
    "nuslerp": {"nuslerp_flatten": [False], "nuslerp_row_wise": [True, False]},
    "sce": {"select_topk": [0.3]},
}
CASES = [
    (name, dict(zip(values, chosen, strict=True)))
    for name, values in FORMS.items()
    for chosen in itertools.product(*values.values())
]


@pytest.mark.parametrize(("name", "given"), CASES)
def test_kernel_gives_the_bits_of_blocks_in_every_form(name, given):
    found = method(name)
    inputs = inputs_for(found, SHAPES[0], torch.bfloat16, **given)
    blocks, kernel = both(found, inputs, torch.bfloat16)
    assert kernel.view(torch.int16).equal(blocks.view(torch.int16))


def test_numbers_are_inputs_of_one_kernel():
    found = method("ties")
    compiled.merge(found, inputs_for(found, SHAPES[0], torch.bfloat16), torch.empty(SHAPES[0]))
    before = len(compiled._KERNELS)
    for i, density in enumerate((0.11, 0.5, 0.87)):
        inputs = inputs_for(found, (300 + i, 401), torch.bfloat16, seed=i, density=density)
        compiled.merge(found, inputs, torch.empty(300 + i, 401))
    assert len(compiled._KERNELS) == before


def test_kernels_do_not_flush_small_numbers_neither_in_them_nor_after_them():
    found = method("linear")
    small = torch.full((compiled.WORTH,), 1e-40)
    inputs = Inputs([small, small], None, [{"weight": 1.0}] * 2, {"normalize": False}, [0, 0])
    out = torch.empty(compiled.WORTH)
    compiled.merge(found, inputs, out)
    assert out.equal(small + small)
    assert float((small * 1.0)[0]) > 0


@pytest.mark.parametrize(
    ("choice", "entries", "compiler", "fuse"),
    [
        ("auto", 10**8, True, True),
        ("auto", 10**6, True, False),
        ("auto", 10**8, False, False),
        ("fused", 1, True, True),
        ("blocked", 10**8, True, False),
    ],
)
def test_choice_of_kernels(monkeypatch, choice, entries, compiler, fuse):
    monkeypatch.setattr(compiled, "available", lambda device: compiler)
    assert compiled.wanted(choice, "cpu", entries) == fuse


def test_fused_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.setattr(compiled, "available", lambda device: False)
    with pytest.raises(CheckpointError, match=r"^engine.kernels: fused needs a C\+\+ compiler"):
        compiled.wanted("fused", "cpu", 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("count", [2**20, 2**20 + 3, 5 * 2**18 + 1])
def test_fused_digest_is_the_digest(dtype, count):
    tensor = torch.arange(count).to(dtype)
    assert weights_hash.tensor_digest("x", tensor, fuse=True) == weights_hash.tensor_digest(
        "x", tensor
    )


@pytest.mark.parametrize("place", [0, 2**17 + 1, 2**18, -1])
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_fused_digest_finds_what_is_not_finite(dtype, broken, place):
    tensor = torch.full((2**18 + 5,), torch.finfo(dtype).max, dtype=dtype)
    assert weights_hash.digest_and_finiteness("x", tensor, fuse=True)[1]
    tensor[place] = broken
    assert not weights_hash.digest_and_finiteness("x", tensor, fuse=True)[1]


def test_sum_that_rounding_makes_infinite_is_refused(planned):
    text = RECIPES["linear"].replace("weight: 0.2", "weight: 70000.0")
    made = planned(f"{text}dtype: float16\nparameters: {{normalize: false}}\n")
    with pytest.raises(NonFiniteError, match="is not finite in float16"):
        Candidate(fuse=True).build(made.plan)


@pytest.mark.parametrize("name", ["ties", "dare_ties", "slerp"])
def test_candidate_by_kernels_is_the_candidate_by_blocks(planned, monkeypatch, name):
    monkeypatch.setattr(compiled, "WORTH", 1)
    made = planned(f"dtype: bfloat16\n{RECIPES[name]}")
    assert Candidate(fuse=True).build(made.plan) == Candidate().build(made.plan)
