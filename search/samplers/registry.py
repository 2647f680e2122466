"""Samplers by name, made anew for every ask, so that a killed study goes on as if it had not been.

Optuna stores trials, not the state of a sampler's random numbers: a study that is opened again with
the same seed draws its first trials once more. So a sampler here is a function of the space, the
start and a seed; the seed counts the trials, and everything else is read from the study.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from inspect import isclass, signature
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from merge_core.errors import ParameterError
from merge_core.plugins import Registry

if TYPE_CHECKING:  # heavy: imported where they are needed
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

Space: TypeAlias = "Mapping[str, BaseDistribution]"
Start: TypeAlias = Mapping[str, Any] | None


class Maker(Protocol):
    """Makes the sampler of one ask; keeps nothing between calls."""

    def __call__(self, space: Space, start: Start, seed: int) -> BaseSampler:
        """Return a sampler whose next draw depends on these arguments and the study's trials only.

        Args:
            space: Knob name -> distribution; the same at every ask of a study.
            start: Knob name -> value of a recipe known to be good, or None; it may be ignored.
            seed: In [0, 2**32), another at every ask; the study's own where the plugin says so.

        Raises:
            ParameterError: The sampler cannot draw from this space.
        """
        ...


@dataclass(frozen=True)
class SamplerPlugin:
    """A declaration, so that a study file is checked without the sampler's libraries.

    Args:
        name: In a study file.
        make: See ``Maker``; it keeps nothing between two calls.
        meaning: One line for those who choose.
        choices: Whether it draws from choices, too.
        several: Whether it can have several objectives.
        whole_study: Whether ``seed`` is the study's own at every ask, in [0, 2**32): for one
            sequence of points, of which an ask takes the next.
    """

    name: str
    make: Maker
    meaning: str = ""
    choices: bool = True
    several: bool = True
    whole_study: bool = False

    def __call__(self, space: Space, start: Start, seed: int) -> BaseSampler:
        """Return ``make(space, start, seed)``: a declaration is a maker, too."""
        return self.make(space, start, seed)


SAMPLERS = Registry(
    "sampler",
    "mergetune.samplers",
    {
        "auto": "search.samplers.shipped:AUTO",
        "catcma": "search.samplers.shipped:CATCMA",
        "cma-es": "search.samplers.shipped:CMA_ES",
        "gp": "search.samplers.shipped:GP",
        "gradient": "search.samplers.shipped:GRADIENT",
        "moves": "search.samplers.shipped:MOVES",
        "nsga2": "search.samplers.shipped:NSGA2",
        "qmc": "search.samplers.shipped:QMC",
        "random": "search.samplers.shipped:RANDOM",
        "tpe": "search.samplers.shipped:TPE",
    },
)


def find(name: str) -> SamplerPlugin:
    """Return the sampler of that name as a declaration, whatever was registered.

    Raises:
        UnknownNameError: No sampler has that name.
        ParameterError: What was registered is no sampler.
    """
    return declared(name, SAMPLERS.get(name))


def declared(name: str, found: Any) -> SamplerPlugin:
    """Return what a plugin registered as a declaration.

    Args:
        name: That it is registered by.
        found: A ``SamplerPlugin``, a ``Maker``, or one of Optuna's sampler classes, which is made
            with ``seed=``.

    Raises:
        ParameterError: It is something else.
    """
    if isinstance(found, SamplerPlugin):
        return found
    if not callable(found):
        raise ParameterError(
            f"sampler {name!r}: expected a SamplerPlugin, a function (space, start, seed) or a "
            f"subclass of optuna.samplers.BaseSampler, got {found!r}"
        )
    keys = signature(found).parameters
    if isclass(found) and "space" not in keys:
        if "seed" not in keys:
            raise ParameterError(
                f"sampler {name!r}: {found.__name__} takes no seed, so its trials would not come "
                "again; give it one"
            )
        return SamplerPlugin(
            name, partial(_of_optuna, cast("type[BaseSampler]", found)), found.__name__
        )
    return SamplerPlugin(name, found)


def _of_optuna(kind: type[BaseSampler], space: Space, start: Start, seed: int) -> BaseSampler:
    with_seed: Any = kind
    made: BaseSampler = with_seed(seed=seed)
    return made
