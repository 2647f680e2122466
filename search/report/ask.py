"""A settled trial is built once more and asked some items; no score comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluators.answer import Answer
from merge_core.errors import MergeError
from search.trial.trial import Trial
from search.trial.worker import Bench, Job, Result


def ask(bench: Bench, trial: Trial, pool: str, asks: Mapping[str, Sequence[int]]) -> Result:
    """Build a trial again and ask it; the candidate that is live is not built again.

    Args:
        bench: Of the study.
        trial: One that did not fail.
        pool: ``search``, ``select`` or ``report``.
        asks: Task -> places in the pool's order.

    Returns:
        What came of it; its ``answers`` are not None.

    Raises:
        MergeError: It cannot be built as it was, or it gives no answers.
    """
    result = bench.run(Job(trial.recipe, pool, expected=trial.weights_digest, asks=asks))
    if result.failure is not None:
        raise MergeError(f"trial {trial.number}: {result.failure.reason}")
    if result.answers is None:
        raise MergeError(
            f"trial {trial.number} was built again with other weights ({result.weights_digest}, "
            f"was {trial.weights_digest}); `mergetune reproduce` tells which parent changed"
        )
    return result


def said(result: Result) -> Mapping[str, Sequence[Answer]]:
    """Return the answers of ``ask``."""
    assert result.answers is not None
    return result.answers
