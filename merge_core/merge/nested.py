"""Recipes of several documents: all are planned, and each but the result is a parent of the others.

Its tensors are merged when asked for and never written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from merge_core.contract import Tensor
from merge_core.errors import ParameterError, Problem
from merge_core.merge.execute import Execution, Merged
from merge_core.mixture.plan import plan_mixture
from merge_core.parents.protocol import Parent
from merge_core.parents.weight_files import TensorInfo
from merge_core.plan.planner import plan_document
from merge_core.plan.steps import Plan
from merge_core.recipe.read import Reading
from merge_core.recipe.schema import Recipe
from merge_core.tokenizer import parent_tokenizer


def plan(recipe: Recipe, opened: Mapping[str, Parent]) -> Plan:
    """Plan a valid recipe and the documents it names; ``opened`` has every parent by reference.

    Raises:
        CheckpointError, ShapeError, ParameterError: See ``planner.plan_document`` and
            ``mixture.plan.plan_mixture``; or a document that is no result makes a tokenizer of its
            own.
    """
    parents = dict(opened)
    for document in recipe.documents:
        assert document.name is not None
        made = _planned(document, dict(parents), opened)
        _check_parent(document.name, made)
        parents[document.name] = Intermediate(document.name, made)
    return _planned(recipe, parents, opened)


def _planned(recipe: Recipe, parents: Mapping[str, Parent], opened: Mapping[str, Parent]) -> Plan:
    """Plan one document; its own ``documents`` aside."""
    if recipe.moe is None:
        return plan_document(recipe, parents, opened)
    dense = plan_document(replace(recipe, moe=None), parents, opened)
    return plan_mixture(recipe, dense, parents, _rest)


def _rest(name: str, plan: Plan) -> Parent:
    """Return the dense part of a mixture; the same object as long as the same plan makes it.

    So what a live model has of it stays, where a study's candidates differ in their experts.
    """
    views, key = plan.parents[plan.config_from].views, frozenset({name})
    kept = views.get(key)
    if not isinstance(kept, Intermediate) or kept.plan != plan:
        kept = views[key] = Intermediate(name, plan, part=True)
    return kept


def unmatched_filters(reading: Reading, plan: Plan) -> list[Problem]:
    """Return a notice for every filter that is no part of any tensor's name."""
    # A mixture has no settings beside those of its dense part, which is among its parents.
    plans = [one for one in _plans(plan, set()) if one.recipe.moe is None]
    found = [notice for one in plans for notice in _unmatched(reading, one)]
    return list(dict.fromkeys(found))


def _plans(plan: Plan, seen: set[int]) -> Iterator[Plan]:
    """Yield the plans that a plan is made of, and itself last, each once."""
    seen.add(id(plan))
    for parent in plan.parents.values():
        if isinstance(parent, Intermediate) and id(parent.plan) not in seen:
            yield from _plans(parent.plan, seen)
    yield plan


def _unmatched(reading: Reading, plan: Plan) -> Iterator[Problem]:
    of_models: dict[str, set[str]] = {}
    for step in plan.steps:
        for operand in step.inputs():
            of_models.setdefault(operand.parent, set()).add(operand.tensor)
    everywhere = {step.tensor for step in plan.steps}.union(*of_models.values())
    for path, part, model in plan.recipe.filters():
        names = everywhere if model is None else of_models.get(model, set())
        if not any(part in name for name in names):
            whose = "the models" if model is None else model
            rule = f"{part!r} changes nothing: no tensor of {whose} has it in its name"
            yield reading.at(plan.recipe.name, path, rule)


def _check_parent(name: str, plan: Plan) -> None:
    """Check that weights are all that a document gives: no own tokenizer, no scaled inputs."""
    if plan.input_scales:
        raise ParameterError(
            f"document {name!r}: input_scale of layers {sorted(plan.input_scales)}: only the "
            f"result's layers have one, the weights of another document cannot hold it"
        )
    folder = plan.parents[plan.tokens_from].folder
    if plan.vocabulary is None:
        return
    if plan.vocabulary.token_ids != parent_tokenizer.load(folder).get_vocab():
        raise ParameterError(
            f"document {name!r}: its tokenizer is that of none of its models, but one with other "
            f"tokens, which only the result can have; give the tokenizer to the result instead, "
            f"or merge this document to a folder first"
        )


class Intermediate(Merged):
    """A planned merge as a parent of another one.

    Its tensors are rounded to its own ``dtype``, so that the result is the same as if it had been
    written to a folder first.
    """

    located = None

    def __init__(self, name: str, plan: Plan, *, part: bool = False) -> None:
        self.reference = name
        self.plan, self.part = plan, part
        self.config, self.folder = plan.config, plan.parents[plan.tokens_from].folder
        self._steps = {step.tensor: step for step in plan.steps}
        self.execution = Execution(plan)
        self.tensors = {
            step.tensor: TensorInfo("", step.shape, plan.stored_type(step)) for step in plan.steps
        }

    def tensor(self, name: str) -> Tensor:
        """Return a merged tensor, of the document's type."""
        return self.execution.carry_out(self._steps[name])

    def makes(self, name: str) -> bool:
        """See ``Parent``."""
        return True

    def expect(self, name: str) -> None:
        """See ``Parent``."""
        self.execution.expect(self._steps[name])
