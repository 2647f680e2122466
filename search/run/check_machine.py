"""What a study needs of this machine and of its storage, looked at before a run needs it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar, cast

from evaluators.engines.encoding import longest_input
from evaluators.engines.vllm.process import check_installed
from evaluators.protocol import LiveModel
from merge_core.architecture.model_class import config_of
from merge_core.errors import MergeError, Problems, StorageError, UnknownNameError
from merge_core.json_text import read_json
from search.run.resume import check_begun
from search.spec.changes import ChangedStudyError
from search.spec.storage_url import storage_file
from search.spec.study_file import StudySpec
from search.storage.open import open_record
from search.trial.backends import check_device, device_of
from search.trial.tasks import Tasks

T = TypeVar("T")
PATIENCE = 15.0  # seconds that a storage may take to answer


class Seen(NamedTuple):
    """What was found: facts to show, warnings, and problems by their key path."""

    facts: dict[str, Any]
    warnings: list[str]
    problems: Problems


def machine(spec: StudySpec) -> Seen:
    """Look for a study's device and storage; nothing is made in the storage."""
    seen = Seen({}, [], [])
    _look(seen, "engine.device", lambda: seen.facts.update(device=_device(spec)))
    try:
        _look(seen, "storage", lambda: seen.facts.update(stored=_within(lambda: _stored(spec))))
    except ChangedStudyError as error:
        seen.warnings.append(str(error))
    return seen


def window(spec: StudySpec, tasks: Tasks, tokenizer: Any, folder: Path) -> Seen:
    """Compare all items with the window of the model that candidates are like.

    Args:
        spec: The study.
        tasks: Its.
        tokenizer: That of all candidates.
        folder: Of that model.
    """
    seen = Seen({}, [], [])
    if not (folder / "config.json").is_file():
        return seen
    try:
        config = config_of(read_json(folder / "config.json"))
    except ValueError as error:  # a MergeError of a file is one, too
        seen.problems.append(("recipe", f"{folder}: its config cannot be read: {error}"))
        return seen
    longest = longest_input(config, tokenizer)
    if spec.engine.name == "vllm":
        longest = min(longest, spec.engine.of_vllm().get("max_model_len") or longest)
    engine = SimpleNamespace(fingerprint=lambda: json.dumps({"max_length": longest}))
    model = cast("Any", SimpleNamespace(config=config))
    live = LiveModel(model, tokenizer, spec.engine.batch_size, cast("Any", engine))
    try:
        _look(seen, "score", lambda: tasks.check_fit(live))
    except AttributeError as error:  # a plugin that asks more of the model than its config
        seen.warnings.append(f"items are not compared with the model's window: {error}")
        return seen
    if not seen.problems:
        seen.facts["window"] = f"every item fits into the {longest} tokens of the model"
    return seen


def _look(seen: Seen, path: str, work: Callable[[], object]) -> None:
    """Do something; what it refuses is a problem of a key."""
    try:
        work()
    except ChangedStudyError:
        raise
    except MergeError as error:
        seen.problems.append((path, str(error).removeprefix(f"{path}: ")))


def _device(spec: StudySpec) -> str:
    if spec.engine.name == "vllm":
        check_installed()
    check_device(spec.engine)
    return "vllm" if spec.engine.name == "vllm" else device_of(spec.engine)


def _stored(spec: StudySpec) -> str:
    """Return what is stored of a study.

    Raises:
        StorageError: The storage cannot be opened.
        ChangedStudyError, MergeError: See ``check_begun``.
    """
    file = storage_file(spec.storage)
    if file is not None and not file.exists():
        _check_writable(file)
        return "nothing yet"
    try:
        record = open_record(
            spec.storage, spec.name, unnamed=spec.unnamed, variables=spec.variables
        )
    except UnknownNameError:  # it answers
        return "nothing of this study yet"
    check_begun(spec, record)
    finished = ", finished" if record.summary is not None else ""
    return f"{len(record.trials)} trials{finished}"


def _check_writable(file: Path) -> None:
    there = next(folder for folder in file.parents if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise StorageError(
            f"{file}: cannot be made: {there} is no folder that you may write to; name another one"
        )


def _within(work: Callable[[], T]) -> T:
    """Return what some work returns, which is left alone if it takes too long.

    Raises:
        StorageError: It takes longer than ``PATIENCE``.
    """
    found: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if thread.is_alive():
        raise StorageError(f"no answer within {PATIENCE:.0f} s; is the server there, and free?")
    if raised:
        raise raised[0]
    return found[0]
