"""Answers of an engine that are no numbers are errors, whichever engine gave them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from merge_core.errors import NonFiniteError


def check_pairs(pairs: Sequence[tuple[str, str]], answers: Sequence[tuple[float, bool]]) -> None:
    """Refuse log-likelihoods that are not finite.

    Raises:
        NonFiniteError: One is NaN or infinite.
    """
    for (context, continuation), (nats, _) in zip(pairs, answers, strict=True):
        if not math.isfinite(nats):
            raise NonFiniteError(
                f"the log-likelihood of {continuation!r} after {context[-40:]!r} is {nats}; "
                "it must be finite"
            )


def check_texts(texts: Sequence[str], answers: Sequence[float]) -> None:
    """Refuse log-likelihoods of texts that are not finite.

    Raises:
        NonFiniteError: One is NaN or infinite.
    """
    for text, nats in zip(texts, answers, strict=True):
        if not math.isfinite(nats):
            raise NonFiniteError(
                f"the log-likelihood of the text {text[:40]!r} is {nats}; it must be finite"
            )


def check_choices(nats: Sequence[float]) -> None:
    """Refuse answers whose tokens were chosen from logits that are not finite.

    Args:
        nats: One log-probability per answer.

    Raises:
        NonFiniteError: One is NaN or infinite.
    """
    if not all(map(math.isfinite, nats)):
        raise NonFiniteError("the logits of the next token are NaN or infinite, not finite")
