"""Races run again on trials that were scored whole: counts by hand, estimates near the truth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.report.race_replay import replayed
from search.trial.racing import Judge, Track, rivals
from tests.search import toy

STUDY = toy.STUDY.replace("search: 20", "search: 120")


@pytest.fixture(scope="module")
def full() -> tuple[toy.Toy, list[Any], Track]:
    spec = toy.spec_of(STUDY, Path("/nowhere"), sampler="cma-es", trials=60, race=False)
    tasks = [toy.Task("gain", 200, bounds=(-4.0, 1.0)), toy.Task("loss", 200)]
    bench = toy.Toy(spec, tasks=tasks)
    record = toy.in_memory(spec, bench)
    track = Track.begun(0.01, 0.1, bench.tasks, 0)
    assert track is not None
    return bench, record.trials, track


def test_items_and_stops_are_those_of_the_race_look_by_look(full: Any) -> None:
    bench, trials, track = full
    found = replayed(bench.tasks, track, trials)
    items = stopped = 0
    whole = [t for t in trials if t.state == "complete" and t.same_as is None][1:]
    for trial in whole:
        judge = Judge(bench.tasks, track, [t.search.scores for t in rivals(trials[: trial.number])])
        for look in track.looks:
            now = track.units.prefix(look)
            lost = judge.beaten({t: x[: now[t]] for t, x in trial.search.scores.items()})
            if lost is not None or look == track.looks[-1]:
                break
        items += sum(now.values())
        stopped += look != track.looks[-1]
    assert (found.items, found.stopped, found.trials) == (items, stopped, len(whole))
    assert found.items_full == 120 * len(whole)
    assert sum(look.stopped for look in found.looks) == stopped > 0
    assert found.items < 0.7 * found.items_full


def test_nobody_who_is_better_by_the_margin_is_stopped_more_often_than_stated(full: Any) -> None:
    bench, trials, track = full
    found = replayed(bench.tasks, track, trials)
    assert found.wrongly <= found.missed <= found.stopped
    assert found.wrongly <= 2
    strict = replayed(bench.tasks, replace(track, margin=1.0), trials)
    assert (strict.wrongly, strict.stopped) == (0, strict.trials)
    assert strict.missed > 0


def test_estimates_come_nearer_with_each_look_and_cover(full: Any) -> None:
    bench, trials, track = full
    looks = replayed(bench.tasks, track, trials).looks
    assert [look.items for look in looks] == sorted({look.items for look in looks})
    assert len(looks) == len(track.looks) - 1
    assert looks[-1].rmse < looks[0].rmse
    assert np.mean([look.covered for look in looks]) > 0.85
    assert all(abs(look.bias) <= look.rmse for look in looks)


def test_of_many_trials_an_even_choice_is_raced_again(full: Any) -> None:
    bench, trials, track = full
    found = replayed(bench.tasks, track, trials, most=7)
    assert found.trials == 7
    assert found.items_full == 7 * 120


def test_a_study_without_whole_trials_has_an_empty_replay(full: Any) -> None:
    bench, trials, track = full
    found = replayed(bench.tasks, track, trials[:1])
    assert (found.trials, found.items, found.looks) == (0, 0, ())


def test_it_is_plain_json(full: Any) -> None:
    bench, trials, track = full
    found = replayed(bench.tasks, track, trials)
    plain = json.loads(json.dumps(found.plain(), allow_nan=False))
    assert plain["looks"][0]["rmse"] == found.looks[0].rmse
    assert plain["items_full"] == found.items_full
