import itertools
import math

import pytest
import torch

from merge_core.errors import ParameterError
from merge_core.merge import seed_spread
from merge_core.merge.execute import Execution
from merge_core.merge.nested import plan as plan_of
from merge_core.merge.seed_spread import Apart, seeded, spread
from tests.merge_core.recipes import LINEAR

DARE = """
merge_method: dare_linear
base_model: base
seed: 7
models:
  - {model: one, parameters: {weight: 1, density: [{filter: mlp, value: 0.3}, {value: 1}]}}
parameters: {rescale: inverse_density}
dtype: float32
"""
NESTED = """
name: drawn
merge_method: dare_ties
base_model: base
models:
  - {model: one, parameters: {weight: 1, density: 0.5}}
  - {model: two, parameters: {weight: 1, density: 0.5}}
dtype: float32
---
merge_method: linear
models:
  - {model: drawn, parameters: {weight: 1}}
  - {model: three, parameters: {weight: 1}}
dtype: float32
"""


def merges(made, count):
    """The tensors of each seed's merge, one by one, and the digests."""
    plans = [plan_of(recipe, made.plan.opened) for recipe in seeded(made.plan.recipe, count)]
    return [{s.tensor: Execution(p).carry_out(s).double() for s in p.steps} for p in plans]


@pytest.mark.parametrize("block", [seed_spread.BLOCK, 50])
def test_spread_is_the_deviation_of_merges_with_the_seeds_that_follow(planned, block, monkeypatch):
    monkeypatch.setattr(seed_spread, "BLOCK", block)
    made = planned(DARE)
    found, base = spread(made.plan, 4), made.parents["base"]
    assert found.seeds == (7, 8, 9, 10)
    every = merges(made, 4)
    for name, one in found.tensors.items():
        changes = torch.stack([x[name] - base.tensor(name).double() for x in every])
        mean = changes.mean(0)
        assert one.share == pytest.approx(
            math.sqrt(float(((changes - mean) ** 2).sum()) / 3) / float(mean.norm()), abs=1e-12
        )
        pairs = [float((a * b).sum()) for a, b in itertools.combinations(changes, 2)]
        square = float((changes**2).sum()) / 4
        assert one.cosine == pytest.approx(sum(pairs) / len(pairs) / square)
    assert all(bool(one.share) == ("mlp" in name) for name, one in found.tensors.items())


def test_spread_and_cosine_are_those_that_the_density_says(planned):
    """Of d kept with p and divided by p: the variance is |d|^2 (1 - p) / p, the cosine p."""
    found = spread(planned(DARE).plan, 12)
    here = [one for name, one in found.tensors.items() if "mlp" in name]
    one = sum(here, Apart())
    p, seeds = 0.3, 12
    expected = (1 - p) / p
    assert one.share == pytest.approx(math.sqrt(expected / (1 + expected / seeds)), rel=0.05)
    assert one.cosine == pytest.approx(p, rel=0.05)
    assert found.kinds()["up_proj"].share == pytest.approx(one.share, rel=0.1)


def test_each_seed_has_the_weights_of_a_merge_with_it(planned):
    digests = spread(planned(DARE).plan, 3).digests
    wanted = [planned(DARE.replace("seed: 7", f"seed: {i}")).build()[0] for i in (7, 8, 9)]
    assert list(digests) == wanted


def test_where_nothing_is_drawn_all_seeds_are_one(planned):
    found = spread(planned(LINEAR).plan, 3)
    assert len({*found.digests}) == 1
    assert (found.whole.share, found.whole.cosine) == (0.0, 1.0)


def test_masks_of_a_document_that_is_referred_to_are_drawn_anew_too(planned):
    found = spread(planned(NESTED).plan, 2)
    assert len({*found.digests}) == 2
    assert found.whole.share > 0


def test_progress_is_told_tensor_by_tensor(planned):
    seen = []
    plan = planned(DARE).plan
    spread(plan, 2, lambda done, every: seen.append((done, every)))
    assert seen == [(i + 1, len(plan.steps)) for i in range(len(plan.steps))]


def test_one_seed_has_no_spread(planned):
    with pytest.raises(ParameterError, match="seeds: expected at least 2, got 1"):
        spread(planned(DARE).plan, 1)
