"""Against mergekit 0.1.5's in-memory interface, one float32 tensor at a time: the other methods.

Norm and left-outs are those of ``test_parity_with_mergekit``. DELLA's and DARE's masks are our own,
so these run at density 1; arcee_fusion stays below a million entries, where mergekit samples.
"""

from __future__ import annotations

import math

import pytest
import torch

from merge_core.methods.registry import method
from tests.merge_core.methods.merging import merge

pytestmark = pytest.mark.filterwarnings(
    "ignore:numpy.core is deprecated:DeprecationWarning"  # mergekit's unpickler, when imported
)

SHAPES = [(33, 48), (57,), (5, 1)]
WEIGHTS = {"weight": [0.3, 0.9, 0.5]}
TRIMMED = {**WEIGHTS, "density": [0.5, 0.7, 1.0], "gamma": [0.05, 0.1, 0.01]}
WHOLE = {**WEIGHTS, "density": [1.0, 1.0, 1.0]}
FLAGS = {"normalize": True, "rescale": False, "lambda": 1.3}
SWAPPED = {"normalize": False, "rescale": True, "lambda": 0.7}
COUNTS = {"nuslerp": 2, "nearswap": 1, "arcee_fusion": 1, "passthrough": 1}  # models; others: 3
SETTINGS = {
    "arcee_fusion": [{}],
    "breadcrumbs": [TRIMMED, {**TRIMMED, **FLAGS}, {**TRIMMED, **SWAPPED}],
    "breadcrumbs_ties": [TRIMMED, {**TRIMMED, **FLAGS}, {**TRIMMED, **SWAPPED}],
    "dare_linear": [WHOLE, {**WHOLE, **FLAGS}],
    "dare_ties": [WHOLE, {**WHOLE, **FLAGS}],
    "della": [WHOLE, {**WHOLE, **SWAPPED}],
    "della_linear": [WHOLE, {**WHOLE, **FLAGS}],
    "karcher": [{}, {"max_iter": 1}, {"max_iter": 30, "tol": 1e-3}],
    "model_stock": [{}, {"filter_wise": True}],
    "multislerp": [WEIGHTS, {**WEIGHTS, "normalize_weights": False}, {**WEIGHTS, "eps": 1e-4}],
    "nearswap": [{"t": 0.05}, {"t": 0.0}, {"t": 10.0}],
    "nuslerp": [
        {"weight": [0.3, 0.9], "nuslerp_flatten": flatten, "nuslerp_row_wise": columns}
        for flatten in (True, False)
        for columns in (True, False)
    ]
    + [{"weight": [0.0, 0.0]}, {"weight": [1.5, -0.5]}],
    "passthrough": [{"scale": [0.5]}, {"scale": [-1.3]}],
    "ram": [{}, {"epsilon": 0.05}],
    "ramplus_tl": [{}, {"r": 0.5, "alpha": 0.7}, {"r": 0.5, "alpha": 3.0, "epsilon": 0.05}],
    "sce": [{}, {"select_topk": 0.3}, {"select_topk": 0.9}],
}
BASES = {"required": [True], "optional": [True, False], "none": [False]}
CASES = [
    pytest.param(name, values, with_base, id=f"{name}-{i}{'' if with_base else '-no base'}")
    for name, settings in SETTINGS.items()
    for i, values in enumerate(settings)
    for with_base in BASES[method(name).base]
]


def models_of(shape, count):
    """A base, and models that changed about half of its entries."""
    stream = torch.Generator().manual_seed(math.prod(shape))
    base = torch.randn(shape, generator=stream)
    models = []
    for _ in range(count):
        changed = torch.rand(shape, generator=stream) < 0.5
        models.append(base + 0.1 * torch.randn(shape, generator=stream) * changed)
    return base, models


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("name", "values", "with_base"), CASES)
def test_tensor_is_that_of_mergekit(name, values, with_base, shape):
    api = pytest.importorskip("mergekit.merge_methods.api")
    base, models = models_of(shape, COUNTS.get(name, 3))
    theirs = api.merge_tensors(
        [base, *models] if with_base else models,
        method=name,
        parameters=values,
        base_index=0 if with_base else None,
    )
    given = {"lambda_" if key == "lambda" else key: value for key, value in values.items()}
    ours = merge(method(name), base if with_base else None, models, **given)
    assert float((ours - theirs).abs().max()) <= 1e-6 * float(theirs.abs().max())
