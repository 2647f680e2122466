"""Ask for the next trial, so that a study that was killed goes on as if it had not been."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from search.samplers.registry import Maker, Space, Start

if TYPE_CHECKING:
    from optuna import Study, Trial


def seed_for(study_seed: int, number: int) -> int:
    """Return the seed of a study's ask number ``number``: 32 bits, the same in every process."""
    digest = blake2b(f"{study_seed}\x1f{number}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


def ask(
    study: Study, space: Space, maker: Maker, start: Start, study_seed: int, settled: int
) -> Trial:
    """Ask for the next trial; BLAS keeps to one thread meanwhile, as torch needs the others.

    The draw depends on the arguments and on the study's trials. Trials in flight count: they are
    added to ``settled``, so that several asks before the first tell do not draw the same values.

    Args:
        study: In memory; its finished trials have the full space. Its sampler is replaced, and it
            gets one running trial.
        space: Knob name -> distribution.
        maker: See ``SAMPLERS``.
        start: See ``Maker``.
        study_seed: The study's seed, any whole number.
        settled: How many trials of the study are over, failed ones and baselines included.

    Returns:
        The running trial; ``.params`` has a value for every knob of the space.

    Raises:
        ParameterError: The sampler cannot draw from this space.
    """
    from optuna.trial import TrialState
    from threadpoolctl import threadpool_limits

    in_flight = len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
    study.sampler = maker(space, start, seed_for(study_seed, settled + in_flight))
    with threadpool_limits(limits=1, user_api="blas"):
        return study.ask(fixed_distributions=dict(space))
