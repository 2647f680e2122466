"""What a model says to the documents of an lm-eval task, for people to look at.

generate_until          what it writes, before any filter
multiple_choice         the choice that the metric takes for its own, with what of the prompt
                        differs between the choices (where these stand in it, as in winogrande)
loglikelihood           what it writes instead, as many tokens as the right continuation has; of
                        several continuations the likeliest
loglikelihood_rolling   nothing: a text is read
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from evaluators.answer import Answer, listed
from evaluators.choice_scores import likeliest
from evaluators.engines.context_window import count_tokens
from evaluators.harness.targets import NoTarget, right_choices, written_answers
from evaluators.protocol import LiveModel

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from evaluators.harness.metrics import Reduction
    from evaluators.harness.requests import Prepared

Pair = tuple[str, str]  # context and continuation


def answers_of(
    prepared: Prepared,
    by: Reduction,
    model: LiveModel,
    which: Sequence[int],
    thoughts: Mapping[str, Any],
) -> list[Answer]:
    """Return one answer per position.

    Args:
        prepared: The task; its documents are not read as rolling texts.
        by: What the metric makes of answers.
        model: The candidate.
        which: Positions of documents.
        thoughts: More generation settings.
    """
    documents = [prepared.requests[i] for i in which]
    if prepared.requests[0][0].request_type == "generate_until":
        asked = [requests[0].args for requests in documents]
        said = model.engine.generate_until([(text, {**how, **thoughts}) for text, how in asked])
        return [
            Answer(requests[0].args[0], _written(prepared.task, requests[0].doc), text)
            for requests, text in zip(documents, said, strict=True)
        ]
    pairs = [r.args for requests in documents for r in requests]
    scored = iter(model.engine.loglikelihood(pairs))
    found = [[next(scored) for _ in requests] for requests in documents]
    if prepared.task.get_config("output_type") == "multiple_choice":
        each = zip(documents, found, strict=True)
        return [_chosen(prepared.task, by, requests, [x for x, _ in y]) for requests, y in each]
    if len(prepared.requests[0]) > 1:
        each = zip(documents, found, strict=True)
        return [_likeliest(prepared.task, requests, [x for x, _ in y]) for requests, y in each]
    greedy = [scores[0][1] for scores in found]
    return _continued(model, [requests[0].args for requests in documents], greedy)


def _written(task: Any, doc: Any) -> str:
    """Return the right answers as ``Answer.right`` has them; none where the task has none."""
    return listed([x for x in written_answers(task, doc) if x.strip()])


def _chosen(
    task: Any, by: Reduction, requests: Sequence[Instance], nats: Sequence[float]
) -> Answer:
    choices = task.doc_to_choice(requests[0].doc)
    count = len(choices)
    prompt, texts = _apart([r.args for r in requests[:count]])
    shown = list(nats[:count])
    if by.metric == "acc_mutual_info":  # each choice beside its question, and alone
        shown = [x - alone for x, alone in zip(shown, nats[count:], strict=True)]
    try:
        right = [texts[k] for k in right_choices(task, by, requests)]
    except NoTarget:
        right = []
    return Answer(prompt, listed(right), texts[likeliest(by.metric, choices, shown)])


def _likeliest(task: Any, requests: Sequence[Instance], nats: Sequence[float]) -> Answer:
    prompt, texts = _apart([r.args for r in requests])
    return Answer(prompt, _written(task, requests[0].doc), texts[nats.index(max(nats))])


def _apart(pairs: Sequence[Pair]) -> tuple[str, list[str]]:
    """Return what all prompts begin with, to the end of a word, and what each pair has after it."""
    contexts = [context for context, _ in pairs]
    shared = contexts[0]
    if len({*contexts}) > 1:
        alike = takewhile(lambda letters: len({*letters}) == 1, zip(*contexts, strict=False))
        shared = re.sub(r"\S+$", "", shared[: sum(1 for _ in alike)])
    return shared, [f"{context[len(shared) :]}{more}".strip() for context, more in pairs]


def _continued(model: LiveModel, pairs: Sequence[Pair], greedy: Sequence[bool]) -> list[Answer]:
    """Return the continuations that are the model's own, and what it writes in place of others."""
    ask = [i for i, (context, _) in enumerate(pairs) if context.strip() and not greedy[i]]
    contexts = [pairs[i][0].rstrip() for i in ask]
    whole = count_tokens(model.tokenizer, [f"{pairs[i][0]}{pairs[i][1]}" for i in ask])
    before = count_tokens(model.tokenizer, contexts)
    lengths = [max(1, a - b) for a, b in zip(whole, before, strict=True)]
    said = model.engine.generate_until(
        [
            (context, {"until": [], "max_gen_toks": length, "do_sample": False})
            for context, length in zip(contexts, lengths, strict=True)
        ]
    )
    written = dict(zip(ask, said, strict=True))
    return [
        Answer(context, right, right if own else written.get(i, ""))
        for i, ((context, right), own) in enumerate(zip(pairs, greedy, strict=True))
    ]
