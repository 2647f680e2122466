"""What a step by gradient measures of a real candidate, against finite differences of its loss."""

import numpy as np
import pytest

from merge_core.errors import NonFiniteError, ParameterError
from search.samplers.steps import Step
from search.spec import study_file
from search.trial import slopes
from search.trial.backends import Resident
from tests.search.real import Bench, write_study

SIDE = 0.02  # of a weight


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    spec = study_file.read(write_study(tmp_path_factory.mktemp("slopes"), sampler="gradient"))
    return Bench(spec.data, spec.folder)


def point_of(bench, level=0.4):
    names = [d.name for d in bench.builder.space.dimensions]
    return {name: level + 0.05 * i for i, name in enumerate(names)}


def at(bench, point, **places):
    """What is measured at a point, of the first items of each task."""
    some = dict.fromkeys(bench.tasks.weights, (0, 1, 2, 3))
    bench.build(bench.builder.space.recipe(point))
    step = Step(point, **{"learn": some, "look": {}, "scored": False, **places})
    parts = [slopes.learnt(bench.builder, bench.tasks, batch) for batch in step.batches()]
    if step.look:
        parts.insert(0, slopes.looked(bench.tasks, bench.builder.live, step.look))
    return step.joined(parts)


def test_slopes_by_knobs_are_those_of_finite_differences_of_the_loss(bench):
    point = point_of(bench)
    found = at(bench, point).slopes
    differences = {}
    for name in point:
        loss = {x: at(bench, {**point, name: point[name] + x * SIDE}).loss for x in (-2, -1, 1, 2)}
        differences[name] = (8 * (loss[1] - loss[-1]) - (loss[2] - loss[-2])) / (12 * SIDE)
    assert found.keys() == point.keys()
    ours, theirs = (np.array([x[name] for name in point]) for x in (found, differences))
    assert np.linalg.norm(ours - theirs) < 2e-3 * np.linalg.norm(theirs)


def test_loss_of_held_out_items_is_that_of_the_same_items_learnt_from(bench):
    some = dict.fromkeys(bench.tasks.weights, (1, 3))
    found = at(bench, point_of(bench), learn=some, look=some)
    assert found.held_out == pytest.approx(found.loss, rel=1e-5)
    assert found.items == 3 * 4 + 4


def test_mean_of_steps_measures_nothing(bench):
    found = at(bench, point_of(bench), learn={}, look={})
    assert (found.slopes, found.loss, found.held_out, found.items) == ({}, None, None, 0)


def test_tasks_count_in_the_loss_as_in_the_number_of_a_trial(bench):
    assert bench.tasks.weights == pytest.approx({"quickstart_add": 0.5, "quickstart_sort": 0.5})
    add, both = ({"quickstart_add": (0, 1)}, {"quickstart_add": (0, 1), "quickstart_sort": (0, 1)})
    sort = {"quickstart_sort": (0, 1)}
    losses = [at(bench, point_of(bench), learn={}, look=x).held_out for x in (add, sort, both)]
    assert losses[0] + losses[1] == pytest.approx(losses[2], rel=1e-6)


def test_loss_that_is_not_finite_is_the_candidates_fault(bench, monkeypatch):
    engine = bench.builder
    at(bench, point_of(bench))
    monkeypatch.setattr(type(engine.live.engine), "losses", lambda *_: [float("nan")] * 8)
    with pytest.raises(NonFiniteError, match="the loss of 8 items is nan"):
        at(bench, point_of(bench), learn={}, look=dict.fromkeys(bench.tasks.weights, (0, 1, 2, 3)))


def test_vllm_has_no_slopes():
    with pytest.raises(ParameterError, match=r"needs `engine: \{name: hf\}`, got vllm"):
        Resident.slopes(object())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, None),
        ({"aggregate": "apart"}, "it has one objective"),
    ],
)
def test_study_that_cannot_go_by_gradient_says_why(bench, change, why):
    spec = bench.spec.model_copy(update=change)
    found = slopes.refusal(spec, bench.builder.space, bench.tasks)
    assert found is None if why is None else found.startswith(why)
