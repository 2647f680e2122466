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
from evaluators.harness.refusals import (
    refuse_empty,
    refuse_prompts_of_texts,
    refuse_special,
    refuse_unrepeatable,
    refuse_without_generation,
)
from evaluators.harness.sandbox import install_sandbox
from evaluators.harness.task_files import install_rules
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

    install_sandbox()
    install_rules()
    name = name_of(spec)
    chat = _chat_template(name, chat_tokenizer)
    manager = manager_of(spec, include_path)
    prepared: dict[str, Prepared] = {}
    with _lm_eval_seeds():  # as lm-eval: all are loaded, then the requests of all are built
        with _blamed(name):
            loaded = _loaded(spec, manager)
        if prompting.gen_kwargs:
            refuse_without_generation(name, loaded["tasks"].values())
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
    refuse_special(name, task)
    changes = {
        "num_fewshot": prompting.num_fewshot,
        "system_instruction": prompting.system_instruction,
        "apply_chat_template": chat,
    }
    refuse_prompts_of_texts(name, task, [key for key, value in changes.items() if value])
    if prompting.gen_kwargs and task.get_config("output_type") == "generate_until":
        task.set_config("generation_kwargs", dict(prompting.gen_kwargs), update=True)
    _set_fewshot(name, task, prompting)
    task.build_all_requests(
        apply_chat_template=chat is not None,
        chat_template=chat,
        system_instruction=prompting.system_instruction,
        fewshot_as_multiturn=prompting.fewshot_as_multiturn,
    )
    refuse_unrepeatable(name, task.instances)
    requests = _by_document(task.instances)
    refuse_empty(name, requests)
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
