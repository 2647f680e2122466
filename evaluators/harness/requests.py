"""lm-eval tasks -> their requests, built once for all documents and kept apart per document.

Built for the full set because lm-eval draws few-shot examples from one stream: the prompt of
document 50 differs between a full run and a run of document 50 alone.
"""

from __future__ import annotations

import copy
import functools
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluators.harness.index import Spec, manager_of, name_of
from evaluators.log_control import hushed
from merge_core.errors import EvaluationError, MergeError

if TYPE_CHECKING:
    from lm_eval.api.group import Group
    from lm_eval.api.instance import Instance
    from lm_eval.api.task import Task
    from lm_eval.config.group import AggMetricConfig
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks.manager import TaskDict
    from transformers import PreTrainedTokenizerBase

# request types that give one score per item
ANSWERABLE = ("loglikelihood", "loglikelihood_rolling", "generate_until")


@dataclass(frozen=True)
class Prompting:
    """How prompts are made of documents, in the words of ``lm_eval.simple_evaluate``.

    Args:
        num_fewshot: Examples in a prompt; None is what the task says, or 0.
        seed: Of the few-shot draw.
        system_instruction: Stands before every prompt.
        fewshot_as_multiturn: Whether examples are turns of a chat of their own.
        gen_kwargs: Over the generation settings of the task.
    """

    num_fewshot: int | None = None
    seed: int = 1234
    system_instruction: str | None = None
    fewshot_as_multiturn: bool = True
    gen_kwargs: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Prepared:
    """A loaded task with the requests of each document, in document order."""

    name: str
    task: Task
    requests: tuple[tuple[Instance, ...], ...]  # per document, by ``idx``


@dataclass(frozen=True)
class PreparedGroup:
    """A group's members, at least one, and how lm-eval aggregates them."""

    name: str
    members: tuple[Prepared | PreparedGroup, ...]
    rules: tuple[AggMetricConfig, ...] = ()


def prepare(
    spec: Spec,
    include_path: Path | None,
    prompting: Prompting,
    chat_tokenizer: PreTrainedTokenizerBase | None,
) -> Prepared | PreparedGroup:
    """Load tasks and build their requests the way ``lm_eval.simple_evaluate`` does.

    Args:
        spec: The name of a task, group or tag, or a task or group written out.
        include_path: Folder of task files, searched before lm-eval's own tasks.
        prompting: How prompts are made.
        chat_tokenizer: Whose chat template to put the prompts in; ``None`` for plain text.

    Returns:
        The task, or the group with its members; a tag is a group that aggregates nothing.

    Raises:
        UnknownNameError: No task, group or tag has that name.
        EvaluationError: A task cannot be loaded, or cannot be scored item by item.
    """
    import datasets  # noqa: F401  first, so that its log handler gets the real stderr
    import lm_eval.api.task  # noqa: F401

    name = name_of(spec)
    chat = _chat_template(name, chat_tokenizer)
    manager = manager_of(spec, include_path)
    prepared: dict[str, Prepared] = {}
    with _lm_eval_seeds():  # as lm-eval: all are loaded, then the requests of all are built
        with _blamed(name):
            loaded = _loaded(spec, manager)
        _refuse_without_effect(name, loaded["tasks"], prompting)
        for task_name, task in loaded["tasks"].items():
            with _blamed(task_name):
                prepared[task_name] = _prepared(task_name, task, prompting, chat)
    if name in loaded["groups"]:
        return _tree(loaded["groups"][name], prepared)
    if name in prepared:
        return prepared[name]
    if not prepared:
        raise EvaluationError(f"lm-eval tag {name!r} has no task")
    return PreparedGroup(name, tuple(prepared.values()))


def _loaded(spec: Spec, manager: TaskManager) -> TaskDict:
    """Load a spec; a group that is written out is entered in the index for that moment.

    lm-eval would take the keys of such a group for settings of its members, ``task`` among them.
    """
    from lm_eval.tasks._index import Entry, Kind

    if isinstance(spec, str) or "group" not in spec:
        return manager.load([copy.deepcopy(spec)])
    name, index = name_of(spec), manager.task_index
    before = index.get(name)
    index[name] = Entry(name, Kind.GROUP, None, copy.deepcopy(dict(spec)))
    try:
        return manager.load([name])
    finally:
        del index[name]
        if before is not None:
            index[name] = before


