"""Question: what does replaying a study's trials before every ask cost beside CMA-ES itself?

Prints the ratio (one ask of our sampler on a filled study) / (telling the same generations to a
plain ``cmaes.CMA``), from one process with one BLAS thread.

    python benchmarks/sampler_replay.py --trials 1000 --dimensions 64
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import cmaes
import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from threadpoolctl import threadpool_limits

from search.samplers.cma import SIGMA_IN_MIDDLE, CmaSampler


def main() -> None:
    """Fill a study, time both, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--dimensions", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {f"x{i}": FloatDistribution(0.0, 1.0) for i in range(arguments.dimensions)}
    rows = np.random.default_rng(0).random((arguments.trials, arguments.dimensions))
    study = optuna.create_study(sampler=CmaSampler(space, None, 0))
    for row in rows.tolist():
        params = dict(zip(space, row, strict=True))
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=space, value=sum(row))
        )
    with threadpool_limits(limits=1, user_api="blas"):
        pairs = [(_ask(study, space), _plain(rows)) for _ in range(arguments.rounds)]
    ratios = [ours / plain for ours, plain in pairs]
    middle, ask = statistics.median(ratios), statistics.median(ours for ours, _ in pairs)
    spread = f"min {min(ratios):.2f}, max {max(ratios):.2f}, n={len(ratios)}"
    print(f"replay/plain {middle:.2f} ({spread}); one ask {ask:.3f} s")
    print(json.dumps({"ratio": middle, "pairs_s": pairs}))


def _ask(study: optuna.Study, space: dict[str, FloatDistribution]) -> float:
    start = time.perf_counter()
    trial = study.ask(fixed_distributions=dict(space))
    seconds = time.perf_counter() - start
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return seconds


def _plain(rows: np.ndarray) -> float:
    start = time.perf_counter()
    optimizer = cmaes.CMA(np.full(rows.shape[1], 0.5), SIGMA_IN_MIDDLE)
    size, losses = optimizer.population_size, rows.sum(1).tolist()
    for first in range(0, len(rows) - size + 1, size):
        group = slice(first, first + size)
        optimizer.tell(list(zip(rows[group], losses[group], strict=True)))
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
