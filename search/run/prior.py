"""What a study takes over from another one: its trials' scores, and its winner as a baseline.

It is read when a study begins and stored with it, so the other one may go on, change or vanish. The
scores of the other study's trials count where they mean the same: the same tasks, shares and
parents' weights, and all names of this space among the trial's. Its items may be others; but what
the other study chose by may be none of the items that this one selects or reports by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict

from merge_core.errors import MergeError, Problems, StorageError
from merge_core.recipe.schema import Recipe
from merge_core.validation import Number, StrictModel, read
from search.space.space import Space
from search.space.starting_points import PRIOR
from search.spec.recipe_file import read_recipe
from search.spec.study_file import StudySpec
from search.storage.locate import open_from
from search.storage.study_record import Record
from search.trial.trial import Trial
from search.trial.worker import Bench

if TYPE_CHECKING:
    import optuna

BASELINE = "baseline"  # user attribute of trials that no sampler asked for
SAME = ("tasks", "steering", "score")  # of what all trials share: what a score means
CHOSEN_BY = {"search": ("select", "report"), "select": ("report",)}


class _Scored(StrictModel):
    params: dict[str, bool | Number | str]
    values: list[Number]


class _Stored(StrictModel):
    model_config = ConfigDict(extra="ignore")

    study: str
    winner: dict[str, Any] | None = None
    trials: list[_Scored]


@dataclass(frozen=True)
class Prior:
    """What was taken over.

    Args:
        study: Name of the other study; "" where there is none.
        trials: Values of the knobs, and objectives, of its trials that inform the sampler.
        winner: Its winner's recipe, or the best trial's so far.
    """

    study: str = ""
    trials: Sequence[tuple[Mapping[str, Any], Sequence[float]]] = ()
    winner: Recipe | None = None

    @property
    def baselines(self) -> dict[str, Recipe]:
        """The winner by its name among this study's baselines."""
        return {} if self.winner is None else {f"{PRIOR}{self.study}": self.winner}

    def plain(self) -> dict[str, Any]:
        """Return it as it is stored."""
        return {
            "study": self.study,
            "winner": None if self.winner is None else self.winner.plain(),
            "trials": [{"params": dict(p), "values": list(v)} for p, v in self.trials],
        }

    def frozen(self, distributions: Mapping[str, Any]) -> list[optuna.trial.FrozenTrial]:
        """Return the trials in Optuna's form; like baselines they are none of a sampler's own."""
        import optuna

        return [
            optuna.trial.create_trial(
                params=dict(params),
                distributions={name: distributions[name] for name in params},
                values=list(values),
                user_attrs={BASELINE: f"{PRIOR}{self.study}"},
            )
            for params, values in self.trials
        ]

    def notices(self) -> list[str]:
        """Return a sentence on it, if there is one."""
        if not self.study:
            return []
        won = (
            f"its winner is the baseline {PRIOR}{self.study}"
            if self.winner
            else "it has no winner whose parents are here"
        )
        told = f"search.prior: {len(self.trials)} trials of study {self.study!r} inform the sampler"
        return [f"{told}; {won}"]


@dataclass(frozen=True)
class _Other:
    """The other study, as it is now."""

    spec: StudySpec
    record: Record
    about: Mapping[str, Any] = field(repr=False)


def taken_over(spec: StudySpec, record: Record, bench: Bench) -> Prior:
    """Return what the study takes over, read and stored if it has not begun yet.

    Raises:
        MergeError: There is no such study, it has not begun, or what it chose by is asked anew.
        StorageError: What was stored of it is damaged.
    """
    if spec.search.prior is None:
        return Prior()
    if record.about is not None:
        return _stored(record)
    other = _opened(spec.search.prior, spec.folder)
    now = bench.tasks.about()
    _check_items(other, bench.tasks.item_ids())
    renamed = _renamed(other.about["parents"], bench)
    prior = Prior(
        other.record.name,
        _informing(other, now, spec, bench, renamed),
        _winner(other.record, renamed),
    )
    record.keep_prior(prior.plain())
    return prior