def _prepared(
    name: str, task: Task, prompting: Prompting, chat: Callable[..., str] | None
) -> Prepared:
    _refuse_special(name, task)
    _refuse_prompts_of_texts(name, task, prompting, chat)
    if prompting.gen_kwargs and task.get_config("output_type") == "generate_until":
        task.set_config("generation_kwargs", dict(prompting.gen_kwargs), update=True)
    _set_fewshot(name, task, prompting)
    task.build_all_requests(
        apply_chat_template=chat is not None,
        chat_template=chat,
        system_instruction=prompting.system_instruction,
        fewshot_as_multiturn=prompting.fewshot_as_multiturn,
    )
    _refuse_unrepeatable(name, task.instances)
    requests = _by_document(task.instances)
    _refuse_empty(name, requests)
    _read_documents_once(task, [group[0].doc for group in requests])
    return Prepared(name, task, requests)


def _tree(group: Group, prepared: Mapping[str, Prepared]) -> PreparedGroup:
    members = tuple(
        prepared[child.task_name] if hasattr(child, "task_name") else _tree(child, prepared)
        for child in group
    )
    if not members:
        raise EvaluationError(f"lm-eval group {group.name!r} has no task")
    return PreparedGroup(group.name, members, tuple(group.aggregate_metric_list or ()))


@contextmanager
def _blamed(name: str) -> Iterator[None]:
    """Say of what task an error is that lm-eval raises, and hush what it prints."""
    try:
        with hushed():
            yield
    except MergeError:
        raise
    except Exception as error:
        raise EvaluationError(
            f"lm-eval task {name!r} cannot be loaded: {type(error).__name__}: {error}"
        ) from error


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


def _refuse_special(name: str, task: Task) -> None:
    if getattr(task, "UNSAFE_CODE", False):
        raise EvaluationError(f"lm-eval task {name!r} runs code that the model writes; not done")
    if getattr(task, "MULTIMODAL", False):
        raise EvaluationError(f"lm-eval task {name!r} needs images or sound; only text is scored")


def _refuse_without_effect(name: str, tasks: Mapping[str, Task], prompting: Prompting) -> None:
    kinds = {task.get_config("output_type") for task in tasks.values()}
    if prompting.gen_kwargs and "generate_until" not in kinds:
        raise EvaluationError(
            f"lm-eval task {name!r} has gen_kwargs, but generates nothing; omit them"
        )


def _refuse_prompts_of_texts(
    name: str, task: Task, prompting: Prompting, chat: Callable[..., str] | None
) -> None:
    """Refuse what changes prompts where whole texts are scored, which lm-eval ignores."""
    asked = {
        "num_fewshot": prompting.num_fewshot,
        "system_instruction": prompting.system_instruction,
        "apply_chat_template": chat,
    }
    given = [key for key, value in asked.items() if value]
    if given and task.get_config("output_type") == "loglikelihood_rolling":
        raise EvaluationError(
            f"lm-eval task {name!r} scores whole texts and has no prompts; omit {', '.join(given)}"
        )


def _set_fewshot(name: str, task: Task, prompting: Prompting) -> None:
    num_fewshot = prompting.num_fewshot
    fixed = task.get_config("num_fewshot")
    if num_fewshot and fixed == 0:
        raise EvaluationError(
            f"lm-eval task {name!r} sets num_fewshot to 0 in its file, where lm-eval ignores any "
            f"other number; got {num_fewshot}"
        )
    wanted = fixed if num_fewshot is None else num_fewshot
    task.set_config("num_fewshot", wanted or 0)
    task.set_fewshot_seed(prompting.seed)


def _refuse_unrepeatable(name: str, instances: Sequence[Instance]) -> None:
    """Refuse requests that have no one score per item, or another one each time."""
    others = sorted({i.request_type for i in instances} - set(ANSWERABLE))
    if others:
        raise EvaluationError(
            f"lm-eval task {name!r} asks for {', '.join(others)}; "
            f"supported are {', '.join(ANSWERABLE)} and multiple_choice"
        )
    if any(_samples(i.args[1]) for i in instances if i.request_type == "generate_until"):
        raise EvaluationError(
            f"lm-eval task {name!r} draws its answers at random (do_sample or temperature), "
            "so a score could not be repeated; use a greedy variant of it"
        )


def _refuse_empty(name: str, requests: Sequence[Sequence[Instance]]) -> None:
    """Refuse documents without a text: lm-eval gives them the log-likelihood of a perfect model."""
    for place, group in enumerate(requests):
        if any(r.request_type == "loglikelihood_rolling" and not r.args[0] for r in group):
            raise EvaluationError(
                f"lm-eval task {name!r}: document {place} is empty; leave it out of the task's data"
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
