import copy
from dataclasses import replace

import pytest
import torch

from merge_core.errors import ParameterError
from merge_core.output.live_model import Candidate
from tests.merge_core.parents.adapters import train
from tests.merge_core.recipes import LINEAR, RECIPES, TASK_ARITHMETIC, TIES

IDS = torch.tensor([[5, 9, 20, 11, 7, 30, 2, 17], [6, 3, 3, 19, 25, 8, 14, 4]])
SIDE = 0.004  # of a parameter, in finite differences
COUNTED = TIES.replace("lambda", "consensus: count, lambda")  # no sign hangs on a weight
BREADCRUMBS = TIES.replace("ties", "breadcrumbs")
NUSLERP = """
merge_method: nuslerp
base_model: base
models:
  - {model: one, parameters: {weight: 0.3}}
  - {model: two, parameters: {weight: 0.6}}
"""
NORMALIZED = LINEAR + "parameters: {normalize: true}\n"
ADAPTERS = """
merge_method: task_arithmetic
base_model: base
models:
  - {model: base+first, parameters: {weight: 0.4}}
  - {model: base+second, parameters: {weight: 0.7}}
"""


def loss_of(model, ids=IDS):
    logits = model(input_ids=ids).logits[:, :-1].double()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def precise_loss(candidate, plan):
    """The loss of a plan's weights, which are float32, computed in float64 where a class can."""
    candidate.build(plan)
    model = copy.deepcopy(candidate.model).double()
    model.config._experts_implementation = "eager"  # grouped products know no float64
    with torch.no_grad():
        return float(loss_of(model))


def moved(plan, name, i, side):
    """The plan with one parameter moved for every tensor: of operand ``i``, or the shared one."""

    def step_moved(step):
        if step.copied:
            return step
        if i is None:
            return replace(step, shared={**step.shared, name: step.shared[name] + side})
        values = [dict(was) for was in step.values]
        values[i][name] += side
        return replace(step, values=tuple(values))

    return replace(plan, steps=tuple(map(step_moved, plan.steps)))


def collected(plan, *parts):
    candidate = Candidate()
    candidate.build(plan)
    with candidate.slopes() as found:
        for ids in parts or [IDS]:
            (loss_of(candidate.model, ids) / max(1, len(parts))).backward()
    return found


def finite_difference(candidate, plan, name, i):
    """The derivative of the loss by a parameter, with an error of the fourth order."""
    loss = {x: precise_loss(candidate, moved(plan, name, i, x * SIDE)) for x in (-2, -1, 1, 2)}
    return (8 * (loss[1] - loss[-1]) - (loss[2] - loss[-2])) / (12 * SIDE)


def assert_slopes_are_those_of_finite_differences(plan):
    """Of every smooth parameter of every model, all tensors moved at once."""
    found, candidate = collected(plan), Candidate()
    step = next(s for s in plan.steps if not s.copied)
    ours, theirs = [], []
    for param in plan.method.params:
        places = range(len(step.values)) if param.scope == "model" else [None]
        for i in places if param.smooth else ():
            theirs.append(finite_difference(candidate, plan, param.name, i))
            each = [g.shared if i is None else g.values[i] for g in found.values()]
            ours.append(sum(slopes[param.name] for slopes in each))
    error = torch.tensor(ours) - torch.tensor(theirs)
    assert error.norm() < 1e-3 * torch.tensor(theirs).norm(), (ours, theirs)


@pytest.mark.parametrize("kind", ["llama-tied", "llama", "qwen3", "gpt-neox", "mixtral"])
@pytest.mark.parametrize("recipe", [TASK_ARITHMETIC, RECIPES["slerp"]])
def test_slopes_are_those_of_finite_differences(planned, kind, recipe):
    assert_slopes_are_those_of_finite_differences(planned(recipe, kind).plan)


@pytest.mark.parametrize("recipe", [NORMALIZED, NUSLERP])
def test_slopes_of_what_is_normalized_are_those_of_finite_differences(planned, recipe):
    assert_slopes_are_those_of_finite_differences(planned(recipe).plan)


@pytest.mark.parametrize("recipe", [COUNTED, BREADCRUMBS, RECIPES["dare_linear"]])
def test_slopes_with_masks_and_elected_signs_are_those_of_finite_differences(planned, recipe):
    assert_slopes_are_those_of_finite_differences(planned(recipe).plan)


def test_slopes_of_adapters_are_those_of_finite_differences(planned, own_family):
    root = own_family("llama")
    for seed, name in enumerate(["first", "second"]):
        train(root / "base", root / name, target_modules=["q_proj", "up_proj"], r=2 + seed)
    assert_slopes_are_those_of_finite_differences(planned(ADAPTERS, root=root).plan)


