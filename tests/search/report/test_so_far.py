"""A study that is not finished is told in words: its best trial, and whom nobody beat."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from merge_core.recipe.schema import Recipe
from search.report.so_far import SoFar, beaten
from search.spec.study_file import StudySpec
from search.trial.trial import Trial
from tests.search import toy

Study = Callable[..., StudySpec]
BEST = Trial(7, "complete", Recipe("linear", ()), value=0.75, weights_digest="a")


def test_rivals_that_are_beaten_and_those_that_are_not_are_named() -> None:
    uniform = replace(BEST, number=3, value=0.5, weights_digest="b", baseline="uniform")
    parent = replace(BEST, number=1, value=0.75, weights_digest="c")
    assert beaten(BEST, [("the uniform merge", uniform), ("the best parent (x)", parent)]) == [
        "Best so far: trial 7, 0.7500, 0.2500 above the uniform merge.",
        "No candidate beat the best parent (x) so far (0.7500).",
    ]
    assert beaten(uniform, [("the uniform merge", uniform)]) == [
        "Best so far: trial 3 (uniform), 0.5000.",
        "No candidate beat the uniform merge so far (0.5000).",
    ]


def test_best_of_a_study_that_is_not_finished_is_the_best_so_far_and_says_so(
    study: Study, mergetune: Callable[..., tuple[Any, str, str]]
) -> None:
    record = toy.searched(spec := study(trials=3))
    found = SoFar.of(record)
    assert found.best is not None
    assert found.best.value == max(t.value or 0.0 for t in record.trials)
    code, out, _ = mergetune("best", spec.storage)
    assert code == 0
    assert f"The study is not finished: {len(record.trials)} trials are settled." in out
    assert "│ best so far" in out
    assert out.endswith(found.best.recipe.to_yaml())
    plain = json.loads(mergetune("best", spec.storage, "--json")[1])
    assert plain["finished"] is False
    assert (plain["trial"], plain["search"]["mean"]) == (found.best.number, found.best.value)
    assert plain["recipe"] == found.best.recipe.plain()
    assert plain["candidates"].keys() == {"base", "uniform", "parent:org/one", "parent:org/two"}


def test_a_study_without_a_complete_trial_has_no_best_one(study: Study) -> None:
    record = toy.searched(study(trials=1))
    record.trials = [replace(t, state="failed", value=None, error="x") for t in record.trials]
    found = SoFar.of(record)
    count = len(record.trials)
    assert found.plain()["trial"] is None
    assert found.sentences()[0].startswith(
        f"The study is not finished: {count} trials are settled, {count} of them failed."
    )
    assert "there is no best one" in found.sentences()[1]
