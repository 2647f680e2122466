"""What a job raised: the candidate's own fault, a failed trial, or something that ends the run."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from merge_core.errors import CandidateError, MergeError


@dataclass(frozen=True)
class Failure:
    """What a job raised.

    Args:
        candidate: Whether it is the candidate's own fault, so that another one may do: weights or
            answers that are not finite, an item that it cannot take, too little memory for it. All
            else (a service that is down, a full disk, a driver, a plugin) may be over next time.
        kind: Name of its class.
        reason: What a list has room for.
        text: What is shown where nothing else is: a traceback, unless the user can mend it.
        traceback: Also where the user can mend it.
    """

    candidate: bool
    kind: str
    reason: str
    text: str
    traceback: str

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Keep an error that is being handled."""
        kind, text, trace = type(error).__name__, str(error), traceback.format_exc()
        own = _is_the_candidates(error)
        if isinstance(error, MergeError):
            return cls(own, kind, text, text, trace)
        first = next(iter(text.splitlines()), "")
        return cls(own, kind, f"{kind}: {first}", trace, trace)


class InterruptedStudyError(MergeError):
    """A run cannot go on, and no candidate is to blame; ``traceback`` says where it broke."""

    def __init__(self, what: str, failure: Failure) -> None:
        rest = "nothing of it is stored; mend that and run again to go on"
        super().__init__(f"{what}: {failure.reason}; {rest}")
        self.traceback = failure.traceback


def _is_the_candidates(error: BaseException) -> bool:
    import torch

    if isinstance(error, (CandidateError, MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error):
        return True  # torch has no class of its own for a host without memory
    return error.__cause__ is not None and _is_the_candidates(error.__cause__)
