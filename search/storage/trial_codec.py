"""Trials as Optuna keeps them: a frozen trial, and attributes of the study for later pools.

Optuna does not let a settled trial change, so what is measured of it on the select and report pools
stands in the study's attributes ``select:N`` and ``report:N``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from merge_core.errors import MergeError
from merge_core.recipe import read as recipe_reader
from search.scoring.pools import NAMES
from search.trial.trial import Measurement, Trial

if TYPE_CHECKING:
    import optuna

OPTIONAL = ("baseline", "stderr", "same_as", "error")  # attributes of a trial that has them


def frozen(trial: Trial, distributions: Mapping[str, Any]) -> optuna.trial.FrozenTrial:
    """Return a settled trial in Optuna's form, for the storage and for the sampler's study.

    Args:
        trial: Of what it was measured on, only the search pool is kept.
        distributions: Optuna's distribution of every name in ``trial.params``.
    """
    import optuna

    state = optuna.trial.TrialState.COMPLETE
    attributes: dict[str, Any] = {
        "recipe": trial.recipe.plain(),
        "weights_digest": trial.weights_digest,
        **attribute(trial.search),
        **{key: value for key in OPTIONAL if (value := getattr(trial, key)) is not None},
    }
    if trial.state == "failed":
        state = optuna.trial.TrialState.FAIL
    if trial.stderr is not None and math.isinf(trial.stderr):
        attributes["stderr"] = str(trial.stderr)  # JSON knows no such number
    if trial.values:
        attributes["value"] = trial.value
    return optuna.trial.create_trial(
        state=state,
        value=None if trial.values else trial.value,
        values=trial.values or None,
        params=dict(trial.params),
        distributions={name: distributions[name] for name in trial.params},
        user_attrs=attributes,
    )


def thawed(trial: optuna.trial.FrozenTrial, study: Mapping[str, Any]) -> Trial:
    """Return a stored trial.

    Args:
        trial: As stored.
        study: The study's attributes, with what was measured of it later.

    Raises:
        MergeError: It was not written by mergetune, or is damaged.
    """
    attributes = trial.user_attrs
    problems: list[tuple[str, str]] = []
    recipe = recipe_reader.parse(attributes.get("recipe"), "recipe", problems)
    if recipe is None:
        raise MergeError(
            f"trial {trial.number} was not written by mergetune, or its recipe is damaged: "
            + "; ".join(f"{path}: {rule}" for path, rule in problems)
        )
    numbers = trial.values or []  # of one objective: the value
    keys = {pool: f"{pool}:{trial.number}" for pool in NAMES[1:]}
    later = {pool: _measurement(study[key]) for pool, key in keys.items() if key in study}
    optional = {key: attributes.get(key) for key in OPTIONAL}
    if optional["stderr"] is not None:
        optional["stderr"] = float(optional["stderr"])
    return Trial(
        number=trial.number,
        state="complete" if numbers else "failed",
        recipe=recipe,
        params=trial.params,
        weights_digest=attributes["weights_digest"],
        value=attributes.get("value", numbers[0] if numbers else None),
        values=tuple(numbers) if len(numbers) > 1 else (),
        measured={"search": replace(_measurement(attributes), error=None), **later},
        **optional,
    )


def attribute(found: Measurement) -> dict[str, Any]:
    """Return a measurement as an attribute holds it."""
    scores = {task: list(scores) for task, scores in found.scores.items()}
    error = {} if found.error is None else {"error": found.error}
    return {"scores": scores, "seconds": dict(found.seconds), **error}


def _measurement(attribute: Mapping[str, Any]) -> Measurement:
    return Measurement(attribute["scores"], attribute["seconds"], attribute.get("error"))
