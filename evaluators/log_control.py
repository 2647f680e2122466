"""lm-eval, datasets and transformers talk on stderr, and would again for every candidate."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr


@contextmanager
def hushed_logs() -> Iterator[None]:
    """Let only errors of the libraries through while the block runs."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def hushed() -> Iterator[None]:
    """Swallow progress bars and warnings too. Exceptions pass.

    Import the libraries before: a handler that they make inside would keep the swallowing stream.
    """
    with hushed_logs(), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
