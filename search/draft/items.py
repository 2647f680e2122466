"""How many items steer, choose and report, by how many there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from merge_core.errors import ParameterError
from search.scoring.pools import NAMES, split
from search.spec.sections import Items

TRIES = 12  # counts that are tried where equal items must stay together


def share_out(
    ids: Mapping[str, Sequence[str]], most: int | None, seed: int
) -> tuple[dict[str, Any], str]:
    """Return section ``items``, and why it says so.

    Args:
        ids: Task -> ids of its items.
        most: Items that may steer; None: as many as a study has by itself.
        seed: Of the study.

    Raises:
        ParameterError: There are too few items for three pools.
    """
    total = sum(map(len, ids.values()))
    wanted = Items().search if most is None else most
    count = max(min(wanted, total // len(NAMES)), len(ids))
    why = f"{total} items in all"
    why += ": a third each" if count < wanted else f", {count} steer and as many choose the winner"
    why += "; the report is measured on the rest, which decides nothing"
    refused: ParameterError | None = None
    for less in range(min(TRIES, count)):
        counts = {"search": count - less, "select": count - less, "report": "rest"}
        try:
            split(ids, counts, seed)  # type: ignore[arg-type]
        except ParameterError as error:
            refused = refused or error
            continue
        return counts, why
    assert refused is not None
    raise refused
