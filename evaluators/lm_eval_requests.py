"""One lm-eval task -> its requests, built once for all documents and kept apart per document.

Built for the full set because lm-eval draws few-shot examples from one stream: the prompt of
document 50 differs between a full run and a run of document 50 alone.
"""

from __future__ import annotations

import functools
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluators.quiet import hushed
from merge_core.errors import EvaluationError, MergeError, UnknownNameError, hint

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager
    from transformers import PreTrainedTokenizerBase

ANSWERABLE = ("loglikelihood", "generate_until")  # request types that give one score per item


@dataclass(frozen=True)
class Prepared:
    """A loaded task with the requests of each document, in document order."""

    task: Task
    requests: tuple[tuple[Instance, ...], ...]  # per document, by ``idx``


def prepare(
    name: str,
    include_path: Path | None,
    num_fewshot: int | None,
    seed: int,
    chat_tokenizer: PreTrainedTokenizerBase | None,
) -> Prepared:
    """Load a task and build its requests the way ``lm_eval.simple_evaluate`` does.

    Args:
        name: A task; groups and tags are refused.
        include_path: Folder of task files, searched before lm-eval's own tasks.
        num_fewshot: Examples in a prompt; ``None`` is what the task says, or 0.
        seed: Seed of the few-shot draw.
        chat_tokenizer: Whose chat template to put the prompts in; ``None`` for plain text.

    Raises:
        UnknownNameError: No task has that name.
        EvaluationError: The task cannot be loaded, or cannot be scored item by item.
    """
    import datasets  # noqa: F401  first, so that its log handler gets the real stderr
    import lm_eval.api.task  # noqa: F401

    chat = _chat_template(name, chat_tokenizer)
    manager = _manager_of(name, include_path)
    _refuse_many(name, manager)
    try:
        with hushed(), _lm_eval_seeds():
            (task,) = manager.load(name)["tasks"].values()
            _refuse_special(name, task)
            _set_fewshot(name, task, num_fewshot, seed)
            task.build_all_requests(
                apply_chat_template=chat is not None, fewshot_as_multiturn=True, chat_template=chat
            )
    except MergeError:
        raise
    except Exception as error:
        raise EvaluationError(
            f"lm-eval task {name!r} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    _refuse_unrepeatable(name, task.instances)
    requests = _by_document(task.instances)
    _read_documents_once(task, [group[0].doc for group in requests])
    return Prepared(task, requests)


def _by_document(instances: Sequence[Instance]) -> tuple[tuple[Instance, ...], ...]:
    found: dict[int, list[Instance]] = defaultdict(list)
    for instance in instances:
        found[instance.doc_id].append(instance)
    return tuple(tuple(sorted(found[i], key=lambda x: x.idx)) for i in sorted(found))


def _read_documents_once(task: Task, docs: Sequence[Any]) -> None:
    """Keep what the task says about its documents: lm-eval compiles a template at each question.

    For 360 short answers of a small model that is as long as the generation itself.
    """
    for name in ("doc_to_text", "doc_to_target", "doc_to_choice"):
        if hasattr(task, name):
            setattr(task, name, _kept(getattr(task, name), docs))


def _kept(method: Callable[..., Any], docs: Sequence[Any]) -> Callable[..., Any]:
    known = {id(doc): doc for doc in docs}  # holds the documents, so that no id is used again
    answers: dict[int, Any] = {}

    def look(doc: Any, *more: Any) -> Any:
        if more or id(doc) not in known:
            return method(doc, *more)
        if id(doc) not in answers:
            answers[id(doc)] = method(doc)
        return answers[id(doc)]

    return look


def _manager_of(name: str, include_path: Path | None) -> TaskManager:
    """Return an index that has the name, without indexing lm-eval's own 14,000 where avoidable."""
    places: list[Callable[[], TaskManager]] = []
    known: list[str] = []
    if include_path is not None:
        if not include_path.is_dir():
            raise EvaluationError(f"include_path {include_path} is not a folder")
        places.append(functools.partial(_index, include_path))
    places.append(_own_tasks)
    for place in places:
        manager = place()
        if name in manager.task_index:
            return manager
        known += manager.all_tasks
    where = f" in {include_path} or" if include_path else ""
    raise UnknownNameError(
        f"no lm-eval task is named {name!r}{hint(name, known)}; looked{where} among lm-eval's own"
    )


def _index(folder: Path) -> TaskManager:
    from lm_eval.tasks import TaskManager

    with hushed():
        return TaskManager(include_path=str(folder), include_defaults=False)


@functools.cache
def _own_tasks() -> TaskManager:
    """Index the tasks that lm-eval ships: some seconds, so once per process."""
    from lm_eval.tasks import TaskManager

    with hushed():
        return TaskManager()


def _refuse_many(name: str, manager: TaskManager) -> None:
    entry = manager.task_index[name]
    if entry.kind.name not in ("GROUP", "TAG"):
        return
    listed = sorted(entry.tags) if entry.kind.name == "TAG" else entry.cfg["task"]
    members = [
        m if isinstance(m, str) else str(m.get("task") or m.get("group")) for m in _as_list(listed)
    ]
    raise EvaluationError(
        f"{name!r} is a group of lm-eval tasks, and a score entry takes one task; "
        f"its members: {', '.join(members)}"
    )


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _refuse_special(name: str, task: Task) -> None:
    if getattr(task, "UNSAFE_CODE", False):
        raise EvaluationError(f"lm-eval task {name!r} runs code that the model writes; not done")
    if getattr(task, "MULTIMODAL", False):
        raise EvaluationError(f"lm-eval task {name!r} needs images or sound; only text is scored")


def _set_fewshot(name: str, task: Task, num_fewshot: int | None, seed: int) -> None:
    fixed = task.get_config("num_fewshot")
    if num_fewshot and fixed == 0:
        raise EvaluationError(
            f"lm-eval task {name!r} sets num_fewshot to 0 in its file, where lm-eval ignores any "
            f"other number; got {num_fewshot}"
        )
    wanted = fixed if num_fewshot is None else num_fewshot
    task.set_config("num_fewshot", wanted or 0)
    task.set_fewshot_seed(seed)


def _refuse_unrepeatable(name: str, instances: Sequence[Instance]) -> None:
    """Refuse requests that have no one score per item, or another one each time."""
    others = sorted({i.request_type for i in instances} - set(ANSWERABLE))
    if others:
        raise EvaluationError(
            f"lm-eval task {name!r} asks for {', '.join(others)}; "
            "supported are generate_until, loglikelihood and multiple_choice"
        )
    if any(_samples(i.args[1]) for i in instances if i.request_type == "generate_until"):
        raise EvaluationError(
            f"lm-eval task {name!r} draws its answers at random (do_sample or temperature), "
            "so a score could not be repeated; use a greedy variant of it"
        )


def _samples(settings: dict[str, Any]) -> bool:
    asked = settings.get("do_sample")
    return bool(float(settings.get("temperature") or 0) > 0 if asked is None else asked)


def _chat_template(
    name: str, tokenizer: PreTrainedTokenizerBase | None
) -> Callable[..., str] | None:
    """Return lm-eval's own way to fill a chat template, which needs no model."""
    if tokenizer is None:
        return None
    if not tokenizer.chat_template:
        raise EvaluationError(
            f"lm-eval task {name!r} has apply_chat_template, but the tokenizer has no chat template"
        )
    from lm_eval.models.huggingface import HFLM

    stand_in = SimpleNamespace(tokenizer=tokenizer, chat_template_args={})
    return functools.partial(HFLM.apply_chat_template, stand_in)


@contextmanager
def _lm_eval_seeds() -> Iterator[None]:
    """Seed the global generators as ``simple_evaluate`` does, then put them back.

    Some tasks shuffle their choices with ``random`` while they are loaded.
    """
    import torch

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(0)
    np.random.seed(1234)  # noqa: NPY002
    torch.default_generator.manual_seed(1234)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
