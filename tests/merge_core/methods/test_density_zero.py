"""Density 0 keeps nothing of a model's task vector; mergekit has it so in every method."""

import pytest
import torch

from merge_core.kernels import run
from merge_core.methods.registry import METHODS, method
from merge_core.methods.shared.sparsify.rule import chosen
from tests.merge_core.distances import difference
from tests.merge_core.methods.merging import inputs_for, merge, random_models

NAMES = [name for name in METHODS.names() if method(name).param("density")]
RULES = [name for name in NAMES if method(name).param("rescale")]
FIRST, SECOND = 0.0, 1.0


def models():
    base, two = random_models(16 * 33, 2)
    return base.reshape(16, 33), [model.reshape(16, 33) for model in two]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning")
def test_a_merge_with_density_0_is_that_of_mergekit(name, normalize):
    api = pytest.importorskip("mergekit.merge_methods.api")
    base, (one, two) = models()
    theirs = api.merge_state_dicts(
        {"base": {"w": base}, "0": {"w": one}, "1": {"w": two}},
        name,
        parameters={
            "weight": {"0": 0.7, "1": 0.4},
            "density": {"0": FIRST, "1": SECOND},
            "normalize": normalize,
        },
        base="base",
        dtype=torch.float32,
    )["w"]
    given = {"weight": [0.7, 0.4], "density": [FIRST, SECOND], "normalize": normalize}
    assert difference(merge(method(name), base, [one, two], **given), theirs) <= 1e-6


@pytest.mark.parametrize("rescale", [False, True, "inverse_density"])
@pytest.mark.parametrize("name", RULES)
def test_models_of_density_0_leave_the_base_by_the_kernels_and_by_the_reference(name, rescale):
    base, two = models()
    inputs = inputs_for(method(name), base, two, density=0.0, rescale=rescale)
    assert run.merge(method(name), inputs).equal(base)
    assert method(name).reference(inputs).equal(base)


@pytest.mark.parametrize("name", RULES)
def test_no_entry_of_a_model_of_density_0_stays(name):
    base, two = models()
    inputs = inputs_for(method(name), base, two, density=[0.0, 1.0])
    rule = method(name).prepare(inputs).flags[0]
    whole = [torch.cat([part for _, part in chosen(inputs, rule, i)]) for i in (0, 1)]
    assert [float(part.mean()) for part in whole] == [0.0, 1.0]
