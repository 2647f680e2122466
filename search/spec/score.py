"""Sections ``score`` and ``aggregate`` of a study file: which tasks, and what number they make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from evaluators.registry import EVALUATORS, EvaluatorPlugin
from merge_core.errors import Problems, shown
from merge_core.validation import ReadBy, StrictModel, Words, failed, one_of, problems_in

Kind = Literal["mean", "min", "geometric_mean", "apart"]


def _plugin(name: Any, _: Any = None) -> EvaluatorPlugin:
    if name not in EVALUATORS.names():
        raise ValueError(one_of(name, EVALUATORS.names()))
    return EVALUATORS.get(name)  # type: ignore[no-any-return]


class Score(StrictModel):
    """One task of the study.

    Args:
        plugin: Of the evaluator.
        weight: Of the task in the mean; only ratios matter.
        chance: The score of guessing, which counts as 0; ``auto``: what the task says it is.
        steer: The metric that scores the search pool, if not that of ``options``.
        options: An object of ``plugin.options``, made of the other keys of the entry.
    """

    plugin: Annotated[EvaluatorPlugin, ReadBy(_plugin)] = Field(validation_alias="evaluator")
    weight: Annotated[float, Field(gt=0), Words("a number above 0")] = 1.0
    chance: Annotated[
        Annotated[float, Field(ge=0, lt=1)] | Literal["auto"],
        Words("a number of at least 0 and below 1, or 'auto'"),
    ] = 0.0
    steer: Annotated[str | None, Words("a metric")] = None
    options: Any = None


OF_EVERY_ENTRY = [key for key in Score.declared() if key != "options"]


def read_entry(entry: Any, _: Any = None) -> Score:
    """Read one task.

    Raises:
        ValidationError: It breaks rules; all of them.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"expected {{evaluator, ...}}, got {shown(entry)}")
    own = {"evaluator": None, **{key: entry[key] for key in OF_EVERY_ENTRY if key in entry}}
    options = {key: entry[key] for key in entry if key not in own}
    problems = problems_in(own, Score)
    if own["evaluator"] in EVALUATORS.names():
        plugin = _plugin(own["evaluator"])
        problems += [(p.path, p.rule) for p in plugin.problems(options)]
        if "steer" in own:
            problems += _steering_problems(plugin, options, own["steer"])
    if problems:
        raise failed(problems)
    options_of = Score(**own).plugin.options
    return Score(**own).model_copy(update={"options": options_of(**options)})


def _steering_problems(plugin: EvaluatorPlugin, options: dict[str, Any], metric: Any) -> Problems:
    """Return why a metric cannot steer, in the words of the evaluator's own ``metric``."""
    if not isinstance(metric, str):
        return [("steer", f"expected a metric, got {shown(metric)}")]
    if "metric" not in plugin.options.model_fields:
        return [("steer", f"evaluator {plugin.name!r} has no `metric` to choose; omit `steer`")]
    found = plugin.problems({**options, "metric": metric})
    return [("steer", p.rule) for p in found if p.path == "metric"]


def _distinct(scores: list[Score]) -> tuple[Score, ...]:
    options = [score.options for score in scores]
    twice = [i for i, found in enumerate(options) if found in options[:i]]
    if twice:
        raise failed(((i,), "the same task stands here twice") for i in twice)
    return tuple(scores)


Scores = Annotated[
    list[Annotated[Score, ReadBy(read_entry)]],
    Field(min_length=1),
    AfterValidator(_distinct),
    Words("a list of tasks"),
]


def refusal(kind: Kind, scores: Sequence[Score]) -> str:
    """Return why tasks cannot become one number in this way, or nothing."""
    if kind == "min" and len({score.weight for score in scores}) > 1:
        return "'min' is the worst task, whatever its weight; omit the weights, or use 'mean'"
    if kind == "geometric_mean" and any(score.steer for score in scores):
        rule = "'geometric_mean' needs scores above 0, which what steers may not have; omit `steer`"
        return f"{rule}, or use 'mean' or 'min'"
    if kind == "apart" and len(scores) < 2:
        return "'apart' needs at least two entries under `score`"
    return ""
