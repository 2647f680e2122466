"""How many items steer, choose and report, by how many there are."""

from __future__ import annotations

from typing import Any

from merge_core.errors import ParameterError
from search.scoring.pools import NAMES, Sharing
from search.spec.sections import Items

TRIES = 12  # counts that are tried until pools have just as many, whatever stays together


def share_out(items: Sharing, most: int | None, seed: int) -> tuple[dict[str, Any], str]:
    """Return section ``items``, and why it says so.

    Args:
        items: What pools are made of.
        most: Items that may steer; None: as many as a study has by itself.
        seed: Of the study.

    Raises:
        ParameterError: There are too few items for three pools.
    """
    total = sum(map(len, items.ids.values()))
    wanted = Items().search if most is None else most
    count = max(min(wanted, total // len(NAMES)), len(items.ids) + len(items.graded))
    why = f"{total} items in all"
    why += ": a third each" if count < wanted else f", {count} steer and as many choose the winner"
    why += "; the report is measured on the rest, which decides nothing"
    fewer: list[dict[str, Any]] = []
    refused: list[ParameterError] = []
    for less in range(min(TRIES, count)):
        counts: dict[str, Any] = {"search": count - less, "select": count - less, "report": "rest"}
        try:
            pools = items.split(counts, seed)
        except ParameterError as error:
            refused.append(error)
            continue
        if all(counts[name] in ("rest", len(pool)) for name, pool in pools.items()):
            return counts, why
        fewer.append(counts)
    if not fewer:
        raise refused[0]
    return fewer[0], why
