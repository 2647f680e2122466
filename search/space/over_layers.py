"""A knob that is spread over the layers: several numbers, and one list of values in the recipe.

A knob ``per`` layer becomes a list with one value for each layer, which the dialect's interpolation
reproduces exactly. For tensors outside the layers the dialect takes a list's first value: right for
embeddings, and for the final norm and the head the *last* value is written out with a filter.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

from merge_core.architecture import layers
from merge_core.errors import MergeError
from merge_core.validation import Place
from search.spec.ranges import Knob
from search.spec.recipe_template import Template

Drawn = bool | float | str


class OverLayers:
    """The layers of a study's models, and what stands after them.

    Args:
        tensors: Names of all tensors of the models.
    """

    def __init__(self, tensors: Iterable[str]) -> None:
        self._names = tuple(sorted(tensors))

    @cached_property
    def _layers(self) -> layers.Layers:
        return layers.of(self._names)

    @cached_property
    def _after(self) -> list[str]:
        outside = [name for name in self._names if self._layers.index(name) is None]
        return [name for name in outside if not _is_embedding(name)]

    def check(self, place: str) -> None:
        """Make sure that a knob can be spread.

        Raises:
            MergeError: There are no layers, or a filter for what stands after them hits others.
        """
        if self._layers.count == 0:
            raise MergeError(f"{place}: per and gradient need a model with layers")
        for name in self._after:
            for other in self._names:
                if name in other and other not in self._after:
                    raise MergeError(
                        f"{place}: per and gradient need a filter for {name}, which is a part of "
                        f"the name {other} too; use a plain range"
                    )

    def parts(self, knob: Knob) -> list[str]:
        """Return the name of each number of a knob: ``layer 3``, ``layers 0-7``, ``anchor 1``."""
        count, per = self._layers.count, knob.per
        if per is None:
            return [f"anchor {i}" for i in range(knob.gradient or 1)]
        spans = [(first, min(first + per, count) - 1) for first in range(0, count, per)]
        return [f"layer {a}" if a == b else f"layers {a}-{b}" for a, b in spans]

    def spread(self, knob: Knob, numbers: list[Drawn]) -> list[Drawn]:
        """Return the list that goes into the recipe: a value for each layer, or the anchors."""
        if knob.per is None:
            return numbers
        return [numbers[i // knob.per] for i in range(self._layers.count)]

    def write_filters(
        self, data: dict[str, Any], place: Place, ours: list[Drawn], template: Template
    ) -> None:
        """Give final norm and head the last value of ``ours``, the list at ``place``, by name."""
        at = place.index("parameters")
        owner: Any = data
        if at > 0:  # by its name, not its position: the base may have been left out before it
            model = template.data["models"][place[1]]["model"]
            owner = next(source for source in data["models"] if source["model"] == model)
        parameters = owner["parameters"]
        name = place[at + 1]
        if name not in parameters:  # left out: another method was chosen
            return
        setting = parameters[name]
        if len(place) == at + 2:
            cases = [{"value": setting}]
        elif isinstance(setting, dict):
            cases = [setting]
        else:
            cases = setting
        i = next(i for i, case in enumerate(cases) if case["value"] is ours)
        parameters[name] = [*cases[:i], *self._filters_before(cases, i), *cases[i:]]

    def _filters_before(self, cases: list[dict[str, Any]], i: int) -> list[dict[str, Any]]:
        earlier = [case.get("filter") for case in cases[:i]]
        return [
            {"filter": name, "value": cases[i]["value"][-1]}
            for name in self._after
            if _matches(cases[i].get("filter"), name)
            and not any(_matches(wanted, name) for wanted in earlier)
        ]


def _matches(wanted: str | None, tensor: str) -> bool:
    return wanted in (None, "*") or str(wanted) in tensor


def _is_embedding(tensor: str) -> bool:
    """Return whether a tensor outside the layers stands before them (input embeddings)."""
    parts = tensor.split(".")
    return ("emb" in tensor and "out" not in tensor) or "wte" in parts or "wpe" in parts
