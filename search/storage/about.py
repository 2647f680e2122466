"""What all trials of a study share, as it is stored, in this format and in earlier ones.

Format 1 had the ids of all items here; since format 2 their count and digest are here, and the ids,
packed, in an attribute of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, Field

from merge_core.errors import Problems, join
from merge_core.validation import StrictModel, read
from search.scoring.pools import NAMES, described
from search.storage.packed import Ids, unpacked_ids
from search.trial.trial import Trial

FORMAT = 2
ABOUT = "mergetune"  # the study attribute that holds what all trials share
REPORT = NAMES[-1]  # finalists that do not win are measured on its first items only
ITEMS = "items"  # the study attribute with the ids of all items, packed


class _Pool(StrictModel):
    model_config = ConfigDict(extra="ignore")

    items: int
    digest: str


class _About(StrictModel):
    """What must be there; the rest is compared as it is."""

    model_config = ConfigDict(extra="ignore")

    format: int
    study: dict[str, Any]
    parents: dict[str, str]
    tasks: dict[str, Any]
    pools: dict[str, dict[str, _Pool]]
    baselines: dict[str, Any]
    threads: int
    folder: str
    grown: list[int] = Field([])


class _Ids(StrictModel):
    model_config = ConfigDict(extra="ignore")

    pools: dict[str, dict[str, list[str]]]


def format_of(stored: Any) -> int:
    """Return the format of what is stored; 1 where it does not say."""
    found = stored.get("format", 1) if isinstance(stored, Mapping) else 1
    return found if type(found) is int else 1


def read_about(stored: Any, path: str, problems: Problems) -> tuple[dict[str, Any], Ids | None]:
    """Return what all trials share, in the form of this format, and the items' ids if it has them.

    Args:
        stored: What is stored, in this format or an earlier one; its ``format`` stays.
        path: The attribute's name, for the problems.
        problems: To add to.
    """
    ids = None
    if isinstance(stored, Mapping):
        stored = {"format": 1, **stored}
        if format_of(stored) < FORMAT:
            found = read(_Ids, stored, path, problems)
            ids = {} if found is None else found.pools
            stored = {**stored, "pools": pools_of(ids)}
    read(_About, stored, path, problems)
    return stored, ids


def pools_of(ids: Ids) -> dict[str, dict[str, Any]]:
    """Return how many items each task has in each pool, and the digest of their ids."""
    return {pool: {task: described(x) for task, x in by.items()} for pool, by in ids.items()}


def read_ids(stored: Any, about: Mapping[str, Any], problems: Problems) -> Ids:
    """Return the ids of all items of a study of this format.

    Args:
        stored: The attribute that has them.
        about: What all trials share, with their digests.
        problems: To add to, also where they are not those that the study began with.

    Returns:
        Pool -> task -> ids. Report items that were stored, and are not counted yet since the run
        that brought them was killed, are left out.
    """
    try:
        ids = unpacked_ids(stored)
    except ValueError as error:
        problems.append((ITEMS, str(error)))
        return {}
    counted = about["pools"].get(REPORT, {})
    ids[REPORT] = {
        task: found[: counted[task]["items"]] if task in counted else found
        for task, found in ids.get(REPORT, {}).items()
    }
    problems += [
        (join(join(ITEMS, pool), task), "the ids are not those of the digest")
        for pool, tasks in about["pools"].items()
        for task, known in tasks.items()
        if described(ids.get(pool, {}).get(task, ())) != known
    ]
    return ids


def of_other_length(trial: Trial, pools: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what is wrong where a trial has other numbers of scores than pools have items, or "".

    Args:
        trial: One that was stopped has the first search items, one that did not win the first
            report items.
        pools: As in what all trials share.
    """
    for pool, found in trial.measured.items():
        for task, scores in found.scores.items():
            known = pools.get(pool, {}).get(task)
            items = len(scores) if known is None else known["items"]
            whole = pool != REPORT and trial.state != "stopped"
            if len(scores) > items or (whole and len(scores) < items):
                return (
                    f"trial {trial.number} has {len(scores)} scores of {items} items of {task} in "
                    f"the {pool} pool"
                )
    return ""
