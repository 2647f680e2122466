"""What is stored of a study's end: who was to be selected from, and who saw the report items."""

from __future__ import annotations

from pydantic import ConfigDict

from merge_core.validation import StrictModel


class Finalists(StrictModel):
    """Who was to be scored on the select pool.

    Args:
        numbers: Of the trials, best search score first.
        most: How many there might be.
        after: How many trials there were.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    numbers: list[int]
    most: int
    after: int


class Look(StrictModel):
    """A winner that was measured on a report pool.

    Args:
        study: Whose winner it was; "" for the study that stores it.
        trial: Its number there.
        weights_digest: Of it: the same weights are one look.
        items: How many of these report items it was measured on.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    study: str
    trial: int
    weights_digest: str
    items: int


class Looks(StrictModel):
    """All of them, as they are stored."""

    looks: list[Look]
