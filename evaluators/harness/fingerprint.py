"""What could change a score of an lm-eval task, the model aside, as one text."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluators.protocol import fingerprint

if TYPE_CHECKING:
    from evaluators.harness.requests import Prepared

# What these say is in the documents already, or is only a place or a name.
_WITHOUT_EFFECT = {
    *("custom_dataset", "dataset_path", "dataset_name", "dataset_kwargs", "metadata"),
    *("tag", "task_alias"),
}


def fingerprint_of(prepared: Prepared, facts: Mapping[str, Any]) -> str:
    """Return a JSON object: versions, ``facts``, hashes of requests, targets and settings."""
    task = prepared.task
    requests = (
        [
            [[r.request_type, r.arguments, r.idx, r.repeats] for r in group],
            group[0].doc,
            task.doc_to_target(group[0].doc),
        ]
        for group in prepared.requests
    )
    settings = {
        f.name: getattr(task.config, f.name)
        for f in dataclasses.fields(task.config)
        if f.name not in _WITHOUT_EFFECT
    }
    written = json.dumps(settings, sort_keys=True, default=_named)
    told = {
        "lm_eval": version("lm_eval"),
        "task": prepared.name,
        "version": str(task.VERSION),
        **facts,
        "num_fewshot": task.get_config("num_fewshot"),
        "items": len(prepared.requests),
        "settings": hashlib.sha256(written.encode()).hexdigest(),
    }
    return fingerprint("lm_eval", told, requests)


def _named(value: Any) -> Any:
    """Stand in for what JSON cannot write: a function by its name and its file's bytes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if not callable(value):
        return str(value)
    try:
        file = inspect.getsourcefile(value)
    except TypeError:  # a callable object, or one made in C
        file = None
    code = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
    return [getattr(value, "__qualname__", type(value).__qualname__), code]
