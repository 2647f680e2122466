"""Sections ``score`` and ``aggregate`` of a study file: which tasks, and what number they make."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from evaluators.registry import EVALUATORS, EvaluatorPlugin
from merge_core.errors import Problems, hint, join, shown

OF_EVERY_ENTRY = ("evaluator", "weight", "chance", "steer")  # keys of an entry, whatever scores it
Kind = Literal["mean", "min", "geometric_mean", "apart"]
KINDS: tuple[Kind, ...] = ("mean", "min", "geometric_mean", "apart")


@dataclass(frozen=True)
class Score:
    """One task of the study.

    Args:
        plugin: Of the evaluator.
        options: An object of ``plugin.options``.
        weight: Of the task in the mean; only ratios matter.
        chance: The score of guessing, which counts as 0; ``auto``: what the task says it is.
        steer: The metric that scores the search pool, if not that of ``options``.
    """

    plugin: EvaluatorPlugin
    options: Any
    weight: float
    chance: float | Literal["auto"] = 0.0
    steer: str | None = None


def read_scores(data: Any, problems: Problems) -> tuple[Score, ...]:
    """Read the tasks; what is wrong with them is added to ``problems``."""
    if not isinstance(data, list) or not data:
        rule = "required" if data is None else f"expected a list of tasks, got {shown(data)}"
        problems.append(("score", rule))
        return ()
    entries = [_score(entry, join("score", i), problems) for i, entry in enumerate(data)]
    seen: list[Any] = []
    for i, score in enumerate(entries):
        if score is not None and score.options in seen:
            problems.append((join("score", i), "the same task stands here twice"))
        seen.append(score and score.options)
    return tuple(score for score in entries if score is not None)


def read_aggregate(kind: Any, scores: Sequence[Score], problems: Problems) -> Kind:
    """Read how tasks become one number; what is wrong with that is added to ``problems``."""
    if kind not in KINDS:
        near = hint(kind, KINDS) if isinstance(kind, str) else ""
        problems.append(
            ("aggregate", f"expected one of {', '.join(KINDS)}, got {shown(kind)}{near}")
        )
        return "mean"
    if kind == "min" and len({score.weight for score in scores}) > 1:
        rule = "'min' is the worst task, whatever its weight; omit the weights, or use 'mean'"
        problems.append(("aggregate", rule))
    if kind == "geometric_mean" and any(score.steer for score in scores):
        rule = "'geometric_mean' needs scores above 0, which what steers may not have; omit `steer`"
        problems.append(("aggregate", f"{rule}, or use 'mean' or 'min'"))
    if kind == "apart" and len(scores) < 2:
        problems.append(("aggregate", "'apart' needs at least two entries under `score`"))
    found: Kind = kind
    return found


def _score(entry: Any, path: str, problems: Problems) -> Score | None:
    if not isinstance(entry, dict):
        problems.append((path, f"expected {{evaluator, ...}}, got {shown(entry)}"))
        return None
    name, weight = entry.get("evaluator"), entry.get("weight", 1.0)
    found: Problems = []
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not number or not 0 < weight <= sys.float_info.max:
        found.append((join(path, "weight"), f"expected a number above 0, got {shown(weight)}"))
    chance = entry.get("chance", 0.0)
    share = isinstance(chance, int | float) and not isinstance(chance, bool) and 0 <= chance < 1
    if not share and chance != "auto":
        rule = f"expected a number of at least 0 and below 1, or 'auto', got {shown(chance)}"
        found.append((join(path, "chance"), rule))
    known = EVALUATORS.names()
    if name not in known:
        near = hint(str(name), known)
        rule = f"expected one of {', '.join(known)}, got {shown(name)}{near}"
        problems.extend([*found, (join(path, "evaluator"), rule)])
        return None
    plugin: EvaluatorPlugin = EVALUATORS.get(str(name))
    options = {k: v for k, v in entry.items() if k not in OF_EVERY_ENTRY}
    found.extend((join(path, p.path), p.rule) for p in plugin.problems(options))
    steer = entry.get("steer")
    if "steer" in entry and (rule := _steer_refusal(plugin, options, steer)):
        found.append((join(path, "steer"), rule))
    problems.extend(found)
    return None if found else Score(plugin, plugin.options(**options), float(weight), chance, steer)


def _steer_refusal(plugin: EvaluatorPlugin, options: dict[str, Any], metric: Any) -> str:
    """Return why a metric cannot steer, in the words of the evaluator's own ``metric``."""
    if all(field.name != "metric" for field in fields(plugin.options)):
        return f"evaluator {plugin.name!r} has no `metric` to choose; omit `steer`"
    if not isinstance(metric, str):
        return f"expected a metric, got {shown(metric)}"
    found = plugin.problems({**options, "metric": metric})
    return next((p.rule for p in found if p.path == "metric"), "")
