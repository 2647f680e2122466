"""One trial: what is stored of it, what is not done twice, and what a failure becomes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from merge_core.errors import EvaluationError, ItemError, NonFiniteError
from merge_core.recipe.schema import Recipe, Source
from search.trial import settle as settling
from search.trial.failure import InterruptedStudyError
from search.trial.settle import Wanted
from search.trial.trial import Trial
from tests.search import toy

SPEC = toy.spec_of(toy.STUDY, Path("/nowhere"))


def merged(one: float, two: float) -> Recipe:
    """A task arithmetic with these weights."""
    sources = (Source("org/one", (("weight", one),)), Source("org/two", (("weight", two),)))
    return Recipe("task_arithmetic", sources, "org/base")


def linear(one: float, two: float) -> Recipe:
    return Recipe("linear", merged(one, two).models)


def settled(bench: Any, recipe: Recipe, *earlier: Trial, **known: Any) -> Trial:
    return toy.settle(bench, Wanted(recipe, **known), number=len(earlier), earlier=earlier)


@pytest.fixture
def bench() -> toy.Toy:
    return toy.Toy(SPEC)


class Broken(toy.Toy):
    """Does ``wrong`` when it should build or score."""

    def __init__(self, where: str, wrong: Callable[[], Any]) -> None:
        super().__init__(SPEC)
        self.where, self.wrong = where, wrong

    def build(self, recipe: Recipe) -> str:
        return self.wrong() if self.where == "build" else super().build(recipe)

    def score(self, pool: str) -> Any:
        return self.wrong() if self.where == "score" else super().score(pool)


def raising(error: BaseException) -> Callable[..., Any]:
    def wrong(*_: object) -> Any:
        raise error

    return wrong


def test_a_trial_has_weights_scores_value_and_error(bench: toy.Toy) -> None:
    found = settled(bench, merged(0.5, 0.5), params={"x": 0.5})
    assert found.state == "complete"
    assert found.weights_digest == bench.model(merged(0.5, 0.5)).digest
    assert {task: len(scores) for task, scores in found.search.scores.items()} == {
        "gain": 10,
        "loss": 10,
    }
    assert (found.value, found.stderr) == bench.tasks.value(found.search.scores, "search")
    assert (found.params, found.baseline, found.same_as) == ({"x": 0.5}, None, None)
    assert bench.scored == [("search", found.weights_digest)]


def test_a_baseline_keeps_its_name(bench: toy.Toy) -> None:
    found = settled(bench, merged(0.5, 0.5), baseline="uniform")
    assert (found.baseline, found.params) == ("uniform", {})


def test_an_earlier_recipe_is_neither_built_nor_scored_again(bench: toy.Toy) -> None:
    first, other = settled(bench, merged(0.5, 0.5)), settled(bench, merged(0.1, 0.2))
    bench.built.clear()
    bench.scored.clear()
    again = settled(bench, merged(0.5, 0.5), other, first)
    assert (bench.built, bench.scored) == ([], [])
    assert again.same_as == first.number
    assert (again.search.scores, again.value, again.stderr) == (
        first.search.scores,
        first.value,
        first.stderr,
    )
    assert again.weights_digest == first.weights_digest


def test_earlier_weights_of_another_recipe_are_built_but_not_scored_again(bench: toy.Toy) -> None:
    first = settled(bench, merged(0.5, 0.5))
    bench.scored.clear()
    again = settled(bench, linear(3.0, 3.0), first)
    assert again.recipe != first.recipe
    assert (again.same_as, again.search.scores) == (0, first.search.scores)
    assert (bench.built[-1], bench.scored) == (linear(3.0, 3.0), [])


def test_of_two_earlier_trials_with_the_same_weights_the_first_is_named(bench: toy.Toy) -> None:
    first = settled(bench, merged(0.5, 0.5))
    second = settled(bench, linear(1.0, 1.0), first)
    assert settled(bench, linear(2.0, 2.0), first, second).same_as == 0


@pytest.mark.parametrize("where", ["build", "score"])
def test_what_raises_is_a_failed_trial_with_its_traceback(where: str) -> None:
    bench = Broken(where, raising(MemoryError("out of memory")))
    found = settled(bench, merged(0.5, 0.5), params={"x": 0.5}, baseline="mine")
    assert (found.state, found.value, found.stderr) == ("failed", None, None)
    assert (found.search.scores, found.weights_digest) == ({}, "")
    assert (found.recipe, found.params) == (merged(0.5, 0.5), {"x": 0.5})
    assert found.baseline == "mine"
    assert found.error is not None
    assert found.error.startswith("Traceback (most recent call last):\n")
    assert "in wrong" in found.error
    assert found.error.endswith("\nMemoryError: out of memory\n")


@pytest.mark.parametrize(
    ("score", "reason"),
    [
        (float("nan"), "ItemError: gain: 10 of 10 items have no score"),
        (float("inf"), "NonFiniteError: task 0: 10 of 10 scores are nan or infinite"),
    ],
)
def test_scores_that_are_not_finite_are_a_failed_trial(
    bench: toy.Toy, monkeypatch: pytest.MonkeyPatch, score: float, reason: str
) -> None:
    monkeypatch.setattr(toy.Task, "score_one", lambda *_: score)
    found = settled(bench, merged(0.5, 0.5))
    assert (found.state, found.value) == ("failed", None)
    assert found.reason.endswith(reason)


def test_the_reason_of_a_failure_is_its_kind_and_the_first_line_of_its_message() -> None:
    found = settled(
        Broken("build", raising(MemoryError("no\n  luck: today\nat: all"))), merged(1, 1)
    )
    assert found.error is not None
    assert found.error.splitlines()[-1] == "at: all"
    assert found.reason == "MemoryError: no"


def test_the_reason_of_a_chain_of_errors_is_the_last_one() -> None:
    def wrong() -> None:
        try:
            raise KeyError("cause")
        except KeyError as error:
            raise MemoryError("effect") from error

    assert settled(Broken("score", wrong), merged(1, 1)).reason == "MemoryError: effect"


@pytest.mark.parametrize("where", ["build", "score"])
@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        EvaluationError("the judge failed (4 tries): HTTP 401: wrong key"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        TypeError("a plugin's own"),
    ],
)
def test_what_is_no_candidates_fault_is_raised_and_no_trial(where: str, error: Exception) -> None:
    with pytest.raises(InterruptedStudyError, match=r"^trial 0: .*; nothing of it is sto") as told:
        settled(Broken(where, raising(error)), merged(0.5, 0.5))
    assert str(error) in str(told.value)
    assert "in wrong" in told.value.traceback


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        ItemError("item 7 does not fit"),
        NonFiniteError("a.weight: 3 entries"),
    ],
)
def test_a_candidates_fault_is_its_own_also_below_the_error_of_a_task(error: Exception) -> None:
    def wrapped() -> None:
        raise EvaluationError("task: something happened") from error

    for wrong in (raising(error), wrapped):
        assert settled(Broken("score", wrong), merged(0.5, 0.5)).state == "failed"


def test_an_error_in_the_sum_of_scores_is_no_failed_trial(
    bench: toy.Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.tasks, "value", raising(KeyError("ours")))
    with pytest.raises(KeyError, match="ours"):
        settled(bench, merged(0.5, 0.5))


def test_a_complete_trial_has_no_reason(bench: toy.Toy) -> None:
    assert settled(bench, merged(0.5, 0.5)).reason == ""


def test_a_recipe_that_failed_is_tried_again(bench: toy.Toy) -> None:
    failed = settled(Broken("score", raising(MemoryError("full"))), merged(0.5, 0.5))
    again = settled(bench, merged(0.5, 0.5), failed)
    assert (again.state, again.same_as) == ("complete", None)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_the_users_stop_is_no_failed_trial(stop: type[BaseException]) -> None:
    with pytest.raises(stop, match=r"^now$"):
        settled(Broken("score", raising(stop("now"))), merged(0.5, 0.5))


def test_seconds_go_to_what_they_were_spent_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def spend(seconds: float, result: Any) -> Any:
        now[0] += seconds
        return result

    monkeypatch.setattr(settling.time, "perf_counter", lambda: now[0])
    bench = toy.Toy(SPEC)
    monkeypatch.setattr(bench, "build", lambda recipe: spend(2, "d"))
    monkeypatch.setattr(bench, "score", lambda pool: spend(3, {}))
    monkeypatch.setattr(bench.tasks, "values", lambda scores, pool: ())
    monkeypatch.setattr(bench.tasks, "value", lambda scores, pool: spend(4, (0.5, 0.1)))
    assert settled(bench, merged(1, 1)).search.seconds == {"build": 2, "model": 3, "other": 4}


def test_seconds_of_a_failed_trial_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def wrong() -> None:
        now[0] += 5
        raise MemoryError("late")

    monkeypatch.setattr(settling.time, "perf_counter", lambda: now[0])
    found = settled(Broken("build", wrong), merged(1, 1))
    assert found.search.seconds == {"build": 5, "model": 0, "other": 0}
