"""Sections ``score`` and ``aggregate`` of a study file: which tasks, and what number they make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from evaluators.registry import EVALUATORS, EvaluatorPlugin
from merge_core.errors import Problem, Problems, hint, join, shown
from merge_core.validation import StrictModel, Words, failed, one_of, read, read_by

Kind = Literal["mean", "min", "geometric_mean", "apart"]


def _plugin(name: Any, path: str, problems: Problems) -> EvaluatorPlugin | None:
    if name in EVALUATORS.names():
        return EVALUATORS.get(name)  # type: ignore[no-any-return]
    problems.append((path, one_of(name, EVALUATORS.names())))
    return None


class Score(StrictModel):
    """One task of the study.

    Args:
        plugin: Of the evaluator.
        weight: Of the task in the mean; only ratios matter.
        chance: The score of guessing, which counts as 0; ``auto``: what the task says it is.
        steer: The metric that scores the search pool, if not that of ``options``.
        options: An object of ``plugin.options``, made of the other keys of the entry.
    """

    plugin: Annotated[EvaluatorPlugin, read_by(_plugin)] = Field(validation_alias="evaluator")
    weight: Annotated[float, Field(gt=0), Words("a number above 0")] = 1.0
    chance: Annotated[
        Annotated[float, Field(ge=0, lt=1)] | Literal["auto"],
        Words("a number of at least 0 and below 1, or 'auto'"),
    ] = 0.0
    steer: Annotated[str | None, Words("a metric")] = None
    options: Any = None


OF_EVERY_ENTRY = [key for key in Score.declared() if key != "options"]


def read_entry(entry: Any, path: str, problems: Problems) -> Score | None:
    """Read one task; or return None and add what is wrong with it to ``problems``."""
    if not isinstance(entry, dict):
        problems.append((path, f"expected {{evaluator, ...}}, got {shown(entry)}"))
        return None
    own = {"evaluator": None, **{key: entry[key] for key in OF_EVERY_ENTRY if key in entry}}
    options = {key: entry[key] for key in entry if key not in own}
    found: Problems = []
    score = read(Score, own, path, found)
    if own["evaluator"] in EVALUATORS.names():
        plugin = EVALUATORS.get(own["evaluator"])
        found += [(join(path, p.path), _near_own(p)) for p in plugin.problems(options)]
        if "steer" in own and (rule := _steer_refusal(plugin, options, own["steer"])):
            found.append((join(path, "steer"), rule))
    problems.extend(found)
    if score is None or found:
        return None
    return score.model_copy(update={"options": score.plugin.options(**options)})


def _near_own(problem: Problem) -> str:
    """Return a problem's rule; of a key that is near to none of the evaluator's, ours are tried."""
    unknown = problem.rule == "unknown key"
    return f"{problem.rule}{hint(problem.path, OF_EVERY_ENTRY) if unknown else ''}"


def _steer_refusal(plugin: EvaluatorPlugin, options: dict[str, Any], metric: Any) -> str:
    """Return why a metric cannot steer, in the words of the evaluator's own ``metric``."""
    if not isinstance(metric, str):
        return f"expected a metric, got {shown(metric)}"
    if "metric" not in plugin.options.model_fields:
        return f"evaluator {plugin.name!r} has no `metric` to choose; omit `steer`"
    found = plugin.problems({**options, "metric": metric})
    return next((p.rule for p in found if p.path == "metric"), "")


def _distinct(scores: list[Score]) -> tuple[Score, ...]:
    options = [score.options for score in scores]
    twice = [i for i, found in enumerate(options) if found in options[:i]]
    if twice:
        raise failed(((i,), "the same task stands here twice") for i in twice)
    return tuple(scores)


Scores = Annotated[
    list[Annotated[Score, read_by(read_entry)]],
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
