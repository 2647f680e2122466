"""What lm-eval aggregates -> one score per item, such that the task's number is lm-eval's.

    x_i   score of an item       d_i   its size: words or bytes of a document, 1 elsewhere
    task's number = reported(sum d_i x_i / sum d_i)

    aggregation           lm-eval keeps      x_i                       d_i    reported
    mean                  a number           the number                1      as it is
    perplexity            nats               -nats                     1      exp
    weighted_perplexity   (nats, size)       -nats / size              size   exp
    bits_per_byte         (nats, size)       -nats / size / ln 2       size   as it is
    brier_score           (right, p)         sum (p_k - [k = right])^2   1    as it is

Perplexities add up as nats, not as perplexities: ``exp`` of a mean is what lm-eval reports, and a
mean is what subsets, races and intervals need. Others (BLEU, F1 of a whole set, Matthews'
correlation, medians) are no mean of anything per item and are refused.

Tasks with choices of which one is right have ``margin`` and ``probability`` beside lm-eval's own
metrics, as the evaluator ``multiple_choice`` has them: see ``graded``. lm-eval has no graded metric
for them that is a mean.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluators.choice_scores import GRADED
from merge_core.errors import EvaluationError, NonFiniteError

if TYPE_CHECKING:
    from evaluators.harness.requests import Prepared

_WEIGHTED = ("weighted_perplexity", "bits_per_byte")
_BRIER = "brier_score"


@dataclass(frozen=True)
class Reduction:
    """How one metric of a task becomes scores."""

    task: str
    metric: str
    aggregation: str  # lm-eval's name, one of the table above
    sizes: tuple[float, ...] | None  # one per item; None where all count the same

    @property
    def reported(self) -> Callable[[float], float]:
        """The increasing function from the mean of the items to lm-eval's number."""
        return _exp if self.aggregation.endswith("perplexity") else float

    def score(self, metrics: dict[str, Any]) -> float:
        """Return an item's score from what the task's ``process_results`` gave.

        Raises:
            EvaluationError: The metric is missing or no number.
            NonFiniteError: It is NaN or infinite.
        """
        value = metrics.get(self.metric)
        if isinstance(value, tuple) and len(value) == 2:
            value = self._of_two(*value)
        if not isinstance(value, (numbers.Real, np.bool_)):
            raise EvaluationError(
                f"{self.task}: metric {self.metric!r} should be a number for every item, "
                f"got {value!r}; the task gives {', '.join(metrics) or 'nothing'}; choose another "
                "one with `metric:`"
            )
        score = -float(value) if self.aggregation == "perplexity" else float(value)
        if not math.isfinite(score):
            raise NonFiniteError(f"{self.task}: metric {self.metric!r} of an item is {score}")
        return score

    def _of_two(self, first: Any, second: Any) -> float | None:
        """Return the score of an item of which lm-eval keeps two things, None where it does not."""
        if self.aggregation in _WEIGHTED:
            return float(
                -first / second / (1.0 if self.aggregation == _WEIGHTED[0] else math.log(2))
            )
        return _brier(first, second) if self.aggregation == _BRIER else None


def metrics_of(prepared: Prepared) -> list[str]:
    """Return the names of a task's metrics: lm-eval's own ones, then perhaps graded ones."""
    task = prepared.task
    own = list(task.aggregation())
    special = task.get_config("process_results") or getattr(task, "multiple_target", 0)
    chosen = task.get_config("output_type") == "multiple_choice" and not special
    return list(dict.fromkeys([*own, *GRADED])) if own and chosen else own


def graded(metric: str, task: Any, doc: Any, nats: Sequence[float]) -> float:
    """Return how much the right choice of a document is preferred, by a metric of ``GRADED``.

    ``nats`` are log-probabilities of its choices; what follows them, without the question, is left.

    Raises:
        EvaluationError: The document has no such choice, or no other one.
    """
    choices = task.doc_to_choice(doc)
    right = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    place = choices.index(right) if isinstance(right, str) and right in choices else right
    if not isinstance(place, int) or not 0 <= place < len(choices) or len(choices) < 2:
        raise EvaluationError(
            f"metric {metric!r} needs one right choice and another one, got {right!r} of {choices}"
        )
    return GRADED[metric](nats[: len(choices)], place)


