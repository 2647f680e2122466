"""Ask for the next trial, so that a study that was killed goes on as if it had not been."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from search.samplers.registry import Maker, SamplerPlugin, Space, Start

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution

STUB = "settled"  # user attribute of what ran in free order: the trial itself comes after others


def seed_for(study_seed: int, number: int) -> int:
    """Return the seed of a study's ask number ``number``: 32 bits, the same in every process."""
    digest = blake2b(f"{study_seed}\x1f{number}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


def seed_of_study(study_seed: int) -> int:
    """Return the seed that all asks of a study share: 32 bits."""
    digest = blake2b(f"{study_seed}\x1fstudy".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


class Conditions(Protocol):
    """Says which knobs hang on which; see ``search.space.space.Space``."""

    @property
    def deciding(self) -> Sequence[str]:
        """Knobs that decide which others there are."""
        ...

    def active(self, drawn: Mapping[str, Any]) -> Collection[str]:
        """Return the knobs that there are, given the values of those that decide."""
        ...

    def mended(self, drawn: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the values that some count as, where several stand for one candidate."""
        ...


@runtime_checkable
class Mending(Protocol):
    """A sampler that wants to know which points count as which; it is told by ``ask``."""

    mended: Callable[[Mapping[str, Any]], Mapping[str, Any]]


@runtime_checkable
class Averaging(Protocol):
    """A sampler that can say what its last whole generation comes to; a plugin's may, too."""

    def generation_mean(self, study: Study) -> Mapping[str, Any] | None:
        """Return values of the free knobs, inside their ranges; None before a generation."""
        ...


def mean_of(
    study: Study, space: Space, maker: Maker, start: Start, study_seed: int
) -> dict[str, Any] | None:
    """Return the mean of a sampler's last generation, a value for every knob of the space.

    The mean of good candidates averages the luck that each of them had on the search items. It
    depends on the arguments and on the study's trials only; see ``ask``.

    Returns:
        None where the sampler has no generations, or no whole one yet.
    """
    made = maker(space, start, seed_of_study(study_seed))
    if not isinstance(made, Averaging):
        return None
    with _one_thread():
        found = made.generation_mean(study)
    return None if found is None else {name: found.get(name, _only(d)) for name, d in space.items()}


def _only(distribution: BaseDistribution) -> Any:
    """Return the value of a knob that has no other."""
    from optuna.distributions import CategoricalDistribution

    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    return distribution.low  # type: ignore[attr-defined]


def ask(
    study: Study,
    space: Space,
    maker: Maker,
    start: Start,
    study_seed: int,
    settled: int,
    conditions: Conditions | None = None,
    in_flight: int | None = None,
) -> Trial:
    """Ask for the next trial; BLAS keeps to one thread meanwhile, as torch needs the others.

    The draw depends on the arguments and on the study's trials. Trials in flight count: they are
    added to ``settled``, so that several asks before the first tell do not draw the same values.

    Args:
        study: In memory; its finished trials have the full space, or what is active of it. Its
            sampler is replaced, and it gets one running trial.
        space: Knob name -> distribution.
        maker: See ``registry.find``.
        start: See ``Maker``.
        study_seed: The study's seed, any whole number.
        settled: How many trials of the study are over, failed ones and baselines included.
        conditions: Where some knobs are there for some trials only.
        in_flight: How many trials of the study run, if that is known.

    Returns:
        The running trial; ``.params`` has a value for every active knob of the space.

    Raises:
        ParameterError: The sampler cannot draw from this space.
    """
    in_flight = _running(study) if in_flight is None else in_flight
    whole = isinstance(maker, SamplerPlugin) and maker.whole_study
    seed = seed_of_study(study_seed) if whole else seed_for(study_seed, settled + in_flight)
    study.sampler = made = maker(space, start, seed)
    if conditions is not None and isinstance(made, Mending):
        made.mended = conditions.mended
    with _one_thread():
        if conditions is None or not conditions.deciding:
            return study.ask(fixed_distributions=dict(space))
        running = study.ask()
        for name in conditions.deciding:
            _draw(running, name, space[name])
        active = conditions.active(running.params)
        for name in space:
            if name in active and name not in running.params:
                _draw(running, name, space[name])
        return running


def _draw(running: Trial, name: str, distribution: BaseDistribution) -> None:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        running.suggest_categorical(name, distribution.choices)
        return
    suggest = (
        running.suggest_int if isinstance(distribution, IntDistribution) else running.suggest_float
    )
    ends: Any = (distribution.low, distribution.high)  # type: ignore[attr-defined]
    suggest(name, *ends, step=distribution.step, log=distribution.log)  # type: ignore[attr-defined]


def _running(study: Study) -> int:
    from optuna.trial import TrialState

    return len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


def _one_thread() -> AbstractContextManager[object]:
    """Keep BLAS to one thread in this context."""
    found: AbstractContextManager[object] = _libraries(len(sys.modules)).limit(
        limits=1, user_api="blas"
    )
    return found


@lru_cache(maxsize=1)
def _libraries(modules: int) -> Any:
    """Look which libraries are loaded: it takes milliseconds, and another module may bring one."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
