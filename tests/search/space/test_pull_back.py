"""Slopes by drawn numbers equal finite differences of what the plans' steps hold."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from merge_core.errors import ParameterError
from merge_core.kernels.gradients import Gradients
from merge_core.merge.nested import plan
from merge_core.parents.open import open_parents
from merge_core.parents.protocol import Parent
from merge_core.plan.steps import Plan
from search.space.space import Space
from search.space.traced import Traced, exp
from tests.search.space.test_space import draw, llama, space_of, template_of

MODELS = Path(__file__).parents[3] / "studies/quickstart/models"
NAMES = {name: str(MODELS / name) for name in ("base", "add", "sort", "rev")}
RANGE = {"low": 0.1, "high": 1.5}
SIDE = 1e-5
UNITS = [
    {},
    {"log": True},
    {"per": "layer"},
    {"per": 3, "log": True},
    {"per": [[0, 0], [1, 3]]},
    {"per": "tensor"},
    {"gradient": 3},
    {"cosine": 3},
    {"shape": "line"},
    {"shape": "kernel"},
]


@pytest.fixture(scope="module")
def parents() -> dict[str, Parent]:
    return dict(open_parents(tuple(NAMES.values()), (MODELS,)))


def of_quickstart(parents: dict[str, Parent], **recipe: Any) -> Space:
    return Space(template_of(recipe), parents[NAMES["base"]].tensors)


def arithmetic(parents: dict[str, Parent], weight: Any, **more: Any) -> Space:
    """Return the space of a task arithmetic of three; the base stands among the models."""
    own = {"add": weight, "sort": [{"filter": "mlp", "value": weight}, {"value": 0.3}], "rev": 0.2}
    models = [{"model": NAMES[k], "parameters": {"weight": x}} for k, x in own.items()]
    models.insert(1, {"model": NAMES["base"]})
    data = {"merge_method": "task_arithmetic", "base_model": NAMES["base"], "models": models}
    return of_quickstart(parents, **data, **more)


def some_slopes(made: Plan) -> dict[str, Gradients]:
    """Return random derivatives by every smooth value of every step."""
    found = random.Random(0)
    smooth = {param.name for param in made.method.params if param.smooth}
    return {
        step.tensor: Gradients(
            [{n: found.gauss(0, 1) for n in own if n in smooth} for own in step.values],
            {n: found.gauss(0, 1) for n in step.shared if n in smooth},
        )
        for step in made.steps
    }


def loss(made: Plan, slopes: dict[str, Gradients]) -> float:
    """Return the loss that has these derivatives, whatever the values."""
    total = 0.0
    for step in made.steps:
        pairs = [
            *zip(step.values, slopes[step.tensor].values, strict=True),
            (step.shared, slopes[step.tensor].shared),
        ]
        total += sum(float(own[n]) * slope for own, by in pairs for n, slope in by.items())
    return total


def check(space: Space, parents: dict[str, Parent], point: dict[str, Any] | None = None) -> None:
    point = draw(space) if point is None else point
    slopes = some_slopes(plan(space.recipe(point), parents))
    found = space.pull_back(point, slopes)
    assert found.keys() == space.smooth & space.active(point)
    for name, slope in found.items():
        sides = [
            loss(plan(space.recipe({**point, name: point[name] + side}), parents), slopes)
            for side in (-SIDE, SIDE)
        ]
        assert slope == pytest.approx((sides[1] - sides[0]) / (2 * SIDE), rel=1e-6, abs=1e-7), name


@pytest.mark.parametrize("unit", UNITS, ids=str)
def test_of_weights_of_task_vectors_in_every_unit(unit: Any, parents: dict[str, Parent]) -> None:
    space = arithmetic(parents, {**RANGE, **unit})
    assert len(space.smooth) == len(space.dimensions) > 1
    check(space, parents)


@pytest.mark.parametrize("unit", UNITS, ids=str)
def test_of_lambda_and_of_the_share_of_a_slerp(unit: Any, parents: dict[str, Parent]) -> None:
    check(arithmetic(parents, RANGE, parameters={"lambda": {**RANGE, **unit}}), parents)
    t = {"low": 0.1, "high": 0.9, **unit}
    slerp = {"merge_method": "slerp", "base_model": NAMES["base"]}
    models = [{"model": NAMES["add"]}]
    check(of_quickstart(parents, **slerp, models=models, parameters={"t": t}), parents)


def test_of_a_weight_that_stands_for_every_model(parents: dict[str, Parent]) -> None:
    models = [{"model": NAMES[name]} for name in ("add", "sort")]
    weight = {**RANGE, "per": "layer"}
    check(
        of_quickstart(parents, merge_method="linear", models=models, parameters={"weight": weight}),
        parents,
    )


def test_of_values_inside_a_written_gradient(parents: dict[str, Parent]) -> None:
    check(arithmetic(parents, [RANGE, 0.5, RANGE]), parents)


def test_values_that_are_moved_into_the_range_change_nothing(parents: dict[str, Parent]) -> None:
    space = arithmetic(parents, {**RANGE, "cosine": 2})
    point = draw(space) | {n: 0.6 for n in space.smooth if n.endswith("cosine 1")}
    point |= {name: 1.4 for name in space.smooth if name.endswith("mean")}
    check(space, parents, point)


def test_numbers_on_a_grid_choices_and_unsmooth_parameters_have_no_slope() -> None:
    own = {"weight": {**RANGE, "per": 2}, "density": {"low": 0.1, "high": 1.0}}
    models = [{"model": "one", "parameters": own}]
    models += [{"model": "two", "parameters": {"weight": {"low": 0, "high": 1, "step": 0.1}}}]
    shared = {"normalize": {"choices": [True, False]}, "lambda": RANGE}
    space = space_of(0, merge_method="ties", models=models, parameters=shared)
    assert space.smooth == {"weight/one/layers 0-1", "weight/one/layers 2-3", "lambda"}


def test_slopes_of_other_models_than_the_recipe_merges_are_refused() -> None:
    space = space_of(RANGE)
    slopes = {llama(1)[0]: Gradients([{"weight": 1.0}], {})}
    with pytest.raises(ParameterError, match="got derivatives for 1 models, the recipe merges 2"):
        space.pull_back(draw(space), slopes)


@pytest.mark.parametrize(
    "formula",
    [
        lambda x, y: x + 2 * y - 1,
        lambda x, y: 3 - x * y,
        lambda x, y: 1 / x - y / x + x / 2,
        lambda x, y: abs(x - y) + abs(y - x),
        lambda x, y: exp(x * y) / (exp(x) + exp(y)),
        lambda x, y: max(0.0, 1 - abs(x - 1.5) / y) * -x,
        lambda x, y: sum([x, y, x], start=0.0),
    ],
)
def test_arithmetic_carries_the_derivatives(formula: Any) -> None:
    x, y = 0.7, 1.3
    found = formula(Traced(x, {"x": 1.0}), Traced(y, {"y": 1.0}))
    assert float(found) == formula(x, y)
    for name, dx, dy in (("x", SIDE, 0.0), ("y", 0.0, SIDE)):
        slope = (formula(x + dx, y + dy) - formula(x - dx, y - dy)) / (2 * SIDE)
        assert found.by.get(name, 0.0) == pytest.approx(slope, abs=1e-8)
