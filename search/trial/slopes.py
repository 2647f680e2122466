"""A step of a search by gradient: the loss of right answers, and its slopes by the knobs."""

from __future__ import annotations

import math

from evaluators.protocol import LiveModel
from evaluators.target import Target
from merge_core.errors import NonFiniteError, NoTargetsError
from search.samplers.steps import Batch, Measured, Places
from search.space.space import Space
from search.spec.study_file import StudySpec, without_gradient
from search.trial.builder import Builder
from search.trial.tasks import SEARCH, Tasks

ALONE, FIRST = "gradient", "auto"  # samplers that go by gradient, the second where it applies
BACKWARD = 3  # evaluations of an item that a forward and a backward pass count as


def refusal(spec: StudySpec, space: Space, tasks: Tasks) -> str | None:
    """Return why a study cannot be searched by gradient, or None: it can."""
    return without_slopes(spec, space) or without_targets(tasks)


def refused(why: str) -> str:
    """Return the rule that a study breaks which asks for a gradient."""
    return f"'gradient' cannot search here: {why}; use 'auto'"


def left_out(why: str) -> str:
    """Return the notice of a study that goes on without."""
    return f"searched without gradients: {why}"


def without_slopes(spec: StudySpec, space: Space) -> str | None:
    """Return the rule of a search by gradient that a study's engine or space breaks, or None."""
    rule = without_gradient(spec.aggregate, spec.engine)
    if not rule and spec.template.experts():
        rule = "a mixture's weights have no derivative by the knobs of the merge behind them"
    if rule or space.smooth:
        return rule
    return "no knob has a derivative: none is a range without a step of a smooth parameter"


def without_targets(tasks: Tasks) -> str | None:
    """Return why a task has no right answers to learn from, or None: all have."""
    for evaluator in tasks.scored_by(SEARCH).values():
        try:
            evaluator.targets([])
        except NoTargetsError as error:
            return str(error)
    return None


def untrainable(spec: StudySpec, tasks: Tasks) -> str | None:
    """Return why a study cannot train the routers that it is to train, or None: it can."""
    why = without_targets(tasks) if spec.template.trained else None
    return why and f"'trained' cannot learn here: {why}; use 'hidden'"


def learnt(builder: Builder, tasks: Tasks, batch: Batch) -> Measured:
    """Measure the slopes of a batch's losses on the live candidate.

    Args:
        builder: Its live candidate is that of the batch's point.
        tasks: Whose items the batch names.
        batch: What to learn from.

    Raises:
        NonFiniteError: A loss or a slope is not finite.
        EvaluationError: A task raised.
        ParameterError: The model cannot be learnt from in place.
    """
    with builder.slopes() as found:
        loss = loss_of(tasks, builder.live, batch.learn, of=batch.of, backward=True)
    slopes = builder.space.pull_back(batch.point, found)
    odd = [name for name, slope in slopes.items() if not math.isfinite(slope)]
    if odd:
        raise NonFiniteError(f"the slope by {odd[0]} is not finite ({len(odd)} such)")
    return Measured(slopes, loss, items=BACKWARD * sum(map(len, batch.learn.values())))


def looked(tasks: Tasks, live: LiveModel, places: Places) -> Measured:
    """Measure the loss of held-out items; raises what ``loss_of`` does."""
    held_out = loss_of(tasks, live, places, of=places)
    return Measured({}, held_out=held_out, items=sum(map(len, places.values())))


def loss_of(
    tasks: Tasks, live: LiveModel, places: Places, *, of: Places, backward: bool = False
) -> float:
    """Return what items add to the tasks' mean losses, weighted as scores are in a trial's number.

    Args:
        tasks: Whose items the places name.
        live: The candidate.
        places: Task -> places in its order of the search pool.
        of: Those that the means are over, ``places`` among them.
        backward: Whether to add the gradient to that of the parameters.

    Raises:
        NonFiniteError: The loss is not finite.
    """
    targets: list[Target] = []
    weights: list[float] = []
    for task, evaluator in tasks.scored_by(SEARCH).items():
        pool = tasks.pools[SEARCH].of(task)
        sizes = [1.0] * len(evaluator.items) if evaluator.sizes is None else evaluator.sizes
        total = sum(sizes[pool[place]] for place in of.get(task, ()))
        which = [pool[place] for place in places.get(task, ())]
        targets += evaluator.targets(which)
        weights += [tasks.weights[task] * sizes[i] / total for i in which]
    engine = live.engine
    losses = engine.backward(targets, weights) if backward else engine.losses(targets)
    sum_ = sum(weight * loss for weight, loss in zip(weights, losses, strict=True))
    if not math.isfinite(sum_):
        raise NonFiniteError(f"the loss of {len(losses)} items is {sum_}; it must be finite")
    return sum_
