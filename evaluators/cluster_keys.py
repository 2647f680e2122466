"""Which documents of a task belong together, by what they say: a passage that several ask about.

By a key that the study file names (``cluster: passage_id``; inside mappings ``cluster:
idx.paragraph``), or without one by the first of these keys, in any case, that documents of a task
share:

    a text   passage, paragraph, context, article, story, ...: ``TEXTS``
    an id    passage_id, document_id, source_id, ...: ``IDS``

A text is shared where at least two different documents have it and it has 32 characters or more, so
that no category is one; an id, where at least two have it and none of its values more than a tenth
of all. Documents without the key, or with nothing there, are each alone. ``cluster: none``: nothing
belongs together but documents that are equal.

Source: questions on one text are drawn together, and standard errors that do not know it are too
small by up to 3 times: Miller, arXiv:2411.00640, section 2.2.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from evaluators.facts import canonical
from merge_core.errors import EvaluationError, hint

TEXTS = (
    *("passage", "paragraph", "context", "article", "story", "narrative", "dialogue", "dialog"),
    *("conversation", "document", "document_str", "flores_passage", "premise", "support"),
    *("abstract", "evidence"),
)
IDS = (
    *("passage_id", "paragraph_id", "context_id", "article_id", "story_id", "document_id"),
    *("dialogue_id", "dialog_id", "conversation_id", "source_id", "video_id"),
)
LONG = 32
NONE = "none"
MEANING = "the key of what items share, such as passage_id, or none; known keys"  # of an option
_NOTHING = (None, "")
_MOST = 10  # an id that more than one in so many documents has is none of a passage


class Clusters(NamedTuple):
    """One label per document, the same where they belong together, and by which key."""

    labels: tuple[str, ...]
    key: str


def clusters_of(
    documents: Sequence[object],
    key: str | None,
    *,
    source: str = "",
    place: Callable[[int], str],
) -> Clusters | None:
    """Return which documents belong together; None: none but equal ones.

    Args:
        documents: Mappings; whatever is none has no keys.
        key: What the study file says; None: the known keys are looked for.
        source: What an id is an id of, such as the name of a data set: equal ids of other sources
            are others. Texts are the same everywhere.
        place: Of the document at a position, for messages.

    Raises:
        EvaluationError: A document does not have the key.
    """
    if key is None:
        return _found(documents, source)
    if key == NONE and not any(isinstance(d, Mapping) and NONE in d for d in documents):
        return None
    values = [_at(document, key, place(i)) for i, document in enumerate(documents)]
    return _labelled(documents, values, key, source)


def facts_of(clusters: Clusters | None) -> dict[str, Any]:
    """Return them as ``TaskFacts`` has them."""
    if clusters is None:
        return {}
    return {"clusters": clusters.labels, "clustered_by": clusters.key}


def _found(documents: Sequence[object], source: str) -> Clusters | None:
    names = _names(documents)
    for keys, value_of, counts in ((TEXTS, _text, _are_texts), (IDS, _id, _are_ids)):
        for key in filter(None, map(names.get, keys)):
            values = [value_of(d.get(key)) if isinstance(d, Mapping) else None for d in documents]
            if counts(documents, values):
                return _labelled(documents, values, key, source)
    return None


def _names(documents: Sequence[object]) -> dict[str, str]:
    """Return key in lower case -> key, of all documents."""
    found: dict[str, str] = {}
    for document in documents:
        if isinstance(document, Mapping):
            for name in document:
                found.setdefault(str(name).lower(), name)
    return found


def _text(value: object) -> str | None:
    """Return a text, or the texts of a list as one, where it is a long one."""
    if isinstance(value, list) and all(isinstance(x, str) for x in value):
        value = "\n".join(value)
    text = " ".join(value.split()) if isinstance(value, str) else ""
    return text if len(text) >= LONG else None


def _id(value: object) -> str | int | None:
    return value if isinstance(value, str | int) and not isinstance(value, bool) else None


def _are_texts(documents: Sequence[object], values: Sequence[object]) -> bool:
    return max(_times(documents, values).values(), default=0) > 1


def _are_ids(documents: Sequence[object], values: Sequence[object]) -> bool:
    return 1 < max(_times(documents, values).values(), default=0) <= len(documents) / _MOST


def _times(documents: Sequence[object], values: Sequence[object]) -> Counter[object]:
    """Return value that several have -> how many different documents have it."""
    some = {value for value, times in Counter(values).items() if times > 1} - {*_NOTHING}
    pairs = {(v, canonical(d)) for v, d in zip(values, documents, strict=True) if v in some}
    return Counter(value for value, _ in pairs)


def _labelled(
    documents: Sequence[object], values: Sequence[object], key: str, source: str
) -> Clusters:
    labels = []
    for document, value in zip(documents, values, strict=True):
        if value in _NOTHING:
            named = ["", document]
        else:
            text = _text(value)
            named = ["text", text] if text else [source, key, value]
        labels.append(hashlib.sha256(canonical(named)).hexdigest()[:16])
    return Clusters(tuple(labels), key)


def _at(document: object, key: str, place: str) -> Any:
    """Return what stands under a key, or where its parts lead, one inside the other."""
    if isinstance(document, Mapping) and key in document:
        return document[key]
    value = document
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            names = [str(name) for name in value] if isinstance(value, Mapping) else []
            raise EvaluationError(
                f"{place}: cluster: no key {part!r}{hint(part, names)}; "
                f"there are {', '.join(names) or 'no keys'}; `cluster: {NONE}`: items are "
                "independent"
            )
        value = value[part]
    return value
