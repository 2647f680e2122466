"""Rows of a user's own benchmark -> prompts, made once for all rows.

A few-shot draw depends on the seed, the row and the pool of examples, not on the other rows that
are scored: leaving a row out changes no other prompt (unless it was an example). A row is never an
example of itself, nor is a row of the same content.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from evaluators.chat_prompts import chat_prompt
from evaluators.cluster_keys import MEANING, Clusters, clusters_of, facts_of
from evaluators.json_rows import Row, read_rows
from evaluators.protocol import TaskFacts, Tokenizer, canonical, items_of
from evaluators.thinking import TemplateArgs, check_args
from merge_core import templates
from merge_core.errors import EvaluationError, TemplateError
from merge_core.json_text import BYTES
from merge_core.validation import File, StrictModel

SEPARATOR = "\n\n"  # between the system prompt, the examples and the question, as in lm-eval

Render = Callable[..., str]


class PromptOptions(StrictModel):
    """The keys that decide a prompt."""

    file: File = Field(description="JSON lines, one item a line, relative to the study file")
    prompt: str = Field(description="the question: a Jinja template over the keys of a line")
    system: str | None = Field(None, description="what stands before all prompts")
    apply_chat_template: bool = Field(
        False, description="put prompts in the tokenizer's chat template"
    )
    chat_template_args: TemplateArgs = None
    delimiter: str | None = Field(
        None, description="between a prompt and its answer; a blank, in a chat nothing"
    )
    num_fewshot: int = Field(0, ge=0, description="examples in a prompt")
    fewshot_file: File | None = Field(
        None, description="JSON lines that examples are drawn from; `file` itself"
    )
    seed: int = Field(1234, ge=0, description="seed of the few-shot draw")
    cluster: str | None = Field(None, description=MEANING)


@dataclass(frozen=True)
class Prompts:
    """The rows of a benchmark and what the model is asked; both tuples go together."""

    task: str
    rows: tuple[Row, ...]
    texts: tuple[str, ...]
    clusters: Clusters | None

    def facts(self, unit: str, **more: Any) -> TaskFacts:
        """Return what is known of the task; ``more``: see ``TaskFacts``."""
        contents = [row.values for row in self.rows]
        return TaskFacts(
            task=self.task,
            unit=unit,
            items=items_of(self.task, contents),
            documents=tuple(item.id for item in items_of("", contents)),
            source="",
            **facts_of(self.clusters),
            **more,
        )


def prepare(
    options: PromptOptions, folder: Path, tokenizer: Tokenizer, answer_of: Callable[[Row], str]
) -> Prompts:
    """Read a benchmark and make its prompts.

    Args:
        options: What the study file says.
        folder: Where its relative paths start.
        tokenizer: Asked for its chat template.
        answer_of: The right answer of a row, for examples.

    Raises:
        EvaluationError: A file, a row or the template does not do, a row lacks the key of its
            cluster, there are too few examples, or the tokenizer has no chat template.
    """
    if options.apply_chat_template and not tokenizer.chat_template:
        raise EvaluationError(
            f"{options.file} is to be asked with apply_chat_template, but the tokenizer has no "
            "chat template"
        )
    check_args(options.file, tokenizer, options.chat_template_args)
    file = folder / options.file
    rows = read_rows(file)
    render = template(options.prompt, "prompt")
    draw = _shots(options, folder, rows)

    def text(row: Row) -> str:
        question = render(row.place, row.values)
        if not question:
            raise EvaluationError(f"{row.place}: the prompt is empty")
        shots = [(render(shot.place, shot.values), answer_of(shot)) for shot in draw(row)]
        if not options.apply_chat_template:
            return _plain(options, shots, question)
        turns = _turns(options, shots, question)
        try:
            return chat_prompt(
                tokenizer, turns, add_generation_prompt=True, **(options.chat_template_args or {})
            )
        except TemplateError as error:  # such as a role that it refuses
            raise EvaluationError(
                f"{row.place}: the tokenizer's chat template cannot be filled: {error}"
            ) from error

    clusters = clusters_of(
        [row.values for row in rows], options.cluster, place=lambda i: rows[i].place
    )
    return Prompts(file.stem, rows, _bounded(rows, text), clusters)


def _bounded(rows: Sequence[Row], text: Callable[[Row], str]) -> tuple[str, ...]:
    """Return the prompts of all rows, which have a bounded length together."""
    texts, size = [], 0
    for row in rows:
        texts.append(text(row))
        size += len(texts[-1])
        if size > BYTES:
            raise EvaluationError(
                f"{row.place}: the prompts up to here have more than {BYTES} characters; ask for "
                "fewer examples, or shorten the prompt"
            )
    return tuple(texts)


def template(text: str, name: str) -> Render:
    """Compile a Jinja template; it is called with a place, for messages, and its variables.

    A study file can neither run code nor go on for ever; an unknown variable is an error.

    Raises:
        EvaluationError: It is no template; or, when called, it cannot be filled.
    """
    try:
        templates.check(text)
    except TemplateError as error:
        raise EvaluationError(f"{name}: {error}") from error

    def render(place: str, variables: Mapping[str, Any]) -> str:
        try:
            return templates.fill(text, variables)
        except TemplateError as error:
            raise EvaluationError(
                f"{place}: {name} cannot be filled: {error}; the row has {', '.join(variables)}"
            ) from error

    return render


def _plain(options: PromptOptions, shots: Sequence[tuple[str, str]], question: str) -> str:
    before = [options.system] if options.system else []
    examples = [f"{asked}{gap(options, asked)}{answer}" for asked, answer in shots]
    return SEPARATOR.join([*before, *examples, question])


def _turns(
    options: PromptOptions, shots: Sequence[tuple[str, str]], question: str
) -> list[dict[str, str]]:
    said = [("system", options.system)] if options.system else []
    for asked, answer in shots:
        said += [("user", asked), ("assistant", answer)]
    return [{"role": role, "content": text} for role, text in (*said, ("user", question))]


def gap(options: PromptOptions, prompt: str) -> str:
    """Return what stands between a prompt and its answer.

    ``delimiter``, where it is given; else nothing in a chat or after a blank, a blank elsewhere.
    """
    if options.delimiter is not None:
        return options.delimiter
    return "" if options.apply_chat_template or prompt[-1:].isspace() else " "


def _shots(options: PromptOptions, folder: Path, rows: Sequence[Row]) -> Callable[[Row], list[Row]]:
    wanted = options.num_fewshot
    if not wanted:
        return lambda row: []
    source = read_rows(folder / options.fewshot_file) if options.fewshot_file else rows
    pool = {canonical(row.values): row for row in source}  # twins count once
    names = list(pool)

    def draw(row: Row) -> list[Row]:
        own = canonical(row.values)
        stream = random.Random(f"{options.seed}\x1f{own.decode('utf-8', 'surrogatepass')}")
        drawn = stream.sample(names, min(wanted + 1, len(names)))  # one may be the row itself
        others = [name for name in drawn if name != own][:wanted]
        if len(others) < wanted:
            raise EvaluationError(
                f"{row.place}: num_fewshot is {wanted}, but {options.fewshot_file or options.file} "
                f"has {len(others)} other rows"
            )
        return [pool[name] for name in others]

    return draw
