"""Races of a study: who is stopped, what is told of them, and that a resumed one is the same."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from merge_core.errors import NonFiniteError
from search.report.reproduce import reproduce
from search.samplers.steps import Step
from search.space.starting_points import defaults
from search.storage.trial_codec import frozen, thawed, told
from search.trial.racing import Judge, Race, Track, rivals, run
from search.trial.settle import Wanted
from search.trial.trial import Trial
from search.trial.worker import Job
from tests.search import toy

RACE = {"margin": 0.01, "error": 0.1}
STUDY = toy.STUDY.replace("search: 20", "search: 120").replace("race: off", f"race: {RACE}")
BOUNDS = (-4.0, 1.0)


def bench_of(text: str = STUDY, tasks: Any = None, **changes: Any) -> toy.Toy:
    spec = toy.spec_of(text, Path("/nowhere"), **changes)
    return toy.Toy(
        spec, tasks=tasks or [toy.Task("gain", 200, bounds=BOUNDS), toy.Task("loss", 200)]
    )


def whole_value(bench: toy.Toy, trial: Trial) -> float:
    """What a stopped candidate has on all search items, by the model of its recipe."""
    live: Any = bench.model(trial.recipe)
    scores = toy.Tasks.score(bench.tasks, live, "search")
    return bench.tasks.value(scores, "search")[0]


@pytest.fixture(scope="module")
def raced() -> tuple[toy.Toy, Any]:
    bench = bench_of(sampler="cma-es", trials=60)
    return bench, toy.in_memory(bench.spec, bench)


def test_who_has_lost_sees_no_more_items_and_baselines_see_all(raced: Any) -> None:
    bench, record = raced
    states = {t.state for t in record.trials if t.was_searched()}
    assert states == {"complete", "stopped"}
    assert {t.state for t in record.trials if not t.was_searched()} == {"complete"}
    track = bench.track
    prefixes = [track.units.prefix(look) for look in track.looks]
    for trial in record.trials:
        seen = {task: len(x) for task, x in trial.search.scores.items()}
        assert seen in (prefixes[:-1] if trial.state == "stopped" else prefixes[-1:])
        assert trial.cost == sum(seen.values())


def test_stopped_trials_are_worse_than_the_best_of_then_and_never_told_as_better(
    raced: Any,
) -> None:
    bench, record = raced
    for trial in [t for t in record.trials if t.state == "stopped"]:
        (best,) = rivals(record.trials[: trial.number])
        assert trial.value <= best.value
        assert whole_value(bench, trial) < best.value + RACE["margin"]
        assert 0 < trial.stderr < 1


def test_what_is_told_of_stopped_trials_is_what_all_items_say(raced: Any) -> None:
    bench, record = raced
    stopped = [t for t in record.trials if t.state == "stopped"]
    off = [(t.value - whole_value(bench, t)) / t.stderr for t in stopped]
    assert np.mean(np.abs(off) < 3) > 0.9
    plain = [bench.tasks.value(t.search.scores, "search")[0] for t in stopped]
    errors = [abs(x - whole_value(bench, t)) for x, t in zip(plain, stopped, strict=True)]
    assert np.mean([abs(t.value - whole_value(bench, t)) for t in stopped]) < np.mean(errors)


def test_only_who_has_seen_all_items_is_raced_against(raced: Any) -> None:
    _, record = raced
    for number in range(1, len(record.trials)):
        (best,) = rivals(record.trials[:number])
        assert best.state == "complete"
        assert best.value == max(t.value for t in record.trials[:number] if t.state == "complete")


@pytest.mark.parametrize("sampler", ["cma-es", "tpe"])
@pytest.mark.parametrize("at", [3, 14, 25])
def test_a_race_that_was_killed_goes_on_as_the_unbroken_one(sampler: str, at: int) -> None:
    bench = bench_of(sampler=sampler, trials=20)
    whole = toy.kept(toy.in_memory(bench.spec, bench).trials)
    again = bench_of(sampler=sampler, trials=20)
    assert toy.kept(toy.in_memory(again.spec, again, whole[:at]).trials) == whole
    assert "stopped" in {t.state for t in whole}


def test_race_off_lets_all_see_all_items() -> None:
    bench = bench_of(race=False)
    record = toy.in_memory(bench.spec, bench)
    assert bench.track is None
    assert "race" not in record.about
    assert {t.state for t in record.trials} == {"complete"}


def test_a_study_that_began_without_races_goes_on_without(tmp_path: Path) -> None:
    spec = toy.spec_of(STUDY.replace("search: 120", "search: 30"), tmp_path)
    about = {"study": dict(spec.data)}
    worker = toy.Toy(spec)
    assert toy.racing.track_of(spec, worker.tasks, about) is None
    track = toy.racing.track_of(spec, worker.tasks, None)
    assert toy.racing.track_of(spec, worker.tasks, {"race": track.plain()}) == track


def test_a_stopped_trial_is_stored_as_pruned_with_its_value_and_told_as_any_other(
    raced: Any,
) -> None:
    bench, record = raced
    trial = next(t for t in record.trials if t.state == "stopped")
    stored = frozen(trial, bench.builder.space.distributions())
    assert (stored.state, stored.value) == (optuna.trial.TrialState.PRUNED, trial.value)
    assert replace(thawed(stored, {}), number=trial.number) == trial
    heard = told(trial, bench.builder.space.distributions())
    assert (heard.state, heard.value) == (optuna.trial.TrialState.COMPLETE, trial.value)


def test_stopped_trials_outlive_a_database(tmp_path: Path) -> None:
    spec = toy.spec_of(STUDY, tmp_path, trials=8)
    tasks = [toy.Task("gain", 200, bounds=BOUNDS), toy.Task("loss", 200)]
    record = toy.searched(spec, toy.Toy(spec, tasks=tasks))
    assert "stopped" in {t.state for t in record.trials}
    assert toy.kept(toy.open_for(spec).trials) == toy.kept(record.trials)


def test_stopped_trials_are_reproduced_on_the_items_that_they_saw(raced: Any) -> None:
    bench, record = raced
    stopped = [t.number for t in record.trials if t.state == "stopped"][:3]
    rows = list(reproduce(record, bench, stopped))
    assert [row["verdict"] for row in rows] == ["identical"] * 3
    bench.parents["org/one"] = toy.Parent((1.0, 0.001))
    (row,) = reproduce(record, bench, stopped[:1])
    bench.parents["org/one"] = toy.Parent((1.0, 0.0))
    assert row["verdict"] == "weights differ"


def test_a_race_is_a_plain_value_that_travels() -> None:
    race = Race(({"gain": [0.5]},), looks=3)
    assert pickle.loads(pickle.dumps(Job(recipe=None, pool="search", race=race))).race == race  # type: ignore[arg-type]


def test_scores_that_are_not_finite_end_a_race() -> None:
    bench = bench_of()

    class Odd(toy.Task):
        def score_one(self, model: toy.Model, item: str) -> float:
            return math.inf

    odd = bench_of(tasks=[Odd("gain", 200), toy.Task("loss", 200)])
    live: Any = odd.model(odd.builder.space.recipe(defaults(odd.builder.space)))
    odd.live = live
    with pytest.raises(NonFiniteError, match=r"gain: \d+ of \d+ scores are nan or infinite"):
        run(odd.tasks, live, odd.track, Race())
    assert bench.track is not None


# several objectives, exact scores

APART = STUDY.replace("items:", "aggregate: apart\nitems:")


class Size(toy.Task):
    """As large as the first point is far out, whatever the item."""

    def score_one(self, model: toy.Model, item: str) -> float:
        return round(sum(abs(x) + abs(y) for x, y in model.points), 2)


def test_with_several_objectives_only_who_is_dominated_is_stopped() -> None:
    tasks = [toy.Task("gain", 200, bounds=BOUNDS), Size("loss", 200, exact=True)]
    bench = bench_of(APART, tasks=tasks, trials=40)
    record = toy.in_memory(bench.spec, bench)
    stopped = [t for t in record.trials if t.state == "stopped"]
    assert stopped
    for trial in stopped:
        live: Any = bench.model(trial.recipe)
        gain, size = bench.tasks.values(toy.Tasks.score(bench.tasks, live, "search"), "search")
        assert any(
            r.values[0] + RACE["margin"] > gain and r.values[1] >= size
            for r in rivals(record.trials[: trial.number])
        )
        assert trial.values[1] == pytest.approx(size), (
            "what is exact is known of a stopped one, too"
        )
        assert len(trial.search.scores["loss"]) == len(bench.tasks.pools["search"].of("loss"))


def test_rivals_with_several_objectives_are_the_front_of_those_that_saw_all() -> None:
    def trial(number: int, state: Any, *values: float) -> Trial:
        return Trial(number, state, recipe=None, value=sum(values), values=values)  # type: ignore[arg-type]

    some = [
        trial(0, "complete", 0.5, 0.5),
        trial(1, "complete", 0.6, 0.2),
        trial(2, "stopped", 0.9, 0.9),
        trial(3, "complete", 0.4, 0.4),
        trial(4, "complete", 0.5, 0.5),
    ]
    assert [t.number for t in rivals(some)] == [0, 1]


def test_a_study_of_exact_scores_alone_has_no_race() -> None:
    tasks = [Size("gain", 200, exact=True), Size("loss", 200, exact=True)]
    assert bench_of(tasks=tasks).track is None


def test_every_task_has_items_before_the_first_look() -> None:
    text = STUDY.replace("search: 120", "search: 104")
    bench = bench_of(text, tasks=[toy.Task("gain", 400, bounds=BOUNDS), toy.Task("loss", 12)])
    first = next(bench.track.blocks())
    assert all(after - before >= 2 for before, after in first.values())


def test_blocks_are_the_whole_pool_once() -> None:
    bench = bench_of()
    track = Track.of(bench.track.plain())
    assert track == bench.track
    seen: dict[str, list[int]] = {"gain": [], "loss": []}
    for blocks in track.blocks():
        for task, (first, last) in blocks.items():
            seen[task] += range(first, last)
    assert seen == {t: [*range(len(bench.tasks.pools["search"].of(t)))] for t in seen}


def test_nobody_loses_to_a_candidate_that_it_is_better_than_by_the_margin(raced: Any) -> None:
    bench, record = raced
    complete = [t for t in record.trials if t.state == "complete"]
    worst, best = (f(complete, key=lambda t: t.value) for f in (min, max))
    judge = Judge(bench.tasks, bench.track, [worst.search.scores])
    assert judge.beaten(best.search.scores) is None
    assert Judge(bench.tasks, bench.track, [best.search.scores]).beaten(worst.search.scores) == 0


def test_neither_a_baseline_nor_the_mean_of_a_search_by_gradient_is_raced(raced: Any) -> None:
    bench, record = raced
    jobs: list[Job] = []

    class Heard(toy.Toy):
        def run(self, job: Job) -> Any:
            jobs.append(job)
            return super().run(replace(job, learn=None, look=None))

    worker = Heard(bench.spec, tasks=[toy.Task("gain", 200, bounds=BOUNDS), toy.Task("loss", 200)])
    space = worker.builder.space
    points = [space.point(lambda knob, _, x=x: knob.low + x) for x in (0.31, 0.32, 0.33)]
    learns, mean = (Step(points[0], {}, {}, scored=True, mean=mean) for mean in (False, True))
    for point, known in zip(
        points, ({"step": learns}, {"step": mean}, {"baseline": "mine"}), strict=True
    ):
        number = len(record.trials)
        toy.settle(
            worker,
            Wanted(space.recipe(point), **known),
            number=number,
            earlier=record.trials,
        )
    assert [len(job.race.rivals) for job in jobs] == [1, 0, 0]
