"""Several trials under way: whoever is fast, the study is the same, also after a kill."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from merge_core.errors import EvaluationError, MergeError, NonFiniteError
from search.report.measure import measure
from search.run.loop import search
from search.run.resume import open_for
from search.samplers.registry import SAMPLERS
from search.samplers.shipped import make_random
from search.spec.study_file import StudySpec
from search.storage.open import open_record
from search.trial.progress import StopRequested
from search.trial.trial import Trial
from search.trial.worker import Job, Result
from tests.search import toy

Study = Callable[..., StudySpec]
DRAWING = ("random", "tpe", "cma-es", "catcma", "qmc", "nsga2", "gp")


class Several(toy.Toy):
    """Answers after random times, several jobs at a time."""

    def __init__(self, spec: StudySpec, count: int = 3, *, delay: float = 0.0, **more: Any) -> None:
        super().__init__(spec, **more)
        self.count = count
        self._delay, self._draw = delay, random.Random(0)
        self.flying, self.most = 0, 0

    def submit(self, job: Job) -> Future[Result]:
        self.flying += 1
        self.most = max(self.most, self.flying)
        answer: Future[Result] = Future()
        answer.add_done_callback(self._landed)
        result = self.run(job)
        if self._delay:
            late = (answer.set_result, [result])
            threading.Timer(self._draw.random() * self._delay, late[0], late[1]).start()
        else:
            answer.set_result(result)
        return answer

    def _landed(self, _: object) -> None:
        self.flying -= 1


class Fragile(Several):
    """Fails for some recipes, always the same ones."""

    def build(self, recipe: Any) -> str:
        if toy.noise(recipe.digest()) < 0.3:
            raise NonFiniteError("this recipe does not build")
        return super().build(recipe)


@pytest.mark.parametrize("sampler", ["random", "cma-es", "tpe"])
def test_a_study_of_several_workers_is_the_same_however_fast_each_is(
    study: Study, sampler: str
) -> None:
    spec = study(sampler=sampler, trials=9)
    slow = Several(spec, delay=0.02)
    one, two = (toy.in_memory(spec, bench).trials for bench in (slow, Several(spec)))
    assert toy.kept(one) == toy.kept(two)
    assert slow.most == 3


@pytest.mark.parametrize("sampler", DRAWING)
def test_a_study_of_several_workers_goes_on_as_the_unbroken_one(study: Study, sampler: str) -> None:
    spec = study(sampler=sampler, trials=9)
    whole = toy.in_memory(spec, Fragile(spec))
    assert {t.state for t in whole.trials} == {"complete", "failed"}
    for k in (1, 4, 10, 11, 12, 13, 16, 18, len(whole.trials)):
        again = toy.in_memory(spec, Fragile(spec), whole.trials[:k])
        assert toy.kept(again.trials) == toy.kept(whole.trials), f"stopped after {k}"


def test_a_study_that_races_goes_on_as_the_unbroken_one(study: Study) -> None:
    text = toy.STUDY.replace("search: 20", "search: 120")
    spec = study(text, sampler="cma-es", trials=20, race={"margin": 0.01, "error": 0.1})
    tasks = [toy.Task("gain", 200, bounds=(-4, 1)), toy.Task("loss", 200)]
    whole = toy.in_memory(spec, Several(spec, tasks=tasks))
    assert "stopped" in {trial.state for trial in whole.trials}
    for k in (11, 17, 25):
        again = toy.in_memory(spec, Several(spec, tasks=tasks), whole.trials[:k])
        assert toy.kept(again.trials) == toy.kept(whole.trials), f"stopped after {k}"


def test_a_draw_knows_all_but_the_last_trials_before_it(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []

    def make(space: Any, start: Any, seed: int) -> Any:
        sampler: Any = make_random(space, start, seed)
        before = sampler.before_trial

        def count(study: Any, trial: Any) -> None:
            states = [t.state.is_finished() for t in study.get_trials(deepcopy=False)]
            seen.append((sum(states), len(states) - sum(states)))
            before(study, trial)

        sampler.before_trial = count
        return sampler

    monkeypatch.setitem(SAMPLERS._added, "spy", make)
    spec = study(sampler="spy", trials=6)
    toy.in_memory(spec, Several(spec))
    first = seen[0][0]  # the baselines in the space
    assert [(done - first, flying - 1) for done, flying in seen] == [
        *((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (3, 2)),
    ]


def test_patience_ends_a_search_of_several_workers_where_it_ends_the_unbroken_one(
    study: Study,
) -> None:
    spec = study(sampler="random", trials=40, patience=5)
    whole = toy.in_memory(spec, Several(spec)).trials
    assert len(whole) < 50
    for k in range(11, len(whole), 3):
        assert len(toy.in_memory(spec, Several(spec), whole[:k]).trials) == len(whole)


def test_a_stop_settles_what_is_under_way(study: Study) -> None:
    spec = study(sampler="cma-es", trials=9)
    whole = toy.in_memory(spec, Several(spec)).trials
    record, answers = open_for(spec), iter([False] * 15)
    bench = Several(spec, delay=0.01)
    assert search(spec, record, bench, toy.Listener(), lambda: next(answers, True)) is None
    assert bench.flying == 0
    assert toy.kept(record.trials) == toy.kept(whole[:15])
    assert search(spec, record, Several(spec), toy.Listener(), toy.never)
    assert toy.kept(open_record(spec.storage).trials) == toy.kept(whole)


@pytest.mark.parametrize("sampler", DRAWING)
def test_in_free_order_every_trial_is_settled_once_and_a_study_goes_on(
    study: Study, sampler: str
) -> None:
    spec = study(sampler=sampler, trials=9, order="free")
    trials = toy.in_memory(spec, Several(spec, delay=0.02)).trials
    assert [t.number for t in trials] == list(range(len(trials)))
    drawn = [t for t in trials if t.was_drawn()]
    assert len({t.recipe.digest() for t in drawn}) == len(drawn) == 9
    assert len(toy.in_memory(spec, Several(spec, delay=0.02), trials[:14]).trials) == len(trials)


def test_in_free_order_who_is_done_first_is_settled_first(study: Study) -> None:
    class Slow(Several):
        """Answers to the first draw come last."""

        def submit(self, job: Job) -> Future[Result]:
            answer: Future[Result] = Future()
            late = len(self.built) == len(toy.BASELINES)
            threading.Timer(0.3 * late, answer.set_result, [self.run(job)]).start()
            return answer

    spec = study(sampler="random", trials=6, order="free")
    free = toy.in_memory(spec, Slow(spec)).trials
    fixed = toy.in_memory(study(sampler="random", trials=6), Slow(spec)).trials
    first = next(t for t in fixed if t.was_drawn())
    assert first.number == len(toy.BASELINES)
    assert next(t.number for t in free if t.recipe == first.recipe) > first.number


def test_a_fault_that_is_no_candidates_loses_nothing_that_was_settled(study: Study) -> None:
    class Down(Several):
        def build(self, recipe: Any) -> str:
            if len(self.built) == 14:
                raise EvaluationError("the service is down")
            return super().build(recipe)

    spec = study(sampler="random", trials=9)
    with pytest.raises(MergeError, match="the service is down"):
        toy.searched(spec, Down(spec))
    stored = open_record(spec.storage).trials
    assert 11 < len(stored) <= 14
    whole = toy.in_memory(spec, Several(spec)).trials
    assert toy.kept(toy.searched(spec, Several(spec)).trials) == toy.kept(whole)


def test_later_pools_are_scored_by_several_workers_and_stored_in_order(study: Study) -> None:
    spec = study(sampler="random", trials=3)
    record, bench = toy.in_memory(spec), Several(spec, delay=0.02)
    measure(record, bench, "select", [3, 1, 5, 7], toy.Listener())
    alone = toy.in_memory(spec)
    measure(alone, toy.Toy(spec), "select", [3, 1, 5, 7], toy.Listener())
    assert bench.most == 3
    assert scores(record.trials) == scores(alone.trials)


def test_a_stop_on_a_later_pool_stores_what_is_under_way(study: Study) -> None:
    spec = study(sampler="random", trials=3)
    record, bench, answers = toy.in_memory(spec), Several(spec, delay=0.02), iter([False])
    with pytest.raises(StopRequested):
        measure(record, bench, "select", [3, 1, 5, 7], toy.Listener(), lambda: next(answers, True))
    assert set(scores(record.trials)) == {1, 3, 5}


def scores(trials: list[Trial]) -> dict[int, Any]:
    return {t.number: t.measured["select"].scores for t in trials if "select" in t.measured}
