"""What a study stores, without what is only true on the machine that it ran on.

- A model named by an absolute path gets the path from the study file's folder, wherever its name
  stands: in recipes, baselines, digests, sentences. The weights are the same; digests of recipes,
  which cover names, are computed anew.
- Of every other absolute path in an error or in the summary the last name is left.
- Hosts and processes that have run the study are left out, and answers to tasks whose texts may not
  go along.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from merge_core.errors import ParameterError, Problems
from merge_core.recipe.model_reference import Reference, parse
from search.storage.about import ABOUT, ITEMS
from search.storage.said import ANSWERS, SAMPLES, without
from search.storage.tensor_sums import TENSORS, packed_sums, unpacked_sums
from search.storage.trial_codec import OPTIONAL

if TYPE_CHECKING:
    import optuna

QUOTED = re.compile(r"""(["'])/[^"'\n]*/([^"'/\n]*)\1""")
ABSOLUTE = re.compile(r"""(?<![\w.:/~-])/(?:[^\s/'":,;]+/)+([^\s/'":,;]*)""")
SCORES = ("scores", "seconds")  # of a measurement: numbers only
HERE = "."  # where a bundle's study file is, seen from its database


def renamed(references: Iterable[str], folder: Path) -> dict[str, str]:
    """Return text -> as a bundle has it, of all that names a model on this machine only.

    Args:
        references: As in recipes.
        folder: Of the study file, where relative paths start.
    """
    found: dict[str, str] = {}
    for text in references:
        if text.startswith("/") and Path(text).exists():
            found[text] = str(Reference(_from(text, folder)))
            continue
        try:
            parsed = parse(text)
        except ParameterError:
            continue
        model, lora = _from(parsed.path, folder), parsed.lora and _from(parsed.lora, folder)
        made = Reference(model, parsed.revision, lora, parsed.lora_revision)
        if made != parsed:
            found |= {text: str(made), parsed.path: model}
            found |= {parsed.lora: lora} if parsed.lora and lora else {}
    return {old: new for old, new in found.items() if old != new}


def _from(path: str, folder: Path) -> str:
    """Return an absolute path as one from a folder, with its last name kept; others as they are."""
    if not path.startswith("/"):
        return path
    above, name = os.path.split(path.rstrip("/"))
    found = PurePosixPath(os.path.relpath(above or "/", folder), name).as_posix()
    return found if found.startswith(".") else f"./{found}"


class Portable:
    """Changes a study on its way into a bundle; see ``snapshot.Change``.

    Args:
        study: The study file's data as the bundle has it.
        references: See ``renamed``.
        others: Name of a baseline, or digest of a recipe -> as the bundle has it.
        silent: Tasks without texts.
    """

    def __init__(
        self,
        study: Mapping[str, Any],
        references: Mapping[str, str],
        others: Mapping[str, str],
        silent: Collection[str],
    ) -> None:
        self._study, self._silent, self._others = dict(study), silent, dict(others)
        longest = sorted(references, key=len, reverse=True)
        self._names = dict(references)
        self._any = re.compile("|".join(f"{re.escape(x)}(?![\\w.-])" for x in longest) or r"(?!)")

    def attributes(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return the study's attributes as the bundle has them."""
        ways: dict[str, Callable[[Any], Any]] = {
            ABOUT: lambda x: {**self.plain(x), "study": self._study, "folder": HERE},
            ITEMS: lambda x: x,  # packed ids name no model
            TENSORS: self._summed,
            SAMPLES: self._heard,
            "summary": self._scrubbed,
            "runs": lambda x: _without_hosts(self._scrubbed(x)),
            ANSWERS: lambda x: without(x, self._silent),
        }
        return {
            key: ways.get(key.partition(":")[0], self._measured)(value)
            for key, value in found.items()
        }

    def trial(self, found: optuna.trial.FrozenTrial) -> optuna.trial.FrozenTrial:
        """Return a trial as the bundle has it."""
        made = copy.copy(found)
        attributes = dict(found.user_attrs)
        if "recipe" in attributes:
            attributes["recipe"] = self.plain(attributes["recipe"])
        for key in OPTIONAL:
            if isinstance(attributes.get(key), str):
                attributes[key] = self._scrubbed(attributes[key])
        made.user_attrs = attributes
        return made

    def with_study(self, study: Mapping[str, Any]) -> Portable:
        """Return the same with other data of the study file."""
        return Portable(study, self._names, self._others, self._silent)

    def name(self, text: str) -> str:
        """Return a name as the bundle has it."""
        return self._named(text)

    def plain(self, value: Any) -> Any:
        """Return plain data in which models and baselines have the bundle's names."""
        return _mapped(value, self._named)

    def _named(self, text: str) -> str:
        text = self._others.get(text, text)
        return self._any.sub(lambda found: self._names[found[0]], text)

    def _scrubbed(self, value: Any) -> Any:
        return _mapped(self.plain(value), without_places)

    def _measured(self, value: Any) -> Any:
        if not isinstance(value, dict) or "scores" not in value:
            return self.plain(value)
        return {key: x if key in SCORES else self._scrubbed(x) for key, x in value.items()}

    def _summed(self, value: Any) -> Any:
        problems: Problems = []
        sums = unpacked_sums(value, problems)
        return None if problems else packed_sums({self._named(x): y for x, y in sums.items()})

    def _heard(self, value: Any) -> Any:
        tasks = value.get("tasks") if isinstance(value, dict) else None
        if not isinstance(tasks, dict):
            return None
        return {**value, "tasks": {t: x for t, x in tasks.items() if t not in self._silent}}


def without_places(text: str) -> str:
    """Return a text with the last name in place of every absolute path."""
    return ABSOLUTE.sub(r".../\1", QUOTED.sub(r"\1.../\2\1", text))


def _without_hosts(runs: Any) -> Any:
    if not isinstance(runs, list):
        return runs
    return [{**run, "host": ""} for run in runs if isinstance(run, dict)]


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """Return plain data with every text changed, keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _mapped(x, change) for key, x in value.items()}
    if isinstance(value, list):
        return [_mapped(x, change) for x in value]
    return value
