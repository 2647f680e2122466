"""Training the routers of a real mixture: what moves, when it ends, and that it repeats."""

import pytest
import torch

from search.spec import study_file
from search.trial import router_file, routers
from tests.search.real import Bench
from tests.search.run.test_mixture_study import write_study


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    spec = study_file.read(write_study(tmp_path_factory.mktemp("routers")))
    return Bench(spec.data, spec.folder)


def trained(bench):
    """What training was, with routers and other weights behind it."""
    recipe = bench.builder.space.recipe(
        {"gate_mode": "trained", "experts_per_token": 2, "lambda": 0.7}
    )
    assert router_file.asks(recipe)
    found = {}

    def fit(live, learning):
        before = {n: x.detach().clone() for n, x in live.model.named_parameters()}
        fitted = routers.fit(live, bench.tasks, learning, 3)
        found.update({name: x.detach().clone() for name, x in learning.items()})
        moved = {n for n, x in live.model.named_parameters() if not x.equal(before[n])}
        assert moved == {f"model.layers.{i}.mlp.gate.weight" for i in range(4)}
        return fitted

    made, fitted = bench.builder.with_routers(recipe, fit)
    assert router_file.without_file(made) == recipe
    return fitted, found, made


def test_routers_alone_move_and_held_out_loss_falls(bench):
    fitted, found, _ = trained(bench)
    assert fitted.after < 0.99 * fitted.before
    assert all(bool(x.norm(dim=1).gt(0).all()) for x in found.values())


def test_training_repeats_to_the_bit(bench):
    first, again = trained(bench), trained(bench)
    assert first[0] == again[0]
    assert first[2] == again[2]
    assert all(x.equal(again[1][name]) for name, x in first[1].items())


def test_training_that_leads_nowhere_ends_at_the_start(bench, monkeypatch):
    real = routers.loss_of

    def flat(tasks, live, places, *, of, backward=False):
        loss = real(tasks, live, places, of=of, backward=backward)
        return loss if backward else 1.0

    monkeypatch.setattr(routers, "loss_of", flat)
    recipe = bench.builder.space.recipe(
        {"gate_mode": "trained", "experts_per_token": 1, "lambda": 0.7}
    )
    kept = {}

    def fit(live, learning):
        fitted = routers.fit(live, bench.tasks, learning, 0)
        kept.update({name: x.detach().clone() for name, x in learning.items()})
        return fitted

    _, fitted = bench.builder.with_routers(recipe, fit)
    assert fitted.steps == routers.LOOK * routers.PATIENCE * (routers.CUTS + 1)
    assert (fitted.before, fitted.after) == (1.0, 1.0)
    assert all(torch.count_nonzero(x) == 0 for x in kept.values())
