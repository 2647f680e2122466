"""Trials as Optuna keeps them: a frozen trial, and attributes of the study for later pools.

Optuna does not let a settled trial change, so what is measured of it on the select and report pools
stands in the study's attributes ``select:N`` and ``report:N``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field

from merge_core.errors import Problems, StorageError
from merge_core.recipe import read as recipe_reader
from merge_core.validation import Number, StrictModel, read, read_by
from search.samplers.steps import Measured
from search.scoring.pools import NAMES
from search.storage.chunks import cut, joined
from search.storage.packed import packed_scores, read_scores
from search.trial.trial import Fitted, Measurement, State, Trial

if TYPE_CHECKING:
    import optuna

# Optuna's state, and whether there is a value -> ours
_STATES: dict[tuple[str, bool], State] = {
    ("COMPLETE", True): "complete",
    ("FAIL", False): "failed",
    ("PRUNED", True): "stopped",
    ("PRUNED", False): "unscored",
}
OPTIONAL = ("baseline", "stderr", "same_as", "error")  # attributes of a trial that has them


class _Measured(StrictModel):
    """What an attribute holds of a measurement; keys of later versions are passed over."""

    model_config = ConfigDict(extra="ignore")

    scores: Annotated[dict[str, list[float]], read_by(read_scores)]
    seconds: dict[str, Number]
    error: str | None = None
    asked: dict[str, int] = Field({})


class _Gradient(StrictModel):
    """What a step of a search by gradient has measured, see ``steps.Measured``."""

    model_config = ConfigDict(extra="ignore")

    slopes: dict[str, Number]
    loss: Number | None = None
    held_out: Number | None = None
    items: int = 0
    mean: bool = False


class _Fitted(StrictModel):
    """What the training of a mixture's routers was, see ``trial.Fitted``."""

    model_config = ConfigDict(extra="ignore")

    steps: int
    items: int
    before: Number
    after: Number


class _Attributes(_Measured):
    """A trial's attributes, its recipe aside."""

    weights_digest: str
    value: Number | None = None
    stderr: Number | Literal["inf"] | None = None
    baseline: str | None = None
    same_as: int | None = None
    gradient: _Gradient | None = None
    routers: _Fitted | None = None


def frozen(trial: Trial, distributions: Mapping[str, Any]) -> optuna.trial.FrozenTrial:
    """Return a settled trial in Optuna's form, for the storage.

    Args:
        trial: Of what it was measured on, only the search pool is kept.
        distributions: Optuna's distribution of every name in ``trial.params``.
    """
    import optuna

    from search.storage.rows import Settled

    names = {state: name for (name, _), state in _STATES.items()}
    attributes: dict[str, Any] = {
        "recipe": trial.recipe.plain(),
        "weights_digest": trial.weights_digest,
        **attribute(trial.search),
        **{key: value for key in OPTIONAL if (value := getattr(trial, key)) is not None},
    }
    if trial.gradient is not None:
        attributes["gradient"] = asdict(trial.gradient)
    if trial.fitted is not None:
        attributes["routers"] = asdict(trial.fitted)
    if trial.stderr is not None and math.isinf(trial.stderr):
        attributes["stderr"] = str(trial.stderr)  # JSON knows no such number
    if trial.values:
        attributes["value"] = trial.value
    now = datetime.now()  # noqa: DTZ005 as Optuna has it
    return Settled(
        number=-1,
        trial_id=-1,
        state=optuna.trial.TrialState[names[trial.state]],
        value=None,
        values=_numbers(trial),
        datetime_start=now - timedelta(seconds=math.fsum(trial.search.seconds.values())),
        datetime_complete=now,
        params=dict(trial.params),
        distributions={name: distributions[name] for name in trial.params},
        user_attrs=cut(attributes),
        system_attrs={},
        intermediate_values={},
    )


def _numbers(trial: Trial) -> list[float] | None:
    """Return a trial's objectives as Optuna has them."""
    if trial.values:
        return list(trial.values)
    return None if trial.value is None else [trial.value]


def told(trial: Trial, distributions: Mapping[str, Any]) -> optuna.trial.FrozenTrial:
    """Return a settled trial as a sampler is told it: a stopped one by its estimate, as any other.

    Optuna's samplers pass over pruned trials, or put them behind all others, whatever their value.
    """
    stopped = trial.state == "stopped"
    return frozen(replace(trial, state="complete") if stopped else trial, distributions)


def thawed(trial: optuna.trial.FrozenTrial, study: Mapping[str, Any]) -> Trial:
    """Return a stored trial.

    Args:
        trial: As stored.
        study: The study's attributes, put together, with what was measured of it later.

    Raises:
        StorageError: It was not written by mergetune, or is damaged.
    """
    problems: Problems = []
    attributes = _whole(trial.user_attrs, problems)
    recipe = recipe_reader.parse(attributes.get("recipe"), "recipe", problems)
    found = read(_Attributes, attributes, "", problems)
    keys = {pool: f"{pool}:{trial.number}" for pool in NAMES[1:]}
    later = {p: read(_Measured, study[k], k, problems) for p, k in keys.items() if k in study}
    state = _STATES.get((trial.state.name, bool(trial.values)))
    if state is None:
        problems.append(("state", f"{trial.state.name.lower()}, with values {trial.values}"))
    if recipe is None or found is None or state is None or problems:
        raise StorageError(
            f"trial {trial.number} was not written by mergetune, or is damaged: "
            + "; ".join(f"{path}: {rule}" for path, rule in problems)
        )
    numbers = trial.values or []  # of one objective: the value
    stderr = None if found.stderr is None else float(found.stderr)
    measured = {"search": replace(_measurement(found), error=None)}
    return Trial(
        number=trial.number,
        state=state,
        recipe=recipe,
        params=trial.params,
        baseline=found.baseline,
        weights_digest=found.weights_digest,
        value=found.value if found.value is not None else next(iter(numbers), None),
        values=tuple(numbers) if len(numbers) > 1 else (),
        stderr=stderr,
        same_as=found.same_as,
        error=found.error,
        gradient=None if found.gradient is None else Measured(**dict(found.gradient)),
        fitted=None if found.routers is None else Fitted(**dict(found.routers)),
        measured=measured | {pool: _measurement(x) for pool, x in later.items() if x},
    )


def _whole(attributes: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    try:
        return joined(attributes)
    except ValueError as error:
        name, _, rule = str(error).partition(": ")
        problems.append((name, rule))
        return {}


def attribute(found: Measurement) -> dict[str, Any]:
    """Return a measurement as an attribute holds it."""
    more: dict[str, Any] = {} if found.error is None else {"error": found.error}
    if found.asked:
        more["asked"] = dict(found.asked)
    return {"scores": packed_scores(found.scores), "seconds": dict(found.seconds), **more}


def _measurement(found: _Measured) -> Measurement:
    return Measurement(found.scores, found.seconds, found.error, found.asked)