def test_micro_batches_add_up_and_leave_no_gradient(planned):
    plan = planned(TASK_ARITHMETIC, "llama").plan
    whole, parts = collected(plan), collected(plan, IDS[:1], IDS[1:])
    assert whole.keys() == parts.keys() == {step.tensor for step in plan.steps}
    for name, one in whole.items():
        for ours, theirs in zip(one.values, parts[name].values, strict=True):
            assert ours["weight"] == pytest.approx(theirs["weight"], rel=1e-4, abs=1e-7), name


def test_only_one_gradient_is_there_at_a_time(planned):
    candidate = Candidate()
    candidate.build(planned(TASK_ARITHMETIC, "llama").plan)
    there = []

    def look(_):
        there.append(sum(p.grad is not None for p in candidate.model.parameters()))

    with candidate.slopes():
        for parameter in candidate.model.parameters():
            parameter.register_post_accumulate_grad_hook(look)
        loss_of(candidate.model).backward()
    assert there == [0] * len(list(candidate.model.parameters()))
    assert all(p.grad is None for p in candidate.model.parameters())


def test_slopes_of_bfloat16_weights_are_summed_in_more(planned):
    plan = planned(f"dtype: bfloat16{TASK_ARITHMETIC}", "llama").plan
    precise = collected(planned(TASK_ARITHMETIC, "llama").plan)
    found = collected(plan)
    ours = torch.tensor([[v["weight"] for v in found[n].values] for n in precise])
    theirs = torch.tensor([[v["weight"] for v in precise[n].values] for n in precise])
    assert (ours - theirs).norm() < 0.05 * theirs.norm()


def test_weights_that_no_plan_fills_get_no_gradient_and_keep_their_flag(planned):
    candidate = Candidate()
    candidate.build(planned(TASK_ARITHMETIC, "llama").plan)
    before = [p.requires_grad for p in candidate.model.parameters()]
    with candidate.slopes():
        pass
    assert [p.requires_grad for p in candidate.model.parameters()] == before


def test_method_without_smooth_parameters_is_refused(planned):
    candidate = Candidate()
    recipe = "merge_method: passthrough\nmodels: [{model: one}]\n"
    candidate.build(planned(recipe, "llama").plan)
    with (
        pytest.raises(ParameterError, match="no parameter of 'passthrough' has a derivative"),
        candidate.slopes(),
    ):
        loss_of(candidate.model).backward()


STACKED = """
merge_method: linear
base_model: base
parameters: {weight: 1, normalize: false}
slices:
  - sources: [{model: base, layer_range: [0, 2]}]
  - sources:
      - {model: base, layer_range: [1, 2], parameters: {weight: 0.3}}
      - {model: one, layer_range: [0, 1], parameters: {weight: 0.6}}
    input_scale: 0.8
  - sources: [{model: base, layer_range: [1, 2]}]
  - sources:
      - {model: base, layer_range: [1, 2], parameters: {weight: 0.3}}
      - {model: one, layer_range: [0, 1], parameters: {weight: 0.6}}
"""


@pytest.mark.parametrize("kind", ["llama", "llama-tied", "qwen3", "gpt-neox"])
@pytest.mark.parametrize(("layer", "i"), [(1, 0), (2, 0), (2, 1), (3, 0), (4, 1)])
def test_slopes_of_stacks_are_those_of_finite_differences_place_by_place(planned, kind, layer, i):
    plan = planned(STACKED, kind).plan
    there = [s for s in plan.steps if f"layers.{layer}." in s.tensor and len(s.values) > i]
    found, candidate = collected(plan), Candidate()
    names = {step.tensor for step in there}

    def side(x):
        shifted = moved(replace(plan, steps=tuple(there)), "weight", i, x * SIDE)
        by_name = {step.tensor: step for step in shifted.steps}
        steps = tuple(by_name.get(step.tensor, step) for step in plan.steps)
        return precise_loss(candidate, replace(plan, steps=steps))

    loss = {x: side(x) for x in (-2, -1, 1, 2)}
    theirs = (8 * (loss[1] - loss[-1]) - (loss[2] - loss[-2])) / (12 * SIDE)
    ours = sum(found[name].values[i]["weight"] for name in names)
    assert ours == pytest.approx(theirs, rel=2e-3, abs=1e-5)
    assert abs(ours) > 1e-4


def test_slopes_of_a_stack_leave_the_parents_as_they_were(planned):
    made = planned(STACKED, "llama")
    before = {name: x.tensor(name_of(x)).clone() for name, x in made.parents.items()}
    candidate = Candidate()
    candidate.build(made.plan)
    with candidate.slopes():
        loss_of(candidate.model).backward()
    assert all(made.parents[n].tensor(name_of(made.parents[n])).equal(x) for n, x in before.items())
    assert all(p.grad is None for p in candidate.model.parameters())


def name_of(parent):
    return next(name for name in parent.tensors if ".1.mlp." in name)
