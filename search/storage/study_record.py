"""The study in the user's storage: one writer, one commit for each settled trial, whole.

A trial is added when it is settled (``add_trial``), so a killed run loses only what was in flight
and any Optuna tool can open the database. What is measured after the search (scores on the select
and report pools) belongs to settled trials, which Optuna does not let change: it stands in
attributes of the study, one commit for each trial and pool.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from merge_core.errors import MergeError, UnknownNameError
from merge_core.recipe import read as recipe_reader
from merge_core.recipe.schema import Recipe

if TYPE_CHECKING:
    import optuna

ABOUT = "mergetune"  # the study attribute that holds what all trials share
SQLITE = "sqlite:///"
Scores = dict[str, list[float]]


@dataclass(frozen=True)
class Settled:
    """A settled trial, as stored.

    Args:
        number: Of the trial, from 0, in the order of settling.
        state: ``complete`` or ``failed``.
        recipe: What was built.
        baseline: Its name, for a trial that no sampler asked for.
        params: The knobs' values; empty for recipes outside the space.
        weights_digest: Of the candidate; "" where it could not be built.
        scores: Task -> one score per item of the search pool, in the pool's order.
        value: What the tasks make together, higher is better; None for a failed trial.
        values: The objectives, higher is better, of a study that keeps its entries apart.
        stderr: Standard error of ``value``.
        same_as: The earlier trial with the same weights, whose scores were taken over.
        seconds: ``build``, ``model`` (scoring) and ``other``.
        error: Traceback of a failed trial.
    """

    number: int
    state: Literal["complete", "failed"]
    recipe: Recipe
    baseline: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    weights_digest: str = ""
    scores: Mapping[str, Sequence[float]] = field(default_factory=dict)
    value: float | None = None
    values: tuple[float, ...] = ()
    stderr: float | None = None
    same_as: int | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None

    @property
    def items(self) -> int:
        """Number of items with a score."""
        return sum(len(scores) for scores in self.scores.values())

    @property
    def reason(self) -> str:
        """Why a trial failed: kind and first line of the error, without the traceback."""
        last = (self.error or "").rpartition("Traceback (most recent call last):\n")[2]
        return next((line for line in last.splitlines() if not line.startswith(" ")), "")

    def row(self) -> dict[str, Any]:
        """Return the trial as ``mergetune trials --json`` prints it."""
        return {
            "number": self.number,
            "state": self.state,
            "baseline": self.baseline,
            "params": dict(self.params),
            "recipe_digest": self.recipe.digest(),
            "weights_digest": self.weights_digest,
            "value": self.value,
            "stderr": self.stderr,
            "items": self.items,
            **({"values": list(self.values)} if self.values else {}),
        }


class Record:
    """One study in its storage.

    Args:
        study: The stored Optuna study.
        url: Of its storage.
    """

    def __init__(self, study: optuna.Study, url: str) -> None:
        self._study = study
        self.url = url
        self.trials: list[Settled] = [_from_frozen(t) for t in study.get_trials(deepcopy=False)]

    @property
    def name(self) -> str:
        """Name of the study."""
        return self._study.study_name

    @property
    def about(self) -> dict[str, Any] | None:
        """What was stored when the study began; None if it was killed before that."""
        found: dict[str, Any] | None = self._study.user_attrs.get(ABOUT)
        return found

    def path_to(self, folder: Path) -> str:
        """Return a folder's path as the record stores it: from its database's folder, if any."""
        here = folder_of(self.url)
        return str(folder) if here is None else Path(os.path.relpath(folder, here)).as_posix()

    def folder(self) -> Path:
        """Return the folder of the study file that the study began with."""
        assert self.about is not None
        here = folder_of(self.url)
        return Path(os.path.normpath((here or Path()) / self.about["folder"]))

    def begin(self, about: Mapping[str, Any]) -> None:
        """Store what all trials share, in one commit."""
        self._study.set_user_attr(ABOUT, dict(about))

    def add(self, trial: Settled, distributions: Mapping[str, Any]) -> None:
        """Store a settled trial in one commit.

        Args:
            trial: Its number must be the number of trials stored.
            distributions: Optuna's distribution of every name in ``trial.params``.
        """
        assert trial.number == len(self.trials)
        self._study.add_trial(frozen(trial, distributions))
        self.trials.append(trial)

    def measured(self, pool: str) -> dict[int, dict[str, Any]]:
        """Return trial number -> ``scores`` and ``seconds`` on the select or report pool."""
        prefix = f"{pool}:"
        attributes = self._study.user_attrs
        return {
            int(key.removeprefix(prefix)): found
            for key, found in attributes.items()
            if key.startswith(prefix)
        }

    def add_measured(self, pool: str, number: int, found: Mapping[str, Any]) -> None:
        """Store a trial's scores on the select or report pool, in one commit."""
        self._study.set_user_attr(f"{pool}:{number}", dict(found))

    @property
    def summary(self) -> dict[str, Any] | None:
        """The finished study's summary, or None."""
        found: dict[str, Any] | None = self._study.user_attrs.get("summary")
        return found

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Store the summary."""
        if self.summary != summary:
            self._study.set_user_attr("summary", dict(summary))

    def trial(self, number: int) -> Settled:
        """Return a trial by its number.

        Raises:
            UnknownNameError: The study has no such trial.
        """
        if not 0 <= number < len(self.trials):
            known = f"0 to {len(self.trials) - 1}" if self.trials else "none"
            raise UnknownNameError(f"study {self.name!r} has no trial {number}; it has {known}")
        return self.trials[number]


def frozen(trial: Settled, distributions: Mapping[str, Any]) -> optuna.trial.FrozenTrial:
    """Return a settled trial in Optuna's form, for the storage and for the sampler's study."""
    import optuna

    state = optuna.trial.TrialState.COMPLETE
    attributes: dict[str, Any] = {
        "recipe": trial.recipe.plain(),
        "weights_digest": trial.weights_digest,
        "scores": {task: list(scores) for task, scores in trial.scores.items()},
        "seconds": dict(trial.seconds),
    }
    for key in ("baseline", "stderr", "same_as", "error"):
        if getattr(trial, key) is not None:
            attributes[key] = getattr(trial, key)
    if trial.state == "failed":
        state = optuna.trial.TrialState.FAIL
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


def _from_frozen(trial: optuna.trial.FrozenTrial) -> Settled:
    attributes = trial.user_attrs
    problems: list[tuple[str, str]] = []
    recipe = recipe_reader.parse(attributes.get("recipe"), "recipe", problems)
    if recipe is None:
        raise MergeError(
            f"trial {trial.number} was not written by mergetune, or its recipe is damaged: "
            + "; ".join(f"{path}: {rule}" for path, rule in problems)
        )
    numbers = trial.values or []  # of one objective: the value
    return Settled(
        number=trial.number,
        state="complete" if numbers else "failed",
        recipe=recipe,
        baseline=attributes.get("baseline"),
        params=trial.params,
        weights_digest=attributes["weights_digest"],
        scores=attributes["scores"],
        value=attributes.get("value", numbers[0] if numbers else None),
        values=tuple(numbers) if len(numbers) > 1 else (),
        stderr=attributes.get("stderr"),
        same_as=attributes.get("same_as"),
        seconds=attributes["seconds"],
        error=attributes.get("error"),
    )


def open_record(
    url: str, name: str | None = None, *, create: bool = False, objectives: int = 1
) -> Record:
    """Open a study.

    Args:
        url: Optuna storage URL.
        name: Of the study; None takes the only one that mergetune wrote there.
        create: Make storage and study if they do not exist.
        objectives: How many a study has that is made.

    Raises:
        UnknownNameError: There is no such storage or study, or several to choose from.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _check_file(url, create)
    if create:
        assert name is not None
        study = optuna.create_study(
            storage=url,
            study_name=name,
            directions=["maximize"] * objectives,
            load_if_exists=True,
        )
        return Record(study, url)
    storage = optuna.storages.RDBStorage(url)  # opened once: it reads Optuna's migrations each time
    names = optuna.get_all_study_names(storage)
    if name is None and len(names) == 1:
        name = names[0]
    if name not in names:
        wanted = f"no study {name!r}" if name else "no single study"
        raise UnknownNameError(f"{url} has {wanted}; it has {', '.join(names) or 'none'}")
    return Record(optuna.load_study(storage=storage, study_name=name), url)


def folder_of(url: str) -> Path | None:
    """Return the folder of an SQLite database, or None for other storages."""
    if not url.startswith(SQLITE):
        return None
    return Path(os.path.abspath(url.removeprefix(SQLITE))).parent


def _check_file(url: str, create: bool) -> None:
    folder = folder_of(url)
    if folder is None:
        return
    if create:
        folder.mkdir(parents=True, exist_ok=True)
    elif not Path(url.removeprefix(SQLITE)).is_file():
        raise UnknownNameError(f"{url}: no such file; `mergetune run` the study first")
