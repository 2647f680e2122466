"""The items of a study with their texts, where whoever owns them allows that they are passed on.

Texts of the user's own files go along, and those of a public data set whose card on this disk
states a licence that lets everybody pass it on. Of all others there are the ids, which are made
from the texts and tell whether two studies have an item in common.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluators.protocol import Evaluator
from merge_core.errors import MergeError, NoPromptsError
from merge_core.output.model_card import licence
from search.scoring.pools import NAMES
from search.spec.study_file import StudySpec
from search.storage.study_record import Record
from search.trial.builder import Builder
from search.trial.tasks import open_tasks

FREE = {  # licences, in the hub's words, that let everybody pass texts on as they are
    *("apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "bsl-1.0", "isc", "unlicense"),
    *("cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "odc-by", "pddl"),
    *("cdla-permissive-1.0", "cdla-permissive-2.0"),
}
NOT_ASKED = "texts were not asked for (--no-texts)"


@dataclass(frozen=True)
class Texts:
    """The items of a study.

    Args:
        rows: One for each item: ``task``, ``pool``, ``id`` and, where it may go along, ``text``.
        told: Task -> how many items there are, how many with text, and why.
    """

    rows: Sequence[Mapping[str, str]] = ()
    told: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def silent(self) -> frozenset[str]:
        """Tasks without texts."""
        return frozenset(task for task, said in self.told.items() if not said["texts"])


def texts_of(record: Record, spec: StudySpec, *, wanted: bool) -> Texts:
    """Return the items of a study that has begun.

    Args:
        record: Its record.
        spec: The study as it is stored.
        wanted: Whether texts are wanted; then its tasks are opened, no model.

    Raises:
        MergeError: A task cannot be opened.
    """
    said: dict[str, tuple[dict[str, str], str]] = {}
    if wanted:
        try:
            tasks = open_tasks(spec, Builder(spec, record.about).tokenizer)
        except MergeError as error:
            raise MergeError(
                f"the texts of the items cannot be read: {error}; mend that, or bundle without "
                "them (--no-texts)"
            ) from error
        said = {task: _said(evaluator) for task, evaluator in tasks.evaluators.items()}
    rows, told = [], {}
    pools = {pool: record.item_ids(pool) for pool in NAMES}
    for task in dict.fromkeys(task for by in pools.values() for task in by):
        known, why = said.get(task, ({}, NOT_ASKED))
        here = [(pool, id_) for pool in NAMES for id_ in pools[pool].get(task, ())]
        rows += [
            {"task": task, "pool": pool, "id": id_} | ({"text": known[id_]} if id_ in known else {})
            for pool, id_ in here
        ]
        told[task] = {
            "items": len(here),
            "texts": sum(id_ in known for _, id_ in here),
            "why": why,
        }
    return Texts(rows, told)


def _said(evaluator: Evaluator) -> tuple[dict[str, str], str]:
    """Return id -> text of the items whose texts may go along, and why these, or why none."""
    allowed, why = allowed_by(evaluator.source)
    if not allowed:
        return {}, why
    try:
        texts = evaluator.prompts(range(len(evaluator.items)))
    except NoPromptsError:
        return {}, "its evaluator does not say what a model reads"
    return {item.id: text for item, text in zip(evaluator.items, texts, strict=True)}, why


def allowed_by(source: str | None) -> tuple[bool, str]:
    """Return whether texts of a data set may be passed on, and why.

    Args:
        source: See ``TaskFacts.source``.
    """
    if source is None:
        return False, "its evaluator does not say where its items come from"
    if not source:
        return True, "files of the study's owner"
    stated = licence_of(source)
    if stated is None:
        return False, f"the card of {source} is not on this disk, or states no licence"
    free = stated.lower() in FREE
    told = "lets everybody pass it on" if free else "is not known to let everybody pass it on"
    return free, f"the licence of {source}, {stated}, {told}"


def licence_of(source: str) -> str | None:
    """Return the licence that the card of a data set on the hub states, if it is on this disk."""
    import huggingface_hub as hub
    from huggingface_hub.errors import HFValidationError

    try:
        found = hub.try_to_load_from_cache(source, "README.md", repo_type="dataset")
    except HFValidationError:  # an address
        return None
    return licence(Path(found).parent) if isinstance(found, str) else None
