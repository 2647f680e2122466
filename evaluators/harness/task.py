"""lm-eval tasks, item by item: prompts, filters and metrics are lm-eval's; nothing is done twice.

Not used, on purpose: ``evaluate`` (it averages, and rebuilds every prompt), ``samples=``, the
request cache and the response cache (each gives wrong numbers without a word when weights or
subsets change), bootstrap.

What is guaranteed: an item's value is what ``lm_eval.simple_evaluate`` gives with the same model
and seed, within the rounding that ``engines/hf/engine.py`` states; a score of right or wrong
differs only where two answers are that close. A perplexity's items are nats (see ``metrics``). The
same block gives the same bits in whatever order it is asked for, and in float32 on a CPU with one
thread so does every other block.

lm-eval cuts what is longer than the model's window, with a line in its log. Here such an item
fails, unless the score entry says ``too_long: cut``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluators.answer import Answer
from evaluators.choice_scores import GRADED
from evaluators.cluster_keys import Clusters, clusters_of, facts_of
from evaluators.engines.context_window import check_fit, count_tokens, too_long, window_of
from evaluators.engines.stopping import most_tokens
from evaluators.harness.answers import answers_of
from evaluators.harness.fingerprint import fingerprint_of
from evaluators.harness.metrics import Reduction, chance, graded, metrics_of, reduction
from evaluators.harness.public_data import notice_of, public_source
from evaluators.harness.refusals import ANSWERABLE
from evaluators.harness.requests import Prepared
from evaluators.harness.score_range import Range, range_of
from evaluators.harness.some_documents import with_metric
from evaluators.harness.targets import Ending, NoTarget, targets_of
from evaluators.protocol import Evaluator, LiveModel, ScoreVector, TaskFacts, items_of
from evaluators.target import Target
from evaluators.thinking import UNKNOWN, thoughts_of
from merge_core.errors import EvaluationError, ItemError, MergeError, UnknownNameError, hint

if TYPE_CHECKING:
    from lm_eval.api.filter import FilterEnsemble
    from lm_eval.api.instance import Instance


class LmEvalTask(Evaluator):
    """One lm-eval task with one metric and one filter. See ``protocol.Evaluator``.

    ``filter`` is that filter's name; ``unit`` is the metric's.

    Args:
        prepared: The task with its requests.
        metric, filter: Their names; None is the task's first.
        chosen: What else was chosen, as JSON values: ``too_long``, and how prompts were made.
        ending: Tells what ends a right answer, for ``targets``; asks the tokenizer.
        cluster: The key of a document of what it shares with others, see ``cluster_keys``.

    Raises:
        UnknownNameError: The metric or filter does not exist.
        EvaluationError: The task cannot be scored item by item, or a document lacks the key.
    """

    def __init__(
        self,
        prepared: Prepared,
        metric: str | None,
        filter: str | None,
        chosen: Mapping[str, Any],
        ending: Callable[[], Ending],
        cluster: str | None = None,
    ) -> None:
        self._ending = ending
        self._cut = chosen["too_long"] == "cut"
        self._thoughts = thoughts_of(chosen.get("think_end_token"))
        unit = _chosen("metric", metric, metrics_of(prepared), prepared.name)
        filters = {f.name: f for f in prepared.task._filters}
        self._filter = filters[_chosen("filter", filter, list(filters), prepared.name)]
        self.filter = self._filter.name
        _refuse_filter(prepared.name, self._filter)
        self._prepared = prepared = with_metric(prepared, self._filter, unit)
        self._reduction = reduction(prepared, unit)
        scores = range_of(prepared, self._reduction, self._filter)
        super().__init__(_facts(prepared, self._reduction, scores, cluster))
        self._lengths: dict[int, tuple[int, int]] = {}  # position -> tokens of prompt, of answer
        facts = {"metric": self.unit, "filter": self.filter, **chosen}
        self._fingerprint = fingerprint_of(prepared, facts)

    def fingerprint(self) -> str:
        """Return a JSON object: versions, choices, and hashes of requests, targets and settings."""
        return self._fingerprint

    def score(self, model: LiveModel, which: Sequence[int]) -> ScoreVector:
        """Score some items. See ``protocol.Evaluator.score``; nan where an item is too long."""
        reasons = self.note_unfit(model, which)
        # Fresh copies: an Instance collects its answers, and `which` may repeat an item.
        asked = [
            [replace(r, resps=[], filtered_resps={}) for r in self._prepared.requests[i]]
            for i in which
            if i not in reasons
        ]
        try:
            self._answer([r for requests in asked for r in requests], model)
            values = iter([self._value(requests) for requests in asked])
        except MergeError:
            raise
        except Exception as error:
            raise EvaluationError(f"{self.task}: {type(error).__name__}: {error}") from error
        scores = [np.nan if i in reasons else next(values) for i in which]
        return np.array(scores, dtype=np.float64)

    def answers(self, model: LiveModel, which: Sequence[int]) -> list[Answer]:
        """Return what a model says to documents. See ``protocol.Evaluator.answers``."""
        if self._prepared.requests[0][0].request_type == "loglikelihood_rolling":
            raise self.no_answers("its documents are read, and nothing is said to them")
        check_fit(self, model, which)
        try:
            return answers_of(self._prepared, self._reduction, model, which, self._thoughts)
        except MergeError:
            raise
        except Exception as error:  # whatever a task's own code does
            raise EvaluationError(f"{self.task}: {type(error).__name__}: {error}") from error

    def targets(self, which: Sequence[int]) -> list[Target]:
        """Return what documents want said. See ``protocol.Evaluator.targets``."""
        self.check_positions(which)
        writes = self._prepared.requests[0][0].request_type == "generate_until"
        if self._thoughts and writes:
            raise self.no_targets(UNKNOWN)
        every = self._targets
        return [every[i] for i in which]

    def prompts(self, which: Sequence[int]) -> list[str]:
        """Return what the first request of each document begins with, or its whole text."""
        self.check_positions(which)
        return [_start(self._prepared.requests[i][0]) for i in which]

    def generation(self, which: Sequence[int]) -> list[Mapping[str, Any] | None]:
        """Return how answers are written. See ``protocol.Evaluator.generation``."""
        self.check_positions(which)
        first = [self._prepared.requests[i][0] for i in which]
        written = [r.request_type == "generate_until" for r in first]
        return [
            {**r.args[1], **self._thoughts} if writes else None
            for r, writes in zip(first, written, strict=True)
        ]

    @functools.cached_property
    def _targets(self) -> tuple[Target, ...]:
        try:
            return targets_of(self._prepared, self._reduction, self._ending())
        except NoTarget as reason:
            raise self.no_targets(str(reason)) from reason

    def _answer(self, requests: list[Instance], model: LiveModel) -> None:
        for kind in ANSWERABLE:
            some = [r for r in requests if r.request_type == kind for _ in range(r.repeats)]
            if some:
                whole = kind == "loglikelihood_rolling"  # its arguments are one text
                asked = [r.args[0] if whole else r.args for r in some]
                if kind == "generate_until":
                    asked = [(prompt, {**how, **self._thoughts}) for prompt, how in asked]
                answers = getattr(model.engine, kind)(asked)
                for request, answer in zip(some, answers, strict=True):
                    request.resps.append(answer)
        if requests:
            try:
                self._filter.apply(requests)
            except ItemError as error:
                raise ItemError(f"{self.task}: filter {self.filter!r}: {error}") from error

    def _value(self, requests: list[Instance]) -> float:
        answers = [r.filtered_resps[self.filter] for r in requests]
        task, doc = self._prepared.task, requests[0].doc
        if self.unit not in task.aggregation():
            return graded(self.unit, task, doc, [nats for nats, _ in answers])
        return self._reduction.score(task.process_results(doc, answers))

    def unfit(self, model: LiveModel, which: Sequence[int]) -> dict[int, str]:
        """Return why items do not fit the window; rolling texts are read in windows and do.

        With ``too_long: cut`` only what comes after the prompt must fit.
        """
        window = window_of(model)
        new = [i for i in dict.fromkeys(which) if i not in self._lengths]
        some = [(i, r) for i in new for r in self._prepared.requests[i]]
        kinds = [(i, r) for i, r in some if r.request_type != "loglikelihood_rolling"]
        asked = [(i, *_prompt(r, self._cut)) for i, r in kinds]
        counts = count_tokens(model.tokenizer, [prompt for _, prompt, _ in asked])
        self._lengths.update(dict.fromkeys(new, (0, 0)))
        for (i, _, answer), tokens in zip(asked, counts, strict=True):
            self._lengths[i] = max(self._lengths[i], (tokens, answer), key=sum)
        reasons = {i: too_long(*self._lengths[i], window) for i in which}
        more = "" if self._cut else "; or say `too_long: cut`, as lm-eval does"
        return {i: f"{reason}{more}" for i, reason in reasons.items() if reason}


def _facts(prepared: Prepared, by: Reduction, scores: Range, cluster: str | None) -> TaskFacts:
    better = {**dict.fromkeys(GRADED, True), **prepared.task.higher_is_better()}
    documents = [requests[0].doc for requests in prepared.requests]
    return TaskFacts(
        task=prepared.name,
        unit=by.metric,
        higher_is_better=by.aggregation == "mean" and bool(better[by.metric]),
        items=items_of(prepared.name, documents),
        sizes=by.sizes,
        reported=by.reported,
        chance=chance(prepared, by.metric),
        documents=tuple(item.id for item in items_of("", documents)),
        notice=notice_of(prepared.task),
        bounds=scores.bounds,
        binary=scores.binary,
        source=public_source(prepared.task),
        **facts_of(_clusters(prepared, documents, cluster)),
    )


def _clusters(prepared: Prepared, documents: Sequence[Any], key: str | None) -> Clusters | None:
    ids = [requests[0].doc_id for requests in prepared.requests]
    source = prepared.task.config.dataset_path or prepared.name
    return clusters_of(
        documents,
        key,
        source=str(source),
        place=lambda i: f"lm-eval task {prepared.name!r}: document {ids[i]}",
    )


def _refuse_filter(task: str, chosen: FilterEnsemble) -> None:
    """Make a filter's parts once, which lm-eval does when the first answers are there."""
    for part in chosen.filters:
        try:
            part()
        except Exception as error:  # whatever a part makes of its settings
            raise EvaluationError(
                f"lm-eval task {task!r}: filter {chosen.name!r} cannot be made: "
                f"{type(error).__name__}: {error}"
            ) from error


def _start(request: Instance) -> str:
    pair = request.request_type == "loglikelihood"
    return str(request.args[0] or (request.args[1] if pair else ""))


def _prompt(request: Instance, cut: bool) -> tuple[str, int]:
    """Return what must fit the window, and how many tokens its answer may have.

    Where a prompt is ``cut``, one token of it must be left.
    """
    if request.request_type == "generate_until":
        most = most_tokens(request.args[1])
        return ("", most + 1) if cut else (request.args[0], most)
    return request.args[1] if cut else "".join(request.args), 0


def _chosen(kind: str, wanted: str | None, known: list[str], task: str) -> str:
    """Return the wanted name, or the first one that the task lists."""
    if not known:
        raise EvaluationError(f"lm-eval task {task!r} declares no {kind}")
    if wanted is not None and wanted not in known:
        raise UnknownNameError(
            f"lm-eval task {task!r} has no {kind} {wanted!r}{hint(wanted, known)}; "
            f"known: {', '.join(known)}"
        )
    return known[0] if wanted is None else wanted
