"""lm-eval tasks -> their requests, built once for all documents and kept apart per document.

Built for the full set because lm-eval draws few-shot examples from one stream: the prompt of
document 50 differs between a full run and a run of document 50 alone.
"""

from __future__ import annotations

import copy
import functools
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluators.chat_prompts import chat_prompt
from evaluators.harness.index import Spec, manager_of, name_of
from evaluators.harness.options import LmEvalOptions
from evaluators.harness.refusals import refuse_requests, refuse_settings, refuse_task
from evaluators.harness.sandbox import install_sandbox
from evaluators.harness.task_files import install_rules
from evaluators.log_control import hushed
from evaluators.thinking import check_args, check_end
from merge_core.errors import EvaluationError, MergeError, TemplateError

if TYPE_CHECKING:
    from lm_eval.api.group import Group
    from lm_eval.api.instance import Instance
    from lm_eval.api.task import Task
    from lm_eval.config.group import AggMetricConfig
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks.manager import TaskDict
    from transformers import PreTrainedTokenizerBase


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
    options: LmEvalOptions, folder: Path, tokenizer: PreTrainedTokenizerBase
) -> Prepared | PreparedGroup:
    """Load tasks and build their requests the way ``lm_eval.simple_evaluate`` does.

    Args:
        options: Names what to load and says how prompts are made.
        folder: Where the path of the user's task files starts, which win over lm-eval's own.
        tokenizer: Whose chat template to put the prompts in, if that is asked for.

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
    name = name_of(options.task)
    chat = _chat_template(name, tokenizer, options) if options.apply_chat_template else None
    check_end(f"lm-eval task {name!r}", tokenizer, options.think_end_token)
    own_files = folder / options.include_path if options.include_path else None
    manager = manager_of(options.task, own_files)
    prepared: dict[str, Prepared] = {}
    with _lm_eval_seeds():  # as lm-eval: all are loaded, then the requests of all are built
        with _blamed(name):
            loaded = _loaded(options.task, manager)
        kinds = {task.get_config("output_type") for task in loaded["tasks"].values()}
        refuse_settings(name, kinds, options)
        for task_name, task in loaded["tasks"].items():
            with _blamed(task_name):
                prepared[task_name] = _prepared(task_name, task, options, chat)
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
    name: str, task: Task, options: LmEvalOptions, chat: Callable[..., str] | None
) -> Prepared:
    changes = ("num_fewshot", "system_instruction", "apply_chat_template")
    refuse_task(name, task, [key for key in changes if getattr(options, key)])
    if options.gen_kwargs and task.get_config("output_type") == "generate_until":
        task.set_config("generation_kwargs", dict(options.gen_kwargs), update=True)
    fixed = task.get_config("num_fewshot")
    if options.num_fewshot and fixed == 0:
        raise EvaluationError(
            f"lm-eval task {name!r} sets num_fewshot to 0 in its file, where lm-eval ignores any "
            f"other number; got {options.num_fewshot}"
        )
    wanted = fixed if options.num_fewshot is None else options.num_fewshot
    task.set_config("num_fewshot", wanted or 0)
    task.set_fewshot_seed(options.seed)
    task.build_all_requests(
        apply_chat_template=chat is not None,
        chat_template=chat,
        system_instruction=options.system_instruction,
        fewshot_as_multiturn=options.fewshot_as_multiturn,
    )
    found: dict[int, list[Instance]] = defaultdict(list)
    for instance in sorted(task.instances, key=lambda x: (x.doc_id, x.idx)):
        found[instance.doc_id].append(instance)
    requests = tuple(tuple(document) for document in found.values())
    refuse_requests(name, requests)
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
        # with a StopIteration as its cause contextlib would take ours for Python's own and drop it
        cause = None if isinstance(error, StopIteration) else error
        raise EvaluationError(
            f"lm-eval task {name!r} cannot be loaded: {type(error).__name__}: "
            f"{' '.join(str(error).split())}"
        ) from cause


def _chat_template(
    name: str, tokenizer: PreTrainedTokenizerBase, options: LmEvalOptions
) -> Callable[..., str]:
    """Return lm-eval's own way to fill a chat template, which needs no model."""
    if not tokenizer.chat_template:
        raise EvaluationError(
            f"lm-eval task {name!r} has apply_chat_template, but the tokenizer has no chat template"
        )
    args = dict(options.chat_template_args or {})
    check_args(f"lm-eval task {name!r}", tokenizer, args)
    import jinja2
    from lm_eval.models.huggingface import HFLM

    def filled(turns: list[dict[str, str]], *, tokenize: bool, **settings: Any) -> str:
        try:
            return chat_prompt(tokenizer, turns, **settings)
        except TemplateError as error:
            if not error.refused:
                raise EvaluationError(
                    f"lm-eval task {name!r}: its chat template: {error}"
                ) from error
            raise jinja2.TemplateError(str(error)) from error  # lm-eval leaves out the system turn

    stand_in = SimpleNamespace(apply_chat_template=filled)
    return functools.partial(
        HFLM.apply_chat_template, SimpleNamespace(tokenizer=stand_in, chat_template_args=args)
    )


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
