"""Finalists are who may be the best by the search items; they are stored before they are scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import optuna
import pytest

from merge_core.errors import StorageError
from search.report.finalists import finalists
from search.report.measure import measure, part_of_report
from search.report.select import _weighed, choose
from search.report.summarize import summarize
from search.samplers.steps import Measured
from search.spec.study_file import StudySpec
from search.storage.kept import Finalists
from search.storage.study_record import Record
from search.trial.trial import Measurement, Trial
from tests.search import toy

Study = Callable[..., StudySpec]
ITEMS = 10  # of each of two tasks


@pytest.fixture
def bench(study: Study) -> toy.Toy:
    return toy.Toy(study())


def answered(bench: toy.Toy, number: int, right: list[int], **more: Any) -> Trial:
    """Return a trial with these items of both tasks right."""
    hits = [float(i in right) for i in range(ITEMS)]
    scores = {"gain": hits, "loss": [-x for x in hits]}
    value, stderr = bench.tasks.value(scores, "search")
    known = {"weights_digest": f"w{number}", "value": value, "stderr": stderr, **more}
    recipe = bench.builder.space.recipe(bench.builder.space.point(lambda knob, _: knob.low))
    return Trial(number, "complete", recipe, measured={"search": Measurement(scores)}, **known)


def record_of(*trials: Trial) -> Record:
    record = Record(optuna.create_study(direction="maximize"), "memory")
    record.trials.extend(trials)
    return record


def test_who_is_worse_for_certain_is_no_finalist_and_who_may_be_better_is(bench: toy.Toy) -> None:
    best = answered(bench, 0, [0, 1, 2, 3, 4, 5, 6, 7, 8])
    near, far = answered(bench, 1, [0, 1, 2, 3, 4, 5, 6, 9]), answered(bench, 2, [])
    assert finalists(record_of(far, near, best), bench.tasks, 8) == (0, 1)


def test_they_are_the_best_ones_at_most_so_many_and_equal_weights_once(bench: toy.Toy) -> None:
    trials = [answered(bench, n, [*range(5), 5 + n % 5]) for n in range(6)]
    trials[3] = replace(trials[3], weights_digest="w0")
    assert finalists(record_of(*trials), bench.tasks, 4) == (0, 1, 2, 4)


def test_a_stopped_trial_is_one_where_its_estimate_may_be_that_of_the_best(bench: toy.Toy) -> None:
    best = answered(bench, 0, [*range(6)])
    assert best.value is not None
    near, far = (
        replace(answered(bench, n, [0]), state="stopped", value=best.value - gap, stderr=0.1)
        for n, gap in ((1, 0.19), (2, 0.21))
    )
    assert finalists(record_of(best, near, far), bench.tasks, 8) == (0, 1)


def test_finalists_are_weighed_by_search_items_that_all_of_them_have_seen(bench: toy.Toy) -> None:
    whole, other = answered(bench, 0, [*range(5)]), answered(bench, 1, [*range(4, 9)])
    seen = {task: scores[:5] for task, scores in other.search.scores.items()}
    part = replace(other, state="stopped", measured={"search": Measurement(seen)})
    selected = Measurement({"gain": [1.0, 0.0] * 5, "loss": [-1.0, 0.0] * 5})
    trials = [replace(t, measured={**t.measured, "select": selected}) for t in (whole, part)]
    found = _weighed(bench.tasks, trials)
    cut = {task: scores[:5] for task, scores in whole.search.scores.items()}
    same = [
        replace(trials[0], measured={"search": Measurement(cut), "select": selected}),
        trials[1],
    ]
    assert found == _weighed(bench.tasks, same)
    assert found.order[0] > found.order[1], "4 of the first 5 items more"


def test_a_failed_trial_is_none(bench: toy.Toy) -> None:
    bad = replace(answered(bench, 1, [*range(10)]), state="failed")
    assert finalists(record_of(answered(bench, 0, [1]), bad), bench.tasks, 8) == (0,)


@pytest.mark.parametrize("which", ["generation", "steps"])
def test_a_mean_is_one_whatever_its_own_search_score_says(bench: toy.Toy, which: str) -> None:
    drawn = answered(bench, 0, [*range(10)])
    of = {"baseline": "mean:1"} if which == "generation" else {"gradient": Measured({}, mean=True)}
    mean = answered(bench, 1, [], **of)
    count = 1 if which == "generation" else 2
    assert finalists(record_of(drawn, mean), bench.tasks, 8) == (0, 1)
    assert finalists(record_of(drawn, mean), bench.tasks, 1) == (0,)
    earlier = replace(mean, baseline=f"mean:{count + 5}", gradient=None)  # of another length
    assert finalists(record_of(drawn, earlier), bench.tasks, 8) == (0,)


def test_they_stay_the_same_until_more_is_searched(bench: toy.Toy) -> None:
    record = record_of(answered(bench, 0, [0, 1]), answered(bench, 1, [0, 2]))
    assert finalists(record, bench.tasks, 8) == (0, 1)
    record.trials[1] = replace(record.trials[1], value=9.0)  # nothing is looked at again
    assert finalists(record, bench.tasks, 8) == (0, 1)
    again = Record(record._stored._study, "memory")
    again.trials.extend(record.trials)
    assert finalists(again, bench.tasks, 8) == (0, 1)
    again.trials.append(answered(bench, 2, [0, 1, 2]))
    assert finalists(again, bench.tasks, 8)[0] == 1
    assert len(finalists(again, bench.tasks, 1)) == 1


def test_what_is_stored_and_damaged_is_one_line(bench: toy.Toy) -> None:
    record = record_of(answered(bench, 0, [0, 1]))
    record._attributes.set("finalists", {"numbers": "all", "most": 8, "after": 1})
    with pytest.raises(StorageError, match=r"is damaged: finalists\.numbers: expected a list"):
        finalists(record, bench.tasks, 8)


def test_finalists_that_do_not_win_are_measured_on_as_many_report_items_as_select_has(
    study: Study,
) -> None:
    text = toy.STUDY.replace("select: 20, report: 20", "select: 6, report: 40")
    spec = study(text, trials=12, finalists=6)
    bench = toy.Toy(spec)
    record = toy.in_memory(spec, bench)
    best = sorted((t for t in record.trials if not t.same_as), key=lambda t: -t.value)[:4]
    numbers = [trial.number for trial in best]
    record.keep_finalists(Finalists(numbers=numbers, most=6, after=len(record.trials)))
    chosen = choose(record, bench, toy.Listener())
    found = summarize(record, spec, bench.tasks, chosen)
    assert part_of_report(bench.tasks) == {"gain": (0, 3), "loss": (0, 3)}
    assert [x.trial for x in found.finalists] == numbers
    shown = {row.trial for row in found.candidates}
    for one in found.finalists:
        assert one.report is not None
        assert one.report.items == (None if one.trial in shown else 6)
        assert one.optimism == pytest.approx(one.search.mean - one.report.mean)
    part = next(x.trial for x in found.finalists if x.trial not in shown)
    scored = len(bench.scored)
    measure(record, bench, "report", [part], toy.Listener())  # it has won after all
    assert len(bench.scored) == scored + 1
    assert record.trial(part).measured["report"].items == 40
    again = Record(record._stored._study, "memory")
    assert again.trial(part).measured["report"].items == 40
