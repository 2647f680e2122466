"""A mixture of experts, such as mergekit-moe's configuration, as a study of its routers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from merge_core.recipe.mixture_schema import Expert, Mixture
from merge_core.recipe.schema import Recipe
from search.draft.models import Paths, Seen, look
from search.spec.mixture_knobs import TRAINED

AROUND = 4.0  # ranges of factors reach from a fourth to four times the recipe's number


class Mixed:
    """The recipe section of a study of a mixture, every knob with the recipe's number as start.

    What the experts' part of the recipe says beside its routers stays, and so does all that is
    merged: ranges go there by hand.
    """

    def __init__(self, recipe: Recipe, paths: Paths) -> None:
        assert recipe.moe is not None
        self.notes: dict[str, str] = {}
        self.seen: Seen | None = look(recipe.base_model or recipe.names()[0], paths.roots)
        names = {name: paths.reference(name) for name in recipe.references()}
        self.original = replace(recipe, tokenizer=None, name=None).with_references(names)
        self.recipe = self.original.plain()
        self.recipe["moe"] |= _knobs(recipe.moe, self.recipe["moe"]["experts"])
        self.comments = {
            "recipe.moe.experts_per_token": f"in the recipe: {recipe.moe.experts_per_token}",
            "recipe.moe.temperature": f"divides all logits; in the recipe: "
            f"{recipe.moe.temperature:g}",
            "recipe.moe.gate_mode": "trained fits the routers to the search items instead",
        }


def _knobs(moe: Mixture, experts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the keys under ``moe`` with knobs in them."""
    count = moe.experts_per_token
    found: dict[str, Any] = {"gate_mode": moe.gate_mode}
    if len(moe.experts) > 1:
        choices = sorted({1, count, min(count + 1, len(moe.experts))})
        found["experts_per_token"] = {"choices": choices, "start": count}
    if moe.gate_mode == TRAINED:
        return found
    pairs = zip(experts, moe.experts, strict=True)
    found["experts"] = [{**plain, **_scale(expert)} for plain, expert in pairs]
    return {**found, "temperature": _range(moe.temperature)}


def _scale(expert: Expert) -> dict[str, Any]:
    return {"gate_scale": _range(expert.gate_scale)} if expert.gate_scale > 0 else {}


def _range(number: float) -> dict[str, Any]:
    return {"low": number / AROUND, "high": number * AROUND, "log": True, "start": number}
