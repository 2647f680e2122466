"""Whether two studies score a task's items alike, by what they have stored of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from search.spec.changes import differing

SET = ("requests", "items")  # of a fingerprint: which items there are, as well
PLACE = ("lm_eval", "version")  # told, not refused
WEIGHED = ("word_perplexity", "byte_perplexity", "bits_per_byte")  # whose items have sizes


@dataclass(frozen=True)
class Apart:
    """Tasks that are not compared, with why, and what else is to be known of tasks."""

    refused: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def apart_by(
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    ids: Sequence[Mapping[str, Mapping[str, Sequence[str]]]],
) -> Apart:
    """Return which tasks of two studies are not compared.

    Args:
        ours: What all trials of one share, as stored.
        theirs: The other's.
        ids: Of each: pool -> task -> ids.
    """
    found = Apart()
    for task, mine in ours["tasks"].items():
        if task not in theirs["tasks"]:
            found.refused[task] = "only the first study has it"
            continue
        sets = [{id_ for pool in study.values() for id_ in pool.get(task, ())} for study in ids]
        keys = _differing(mine, theirs["tasks"][task])
        hard = [key for key in keys if key not in (*SET, *PLACE)]
        if "requests" in keys and sets[0] == sets[1]:
            hard.append("requests")
        rule = "" if hard else _unknown(ours, task)
        if hard:
            found.refused[task] = (
                f"the same items are scored otherwise, and such scores are not comparable: "
                f"{', '.join(hard)} differ in the task's fingerprint"
            )
        elif rule:
            found.refused[task] = rule
        else:
            found.notes.extend(_told(task, keys, sets))
    for task in theirs["tasks"]:
        if task not in ours["tasks"]:
            found.refused[task] = "only the second study has it"
    return found


def _told(task: str, keys: Sequence[str], sets: Sequence[set[str]]) -> list[str]:
    said = []
    if "requests" in keys:
        said.append(
            f"{task} has other items besides in one of the studies, so that their prompts were not "
            "compared one by one; all settings are the same"
        )
    other = [key for key in keys if key in PLACE]
    if other:
        said.append(f"{task} was scored by another {' and '.join(other)}")
    return said


def _differing(mine: str, theirs: str) -> list[str]:
    """Return the keys of two fingerprints that differ."""
    if mine == theirs:
        return []
    try:
        a, b = json.loads(mine), json.loads(theirs)
    except ValueError:  # of a plugin, in its own words
        return ["its words"]
    if not isinstance(a, dict) or not isinstance(b, dict):
        return ["its words"]
    return differing(a, b)


def _unknown(about: Mapping[str, Any], task: str) -> str:
    """Return why a task's scores cannot be read, or nothing."""
    fingerprint = about["tasks"][task]
    known = task in about.get("facts", {})
    if not known and any(f'"{metric}"' in fingerprint for metric in WEIGHED):
        return "what each item counts was not stored when the first study began"
    return ""