def check_fresh(spec: StudySpec, bench: Bench) -> None:
    """Refuse report items that came later, if a study that this one goes on from chose by them.

    Raises:
        MergeError: There are some; or that study is gone, so that nobody can tell.
    """
    if spec.search.prior is not None:
        _check_items(_opened(spec.search.prior, spec.folder), bench.tasks.item_ids())


def _stored(record: Record) -> Prior:
    problems: Problems = []
    found = read(_Stored, record.prior, "prior", problems)
    winner = None
    if found is not None and found.winner is not None:
        winner = read_recipe(found.winner, "prior.winner", problems)
    if found is None or problems:
        why = "; ".join(f"{path}: {rule}" for path, rule in problems)
        raise StorageError(f"study {record.name!r} in {record.url} is damaged: {why}")
    return Prior(found.study, [(t.params, t.values) for t in found.trials], winner)


def _opened(text: str, folder: Path) -> _Other:
    try:
        spec, record = open_from(text, folder)
    except MergeError as error:
        raise MergeError(f"search.prior: {error}") from error
    assert record.about is not None
    return _Other(spec, record, record.about)


def _check_items(other: _Other, pools: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    """Refuse items that the other study chose by where this one is to be measured afresh."""
    for theirs, ours in CHOSEN_BY.items():
        for pool in ours:
            seen = other.record.item_ids(theirs)
            again = sum(len({*seen.get(task, ())} & {*ids}) for task, ids in pools[pool].items())
            if again:
                raise MergeError(
                    f"search.prior: the {theirs} pool of study {other.record.name!r} has {again} "
                    f"items of this study's {pool} pool, which must be fresh; use the seed and the "
                    f"items of that study"
                )


def _renamed(theirs: Mapping[str, str], bench: Bench) -> dict[str, str]:
    """Return the other study's references -> ours, of parents with the same weights."""
    ours = {parent.digest: name for name, parent in bench.builder.parents.items()}
    return {name: ours[digest] for name, digest in theirs.items() if digest in ours}


def _informing(
    other: _Other,
    now: Mapping[str, Any],
    spec: StudySpec,
    bench: Bench,
    renamed: Mapping[str, str],
) -> list[tuple[Mapping[str, Any], Sequence[float]]]:
    """Return the trials whose scores mean the same here."""
    same = all(now.get(key) == other.about.get(key) for key in SAME)
    weights = {*other.spec.template.references()} <= renamed.keys()
    if not (same and weights and other.spec.aggregate == spec.aggregate):
        return []
    found: list[tuple[Mapping[str, Any], Sequence[float]]] = []
    for trial in other.record.trials:
        point = _point(bench.builder.space, trial)
        if point and trial.value is not None:
            found.append((point, trial.values or (trial.value,)))
    return found


def _point(space: Space, trial: Trial) -> dict[str, Any]:
    """Return a trial's values of this space's knobs; nothing where some are lacking or outside."""
    known = {d.name: d for d in space.dimensions}
    mine = {name: value for name, value in trial.params.items() if name in known}
    if not {*space.deciding} <= mine.keys() or space.active(mine) != mine.keys():
        return {}
    return mine if all(known[name].takes(value) for name, value in mine.items()) else {}


def _winner(record: Record, renamed: Mapping[str, str]) -> Recipe | None:
    """Return the winner's recipe, or so far the best one's, where its parents are here too."""
    number = ((record.summary or {}).get("winner") or {}).get("trial")
    done = [trial for trial in record.trials if trial.state == "complete"]
    best = max(done, key=lambda trial: trial.value or 0.0, default=None)
    chosen = record.trial(number) if isinstance(number, int) else best
    if chosen is None or not {*chosen.recipe.references()} <= renamed.keys():
        return None
    return chosen.recipe.with_references(renamed)
