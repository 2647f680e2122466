"""Knobs -> named numbers that a sampler draws, and drawn numbers -> a plain mergekit recipe.

Plain data: Optuna's distributions are made from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any

from merge_core.contract import Param
from merge_core.errors import MergeError, Problems, join
from merge_core.plan.layout import Placed
from merge_core.recipe import read as recipe_reader
from merge_core.recipe.schema import Recipe
from merge_core.validation import Place
from search.space import units
from search.space.dimension import Dimension
from search.space.names import filters_at, name_of
from search.space.over_layers import Case
from search.space.pull_back import pulled_back
from search.space.scopes import Names, Scopes
from search.space.traced import Traced
from search.space.units import Drawn
from search.spec.knob_places import decides, is_whole, sum_of
from search.spec.mixture_knobs import DENSE, MOE, layers_of
from search.spec.ranges import Knob
from search.spec.recipe_template import Cases, Template

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from merge_core.kernels.gradients import Gradients


class Space:
    """All dimensions of a study.

    Args:
        template: The recipe with knobs.
        tensors: Names of all tensors of the model that gives the config.
        problems: Is extended by knobs that cannot be spread over the layers of such a model, which
            have no dimensions then, and by layers that a model does not have.
        parents: The tensors of every model that is merged, in the order of its modules; None: all
            have the same.

    Raises:
        MergeError: There are such problems, and nowhere to tell of them; all at once.
    """

    def __init__(
        self,
        template: Template,
        tensors: Iterable[str],
        problems: Problems | None = None,
        *,
        parents: Names | None = None,
    ) -> None:
        self.template = template
        names = tuple(tensors)
        self.tensors = tuple(sorted(names))
        self._scopes = Scopes(template, names, parents)
        found: Problems = []
        self._of: dict[Place, list[Dimension]] = {}
        self._cases: dict[Place, list[Case]] = {}
        for knob in template.knobs:
            rule = self._add(knob)
            if rule is not None:
                found.append((reduce(join, knob.place, "recipe"), rule))
        self._add_structure(found)
        self._check_sums(found)
        self._scopes.check(found)
        if problems is not None:
            problems.extend(found)
        elif found:
            raise MergeError("; ".join(f"{path}: {rule}" for path, rule in found))
        self.dimensions = tuple(dict.fromkeys(self._all()))

    @cached_property
    def deciding(self) -> tuple[str, ...]:
        """Names of the knobs on which it hangs what else is drawn; see ``knob_places.decides``."""
        return tuple(self._of[place][0].name for place in self._of if decides(place))

    def active(self, drawn: Mapping[str, Drawn]) -> frozenset[str]:
        """Return the names of the dimensions that change something.

        The others belong to methods that are not chosen or to models that do not take part. They
        need no value, and a trial has none of them.

        Args:
            drawn: At least the values of what is ``deciding``.
        """
        return frozenset(d.name for place in self.used(drawn) for d in self._of[place])

    def mended(self, drawn: Mapping[str, Drawn]) -> Mapping[str, Drawn]:
        """Return the values that some count as, where several stand for one candidate."""
        return drawn

    def used(self, drawn: Mapping[str, Drawn]) -> list[Place]:
        """Return the places of the knobs that change something, as :meth:`active` has them."""
        chosen = {p: drawn[self._of[p][0].name] for p in self._of if decides(p)}
        return [place for place in self._of if self.template.used(place, chosen)]

    def recipe(self, drawn: Mapping[str, Drawn]) -> Recipe:
        """Return the recipe that the drawn values stand for.

        Args:
            drawn: One value for the name of every active dimension.

        Raises:
            MergeError: The values do not make a valid recipe.
        """
        problems: list[tuple[str, str]] = []
        filled = self.template.filled(self._values(drawn))
        recipe = recipe_reader.parse(filled, "recipe", problems)
        if recipe is None:
            raise MergeError("; ".join(f"{path}: {rule}" for path, rule in problems))
        return recipe

    def _values(self, drawn: Mapping[str, Drawn]) -> dict[Place, Any]:
        """Return what goes into the recipe, by place."""
        over = {place: self._over(place, drawn) for place in self.used(drawn)}
        for together in self.sums(over):
            logits = [over[place] for place in together]
            total = self._of[together[0]][0].knob.sum or 1.0
            over |= zip(together, units.shared_out(total, logits), strict=True)
        return {place: self._put(place, found) for place, found in over.items()}

    @cached_property
    def smooth(self) -> frozenset[str]:
        """Names of the dimensions that a loss has a derivative by: ranges without a grid."""
        if MOE in self.template.data:  # the merge behind a mixture is done before its plan
            return frozenset()
        methods = self.template.methods()
        smooth = {param.name for one in methods for param in one.params if param.smooth}
        return frozenset(
            d.name
            for d in self.dimensions
            if d.number is not None and d.knob.step is None and d.param and d.param.name in smooth
        )

    def pull_back(
        self, drawn: Mapping[str, Drawn], slopes: Mapping[str, Gradients]
    ) -> dict[str, float]:
        """Return how a loss changes with drawn values, from how it changes with tensors' values.

        Args:
            drawn: One value for the name of every active dimension.
            slopes: Stored tensor -> derivatives by its parameters, models in the recipe's order.

        Returns:
            Name of each smooth dimension that is active -> ``dL / d drawn`` (of a log range by the
            value itself); 0 where units move values into the range.

        Raises:
            MergeError: The values do not make a valid recipe, or the derivatives are of another.
        """
        carried = {
            name: Traced(float(value), {name: 1.0}) if name in self.smooth else value
            for name, value in drawn.items()
        }
        recipe = self.recipe(carried)
        found = pulled_back(recipe, slopes, self.placed(recipe))
        there = self.smooth & self.active(drawn)
        return {d.name: found.get(d.name, 0.0) for d in self.dimensions if d.name in there}

    @property
    def alike(self) -> bool:
        """Whether all models have the same layers, so that a mean of them can be taken."""
        return self._scopes.alike

    @property
    def layers(self) -> int:
        """How many layers the model that gives the config has."""
        return self._scopes.whole.count

    @property
    def places(self) -> tuple[Place, ...]:
        """Where the knobs stand in the recipe."""
        return tuple(self._of)

    def at(self, place: Place) -> list[Dimension]:
        """Return the dimensions of the knob at a place."""
        return self._of[place]

    def depth(self, place: Place, tensor: str) -> float:
        """Return a tensor's place in [0, 1], as the dialect's interpolation takes it.

        Args:
            place: Of a knob.
            tensor: One of those that it decides.
        """
        return self._scopes.depth(place, tensor)

    def placed(self, recipe: Recipe) -> dict[str, Placed]:
        """Return tensor of the result -> what goes into it, and which settings hold for it.

        Raises:
            CheckpointError: A layer that the recipe names is not there.
        """
        return self._scopes.placed(recipe)

    def decided(self, place: Place) -> tuple[int, list[tuple[int, str]]]:
        """Return how many values a knob has, and which of them each tensor gets that it decides."""
        knob = self._of[place][0].knob
        over = self._scopes.of(place)
        hits = over.hits(*filters_at(self.template, place))
        if knob.per == "tensor":
            return len(hits), list(enumerate(hits))
        if not knob.spread:
            return 1, [(0, tensor) for tensor in hits]
        return over.count, [(over.layer_of(tensor), tensor) for tensor in hits]

    @property
    def idle(self) -> list[str]:
        """Names of dimensions that reach no tensor: a filter hits none, or none of their layers."""
        reached: set[str] = set()
        for place, members in self._of.items():
            count, decided = self.decided(place)
            there = {position for position, x in decided if place[0] == MOE or not self._lost(x)}
            knob = members[0].knob
            if knob.per == "tensor":
                spans = [range(i, i + 1) for i in range(count)]
            elif knob.per is not None and not knob.ordered:
                bands = units.bands(knob, count)
                spans = [range(first, last + 1) for first, last in bands]
            else:
                spans = [range(count)] * len(members)
            pairs = zip(members, spans, strict=True)
            reached |= {d.name for d, span in pairs if there & {*span}}
        return [d.name for d in self.dimensions if d.name not in reached]

    def _lost(self, tensor: str) -> bool:
        """Return whether experts stand in place of what is merged there, in every candidate."""
        moe = self.template.data.get(MOE) or {DENSE[-1]: "all"}
        return not moe.get(DENSE[-1]) and ".mlp." in tensor

    def point(self, level: Callable[[Knob, Param | None], Drawn]) -> dict[str, Drawn]:
        """Return the point where every knob has one value at all its positions.

        Args:
            level: Knob and parameter -> the value, in the knob's range, or one of its choices.
        """
        found: dict[str, Drawn] = {}
        for members in self._of.values():
            value = level(members[0].knob, members[0].param)
            drawn = [d.number for d in members if d.number is not None]
            levels: list[Any] = [value] * len(members)
            if drawn:
                levels = units.level(members[0].knob, float(value), drawn)
            found |= zip((d.name for d in members), levels, strict=True)
        return found

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return Optuna's distribution for the name of every dimension."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution

        return {
            d.name: CategoricalDistribution(d.knob.choices)
            if d.number is None
            else FloatDistribution(
                d.number.low, d.number.high, step=d.number.step, log=d.number.log
            )
            for d in self.dimensions
        }

    def _over(self, place: Place, drawn: Mapping[str, Drawn]) -> list[Any]:
        """Return the values of a knob at its positions; of a sum, logits."""
        members = self._of[place]
        knob, found = members[0].knob, [d.on_grid(drawn[d.name]) for d in members]
        layered = knob.spread and knob.per != "tensor"
        return units.values(knob, found, self._scopes.of(place).count if layered else 0)

    def _put(self, place: Place, over: list[Any]) -> Any:
        """Return what goes into the recipe at a place, from the values at its positions."""
        if place in self._cases:
            return Cases(case.filled(over) for case in self._cases[place])
        if place == DENSE:
            return layers_of(over)
        return int(over[0]) if is_whole(place) else over[0]

    def sums(self, places: Iterable[Place]) -> list[list[Place]]:
        """Return which of some knobs add up to a number together."""
        found: dict[Any, list[Place]] = {}
        for place in places:
            knob = self._of[place][0].knob
            if knob.sum is not None:
                found.setdefault(sum_of(self.template.data, knob), []).append(place)
        return list(found.values())

    def _add_structure(self, problems: Problems) -> None:
        """Add dimensions of the recipe's structure; here there are none but those of knobs."""

    def _check_sums(self, problems: Problems) -> None:
        """Add a problem where knobs that sum do not decide the same."""
        for first, *others in self.sums(self._of):
            for other in others:
                if len(self._of[first]) != len(self._of[other]):
                    path, at = (reduce(join, place, "recipe") for place in (other, first))
                    problems.append((path, f"decides other tensors than {at}, with which it sums"))

    def _add(self, knob: Knob) -> str | None:
        """Add a knob's dimensions, or return why it cannot be spread."""
        wanted, earlier = filters_at(self.template, knob.place)
        tensors: list[str] = []
        if knob.spread:
            rule = self._scopes.rule_broken_by(knob)
            if rule is not None:
                return rule
        if knob.spread and knob.place != DENSE:
            self._cases[knob.place] = self._scopes.of(knob.place).cases(knob, wanted, earlier)
        if knob.per == "tensor":
            tensors = self._scopes.of(knob.place).hits(wanted, earlier)
            if not tensors:
                return f"no tensor is left for filter {wanted!r}, after those before it"
        self._of[knob.place] = self._dimensions(knob, tensors)
        return None

    def _all(self) -> list[Dimension]:
        return [member for members in self._of.values() for member in members]

    def _dimensions(self, knob: Knob, tensors: list[str]) -> list[Dimension]:
        name, known = (
            knob.tied or name_of(self.template, knob.place),
            {d.name: d for d in self._all()},
        )
        layers = self._scopes.of(knob.place).count if knob.spread and knob.per != "tensor" else 0
        numbers = units.numbers(knob, layers, tensors)
        parts = [f"/{number.name}" if number.name else "" for number in numbers]
        drawn = [None] * len(numbers) if knob.choices else numbers
        taken = [d for part in parts if (d := known.get(f"{name}{part}")) is not None]
        if any(knob.tied is None or d.knob.tied != knob.tied for d in taken):
            name = f"{name} ({reduce(join, knob.place, 'recipe')})"
        param = self._param(knob.place)
        found = [
            Dimension(f"{name}{part}", knob, param, number)
            for part, number in zip(parts, drawn, strict=True)
        ]
        return [known.get(d.name, d) for d in found]

    def _param(self, place: Place) -> Param | None:
        if "parameters" not in place:
            return None
        name = place[place.index("parameters") + 1]
        found = (m.param(str(name)) for m in self.template.methods())
        return next(param for param in found if param is not None)
