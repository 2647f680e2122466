"""What decides scores and may differ between two machines without being seen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version

from merge_core.errors import MergeError
from search.trial.builder import LIBRARIES
from search.trial.environment import TOLD
from search.trial.worker import Worker


def deciding(worker: Worker) -> dict[str, str]:
    """Return, in words for a message, what a process has -> its version or digest.

    That is libraries, commits of models that the hub gave, and the tasks with their items; the
    worker need not build.
    """
    found = {name: version(name) for name in LIBRARIES}
    for reference, parent in worker.builder.parents.items():
        places = [] if parent.located is None else [parent.located.model, parent.located.lora]
        commits = [place.commit for place in places if place is not None and place.commit]
        if commits:
            found[f"the commit of model {reference!r}"] = " and ".join(commits)
    for name, part in worker.tasks.about().items():
        text = json.dumps(part, sort_keys=True)
        found[f"the digest of {name}"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return found


def deciding_at_work(worker: Worker) -> dict[str, str]:
    """Return the same of a worker that builds, with the environment that it builds in."""
    environment = worker.builder.environment.items()
    return {**deciding(worker), **{key: str(x) for key, x in environment if key not in TOLD}}


def check_same(known: dict[str, str], there: Mapping[str, str], machine: str) -> None:
    """Refuse a machine that would give other scores.

    Args:
        known: What the coordinator has, see ``deciding``, and in what it lacks the first machine
            that was asked: what is new is added.
        there: What the machine has.
        machine: Its name, for the message.

    Raises:
        MergeError: They differ.
    """
    names = [name for name in there if known.setdefault(name, there[name]) != there[name]]
    names += [name for name in known if name not in there]
    if names:
        told = [f"{name} is {there.get(name)} (here {known[name]})" for name in names]
        raise MergeError(
            f"machine {machine} would give other scores: {', '.join(told)}; give all machines the "
            "same libraries, data sets and commits of models"
        )
