"""What only the user may allow, whatever a recipe, a study, a database or a model folder says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

CODE, CRIMES = "--trust-remote-code", "--allow-crimes"
_given: set[str] = set()  # in this process


def allow(*what: str) -> None:
    """Allow something in this process, from now on."""
    _given.update(what)


def given() -> tuple[str, ...]:
    """Return what is allowed in this process, sorted."""
    return tuple(sorted(_given))


def code() -> bool:
    """Return whether code of model folders may be run: of their classes and tokenizers."""
    return CODE in _given


def crimes() -> bool:
    """Return whether parents of one merge may have unlike architectures."""
    return CRIMES in _given


@contextmanager
def allowed(*what: str) -> Iterator[None]:
    """Allow something while this lasts; what was allowed before stays so."""
    before = {*_given}
    allow(*what)
    try:
        yield
    finally:
        _given.clear()
        _given.update(before)