def _brier(right: Any, chances: Sequence[float]) -> float | None:
    """Return the squared distance of the choices' probabilities from what is right."""
    if not isinstance(right, int) or not 0 <= right < len(chances):
        return None
    return float(sum((p - (k == right)) ** 2 for k, p in enumerate(chances)))


def _exp(x: float) -> float:
    return math.exp(x) if x < 709 else math.inf  # math.exp raises where the result is too large


def reduction(prepared: Prepared, metric: str) -> Reduction:
    """Say how a metric of a task becomes scores.

    Raises:
        EvaluationError: The metric has no value per item, or cannot be computed here.
    """
    task = prepared.task
    if metric not in task.aggregation():
        for requests in prepared.requests:
            graded(metric, task, requests[0].doc, [0.0] * len(requests))
        return Reduction(prepared.name, metric, "mean", None)
    known: dict[str, Any] = getattr(task, "_metric_fn_list", {})
    absent = [name for name, fn in known.items() if fn is None]
    if absent and task.config.process_results is None:
        raise EvaluationError(
            f"lm-eval task {prepared.name!r} has the metric {', '.join(absent)}, which neither "
            "lm-eval nor the `evaluate` package has here; code of the hub, or of a folder of that "
            "name, is looked for only with --trust-tasks"
        )
    kinds = {name: _kind(prepared, wanted) for name, wanted in task.aggregation().items()}
    kind = kinds[metric]
    if kind is None:
        wanted = task.aggregation()[metric]
        name = getattr(wanted, "__name__", repr(wanted))
        others = ", ".join(other for other, found in kinds.items() if found)
        advice = f"choose {others} with `metric:`" if others else "it has no other metric either"
        raise EvaluationError(
            f"metric {metric!r} of lm-eval task {prepared.name!r} is no mean over items (it "
            f"aggregates by {name}), so items cannot be scored one by one; {advice}"
        )
    sizes = _sizes(prepared, metric) if kind in _WEIGHTED else None
    return Reduction(prepared.name, metric, kind, sizes)


def _kind(prepared: Prepared, aggregation: Any) -> str | None:
    """Return lm-eval's name of an aggregation, None where it is no mean of anything per item."""
    from lm_eval.api import metrics

    rolling = prepared.task.get_config("output_type") == "loglikelihood_rolling"
    names = ("mean", "perplexity", _BRIER, *(_WEIGHTED if rolling else ()))
    return next((name for name in names if aggregation is getattr(metrics, name)), None)


def _sizes(prepared: Prepared, metric: str) -> tuple[float, ...]:
    """Return what the task divides by, document by document; no answer has a say in it."""
    found: list[float] = []
    for place, requests in enumerate(prepared.requests):
        value = prepared.task.process_results(requests[0].doc, [0.0]).get(metric)
        size = value[1] if isinstance(value, tuple) and len(value) == 2 else value
        if not isinstance(size, numbers.Real) or not 0 < float(size) < math.inf:
            raise EvaluationError(
                f"lm-eval task {prepared.name!r}: document {place} has the size {size!r} for "
                f"metric {metric!r}, expected words or bytes above 0; leave it out"
            )
        found.append(float(size))
    return tuple(found)


def chance(prepared: Prepared, metric: str) -> float | None:
    """Return the score of guessing; None where that is not known.

    Choices are guessed with equal probability, the mean over documents; free answers are never
    right by chance.
    """
    task = prepared.task
    kind = task.get_config("output_type")
    if kind == "generate_until":
        return 0.0
    own = metric in task.aggregation()
    known = metric.startswith("acc") if own else metric == "probability"
    if kind != "multiple_choice" or not known or getattr(task, "multiple_target", 0):
        return None
    listed: dict[str, Any] = getattr(task, "_metric_fn_list", {})
    asked = 2 if "acc_mutual_info" in listed else 1  # each choice with and without its question
    return sum(asked / len(requests) for requests in prepared.requests) / len(prepared.requests)
