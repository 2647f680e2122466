"""Finalists are chosen on one set of fresh items, the winner is measured on another."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest

from evaluators.protocol import Suite
from merge_core.errors import ItemError, MergeError
from merge_core.recipe.schema import Recipe, Source
from search.report.measure import measure
from search.report.select import Selection, choose, select
from search.report.summarize import summarize
from search.report.summary import Report
from search.scoring import intervals
from search.spec.study_file import StudySpec
from search.storage.study_record import Record
from search.storage.trial_codec import thawed
from search.trial import worker
from search.trial.failure import InterruptedStudyError
from search.trial.progress import StopRequested
from search.trial.trial import Measurement, Trial
from search.views import tables
from tests.search import toy

Study = Callable[..., StudySpec]
Scores = dict[str, list[float]]
OUTCOMES = {  # candidate -> its score on every item of the search, select and report pools
    "base": (0.1, 0.1, 0.1),
    "parent:one": (0.5, 0.2, 0.9),
    "parent:two": (0.4, 0.3, 0.2),
    "uniform": (0.5, 0.4, 0.5),
    "defaults": (0.6, 0.1, 0.6),
    "simple:weight=0.3": (0.3, 0.35, 0.3),
    "lucky": (0.9, 0.5, 0.8),
    "good": (0.8, 0.7, 0.6),
    "fair": (0.7, 0.62, 0.95),
}


class Scripted(toy.Toy):
    """Candidates whose scores are written down; a candidate is its recipe's only model."""

    def __init__(
        self, spec: StudySpec, outcomes: Mapping[str, tuple[float, ...]] = OUTCOMES, **more: Any
    ):
        super().__init__(spec, **more)
        self.outcomes, self.same = outcomes, dict[str, str]()

    def build(self, recipe: Recipe) -> str:
        self.built.append(recipe)
        name = recipe.models[0].model
        self.live = self.same.get(name, name)
        return self.live

    def score(self, pool: str, blocks: Any = None) -> Scores:
        self.scored.append((pool, self.live))
        found = self.scores_of(self.live, pool)
        return found if blocks is None else {t: found[t][slice(*blocks[t])] for t in blocks}

    def scores_of(self, name: str, pool: str) -> Scores:
        """Return 10 items of each task whose mean is the written score; of ``loss`` its negative.

        Half of them, others for each candidate, lie .3 above it, so that intervals are wide.
        """
        level = self.outcomes[name][("search", "select", "report").index(pool)]
        found = {}
        for task in self.tasks.evaluators:
            noise = [toy.noise(name, task, i, pool) for i in range(10)]
            spread = [0.3 if x >= sorted(noise)[5] else -0.3 for x in noise]
            found[task] = [level * (-1 if task == "loss" else 1) + x for x in spread]
        return found

    def settled(self, name: str, number: int) -> Trial:
        named = name in ("base", "uniform", "defaults") or ":" in name
        recipe = Recipe("linear", (Source(name, (("weight", 1.0),)),))
        scores = self.scores_of(self.same.get(name, name), "search")
        value, stderr = self.tasks.value(scores, "search")
        return Trial(
            number,
            "complete",
            recipe,
            baseline=name if named else None,
            weights_digest=self.same.get(name, name),
            value=value,
            stderr=stderr,
            measured={"search": Measurement(scores, {"build": 1.0, "model": 2.0, "other": 0.5})},
        )


@pytest.fixture
def bench(study: Study) -> Scripted:
    return Scripted(study(finalists=3))


@pytest.fixture
def fill(memory: Record, bench: Scripted) -> Callable[..., Record]:
    """Fills a record with candidates; of a name in ``failed`` comes a failed trial."""

    def get(*names: str, failed: tuple[str, ...] = ()) -> Record:
        for number, name in enumerate(names or OUTCOMES):
            trial = bench.settled(name, number)
            if name in failed:
                trial = Trial(number, "failed", trial.recipe, trial.baseline, error="E: x")
            memory.add(trial, {})
        return memory

    return get


def chosen(record: Record, bench: Scripted) -> Selection:
    return select(record, bench, toy.Listener())


def reported(record: Record, bench: Scripted) -> dict[str, Any]:
    """Select, measure on the report pool, and summarise."""
    found = chosen(record, bench)
    measure(record, bench, "report", found.named.values(), toy.Listener())
    return summarize(record, bench.spec, bench.tasks, found).to_json()


def name_of(trial: Trial) -> str:
    return trial.recipe.models[0].model


def test_the_best_by_both_pools_wins_not_the_best_search_score(fill: Any, bench: Any) -> None:
    record = fill()
    assert name_of(max(record.trials, key=lambda t: t.value)) == "lucky"
    assert name_of(record.trial(chosen(record, bench).winner)) == "good"


def test_nothing_is_chosen_on_the_report_pool(fill: Any, bench: Any) -> None:
    record = fill()
    found = chosen(record, bench)
    assert {pool for pool, _ in bench.scored} == {"select"}
    assert toy.measured(record, "report") == {}
    assert (
        max(OUTCOMES, key=lambda name: OUTCOMES[name][2])
        == "fair"
        != name_of(record.trial(found.winner))
    )


def test_the_choice_stays_when_report_scores_are_known(fill: Any, bench: Any) -> None:
    record = fill()
    before = chosen(record, bench)
    reported(record, bench)
    assert chosen(record, bench) == before


def test_the_best_parent_is_the_best_by_both_pools(fill: Any, bench: Any) -> None:
    assert chosen(fill(), bench).best_parent == "parent:two"


def test_only_so_many_finalists_are_scored_beside_the_parents(fill: Any, bench: Any) -> None:
    bench.outcomes = {**OUTCOMES, "poor": (0.65, 0.99, 0.5)}
    record = fill(*bench.outcomes)
    assert name_of(record.trial(chosen(record, bench).winner)) == "good"
    wanted = ("parent:one", "parent:two", "lucky", "good", "fair")
    assert set(bench.scored) == {("select", name) for name in wanted}


def test_a_baseline_can_be_a_finalist_and_win(fill: Any, bench: Any) -> None:
    bench.outcomes = {**OUTCOMES, "uniform": (0.85, 0.95, 0.5)}
    record = fill()
    found = chosen(record, bench)
    assert record.trial(found.winner).baseline == "uniform"
    assert found.named["winner"] == found.named["uniform"]


def test_equal_weights_take_one_place_among_the_finalists(fill: Any, bench: Any) -> None:
    bench.same = {"copy": "lucky", "twin": "lucky"}
    bench.outcomes = {**OUTCOMES, "fourth": (0.65, 0.99, 0.5)}
    record = fill(*OUTCOMES, "copy", "twin", "fourth")
    chosen(record, bench)
    numbers = {name: n for n, name in enumerate([*OUTCOMES, "copy", "twin", "fourth"])}
    wanted = ("parent:one", "parent:two", "lucky", "good", "fair")
    assert set(toy.measured(record, "select")) == {numbers[name] for name in wanted}


def test_of_equal_weights_the_first_trial_stands_for_all(fill: Any, bench: Any) -> None:
    bench.same = {"copy": "good"}
    record = fill("copy", *OUTCOMES)
    assert chosen(record, bench).winner == 0


def test_equal_select_scores_go_to_the_earlier_trial(
    fill: Any, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "scores_of", lambda *_: {"gain": [0.5] * 4, "loss": [-0.5] * 4})
    record = fill("parent:one", "good", "lucky")
    assert chosen(record, bench).winner == 0


def test_the_report_is_about_plain_baselines_the_best_simple_merge_and_the_winner(
    fill: Any, bench: Any
) -> None:
    assert list(chosen(fill(), bench).named) == [
        "base",
        "parent:one",
        "parent:two",
        "uniform",
        "defaults",
        "winner",
    ]


def test_nothing_is_built_or_scored_twice(fill: Any, bench: Any) -> None:
    record = fill()
    first = reported(record, bench)
    assert len(bench.scored) == len(set(bench.scored)) == 5 + 6
    bench.built.clear()
    assert reported(record, bench) == first
    assert (len(bench.scored), bench.built) == (11, [])


@pytest.mark.parametrize("pool", ["select", "report"])
def test_a_measurement_that_was_broken_off_goes_on_where_it_was(
    fill: Any, bench: Any, pool: str
) -> None:
    record = fill()
    measure(record, bench, pool, range(4), toy.Listener())
    listener = toy.Listener()
    measure(record, bench, pool, range(len(record.trials)), listener)
    assert bench.scored == [(pool, name) for name in OUTCOMES]
    assert listener.stages == [f"{pool} pool: candidate {i} of 5" for i in range(1, 6)]


@pytest.mark.parametrize("pool", ["select", "report"])
def test_the_users_stop_is_heeded_between_two_candidates_of_every_pool(
    fill: Any, bench: Any, pool: str
) -> None:
    record = fill()
    stops = iter([False, False, True])
    with pytest.raises(StopRequested):
        measure(record, bench, pool, range(9), toy.Listener(), lambda: next(stops))
    assert sorted(toy.measured(record, pool)) == [0, 1]


@pytest.mark.parametrize("count", range(14))
def test_a_choice_that_was_stopped_goes_on_there(fill: Any, bench: Any, count: int) -> None:
    record = fill()
    answers = iter([False] * count)
    try:
        choose(record, bench, toy.Listener(), lambda: next(answers, True))
    except StopRequested:
        assert len(bench.scored) == count < 13
    found = choose(record, bench, toy.Listener())
    assert len(bench.scored) == len(set(bench.scored)) == 13  # 2 finalists on the report pool
    assert name_of(record.trial(found.winner)) == "good"


def test_equal_weights_are_scored_once_and_stored_for_each_trial(fill: Any, bench: Any) -> None:
    bench.same = {"uniform": "parent:one"}
    record = fill()
    measure(record, bench, "report", range(9), toy.Listener())
    stored = toy.measured(record, "report")
    assert stored[1] == stored[3]
    assert ("report", "uniform") not in bench.scored
    assert len(stored) == len(bench.scored) + 1


def test_what_is_stored_of_a_measurement_are_scores_and_seconds(fill: Any, bench: Any) -> None:
    record = fill()
    chosen(record, bench)
    assert record.trial(8).measured["select"].scores == bench.scores_of("fair", "select")
    assert set(record.trial(8).measured["select"].seconds) == {"build", "model"}


def test_weights_that_are_no_longer_what_they_were_stop_the_selection(
    fill: Any, bench: Any
) -> None:
    record = fill()
    bench.same = {"good": "other"}
    with pytest.raises(
        MergeError, match=r"^trial 7 was built again with other weights \(other, was g"
    ):
        chosen(record, bench)


def test_a_study_without_a_complete_trial_has_no_winner(fill: Any, bench: Any) -> None:
    with pytest.raises(MergeError, match=r"^no trial is complete, so there is no winner"):
        chosen(fill("base", "parent:one", failed=("base", "parent:one")), bench)


def test_a_study_whose_parents_all_failed_has_nothing_to_compare_with(
    fill: Any, bench: Any
) -> None:
    with pytest.raises(MergeError, match=r"^every parent failed as a candidate"):
        chosen(fill("base", "parent:one", "good", failed=("parent:one",)), bench)


def failing(bench: Scripted, *which: tuple[str, str], error: Exception | None = None) -> None:
    """Let a worker fail for these pools and candidates."""
    score = bench.score

    def scored(pool: str, blocks: Any = None) -> Scores:
        if (pool, bench.live) in which:
            raise error or ItemError("gain: 1 of 10 items have no score")
        return score(pool, blocks)

    bench.score = scored  # type: ignore[method-assign]


def finished(record: Record, bench: Scripted) -> dict[str, Any]:
    summary = summarize(record, bench.spec, bench.tasks, choose(record, bench, toy.Listener()))
    record.finish(summary.to_json())
    return summary.to_json()


@pytest.mark.parametrize("pool", ["select", "report"])
def test_a_finalist_that_fails_on_a_later_pool_is_dropped_with_its_reason(
    fill: Any, bench: Any, pool: str
) -> None:
    record = fill()
    failing(bench, (pool, "good"))
    summary = finished(record, bench)
    assert name_of(record.trial(summary["winner"]["trial"])) == "fair"
    reason = f"on the {pool} pool: merge_core.errors.ItemError: gain: 1 of 10 items have no score"
    assert summary["notices"] == [f"Trial 7 was dropped {reason}"]
    stored = thawed(record._stored._study.trials[7], record._stored._study.user_attrs)
    assert stored.dropped == record.trial(7).dropped == reason


@pytest.mark.parametrize("pool", ["select", "report"])
def test_a_baseline_that_fails_on_a_later_pool_is_dropped_and_named(
    fill: Any, bench: Any, pool: str
) -> None:
    failing(bench, (pool, "parent:two"), ("report", "defaults"))
    summary = finished(fill(), bench)
    names = [row["name"] for row in summary["candidates"]]
    assert names == ["base", "parent:one", "uniform", "winner"]
    assert (summary["best_parent"], summary["best_simple"]) == ("parent:one", "uniform")
    named = [notice.split(")")[0] for notice in summary["notices"]]
    assert named == ["Trial 2 (parent:two", "Trial 4 (defaults"]


def test_scores_of_a_later_pool_that_are_infinite_drop_the_candidate(
    fill: Any, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores_of, record = bench.scores_of, fill()
    infinite = {"gain": [float("inf")] * 10, "loss": [0.0] * 10}
    monkeypatch.setattr(
        bench, "scores_of", lambda *x: infinite if x[0] == "good" else scores_of(*x)
    )
    summary = finished(record, bench)
    assert name_of(record.trial(summary["winner"]["trial"])) == "fair"


def test_a_finished_study_keeps_who_was_dropped(fill: Any, bench: Any) -> None:
    record = fill()
    failing(bench, ("select", "good"))
    first = finished(record, bench)
    study = record._stored._study
    again, fresh = Record(study, "memory"), Scripted(bench.spec)
    assert finished(again, fresh) == first
    assert fresh.scored == []


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("lucky", "good", "fair"), "every finalist was dropped, .*on the select pool: .*gain: 1"),
        (("parent:one", "parent:two"), "every parent failed .*; Trial 1 .parent:one. was dropped"),
    ],
)
def test_where_nobody_is_left_nothing_is_stored_of_it_and_the_next_run_tries_again(
    fill: Any, bench: Any, names: tuple[str, ...], message: str
) -> None:
    record = fill()
    failing(bench, *(("select", name) for name in names))
    with pytest.raises(MergeError, match=message):
        finished(record, bench)
    again = Record(record._stored._study, "memory")
    assert len(toy.measured(again, "select")) == 5 - len(names)
    assert not finished(again, Scripted(bench.spec))["notices"]


@pytest.mark.parametrize("pool", ["select", "report"])
def test_an_outage_on_a_later_pool_drops_nobody(fill: Any, bench: Any, pool: str) -> None:
    record = fill()
    failing(bench, (pool, "good"), error=OSError("disk"))
    with pytest.raises(InterruptedStudyError, match=rf"^trial 7 on the {pool} pool: OSError: disk"):
        finished(record, bench)
    assert not any(trial.dropped for trial in record.trials)


def test_a_failed_baseline_is_left_out(fill: Any, bench: Any) -> None:
    summary = reported(fill(failed=("uniform", "base", "lucky")), bench)
    assert [row["name"] for row in summary["candidates"]] == [
        "parent:one",
        "parent:two",
        "defaults",
        "winner",
    ]
    differences = [key for key in summary["winner"] if key.startswith("minus_")]
    assert differences == ["minus_best_parent", "minus_best_simple"]
    assert summary["trials"] == {"complete": 6, "stopped": 0, "failed": 3}


def test_differences_are_those_of_paired_statistics_on_the_report_pool(
    fill: Any, bench: Any
) -> None:
    summary = reported(fill(), bench)
    ours = bench.scores_of("good", "report")
    rivals = {
        "best_parent": "parent:two",
        "best_simple": "defaults",
        "uniform": "uniform",
        "base": "base",
    }
    for label, rival in rivals.items():
        theirs = bench.scores_of(rival, "report")
        direct = intervals.paired_difference(
            [np.array(ours["gain"]), -np.array(ours["loss"])],
            [np.array(theirs["gain"]), -np.array(theirs["loss"])],
            [1.0, 0.5],
        )
        found = summary["winner"][f"minus_{label}"]
        limits = {"estimate": direct.mean, "low": direct.low, "high": direct.high}
        assert limits.items() <= found.items()
    assert summary["best_parent"] == "parent:two"


def test_a_task_where_lower_is_better_counts_against_the_mean_but_is_shown_as_it_is(
    fill: Any, bench: Any
) -> None:
    rows = {row["name"]: row["report"] for row in reported(fill(), bench)["candidates"]}
    scores = bench.scores_of("good", "report")
    gain, loss = (intervals.combined([scores[task]], [1.0]) for task in ("gain", "loss"))
    found = rows["winner"]
    assert found["tasks"]["gain"] == {"mean": gain.mean, "low": gain.low, "high": gain.high}
    assert found["tasks"]["loss"] == pytest.approx(
        {"mean": loss.mean, "low": loss.low, "high": loss.high}, abs=1e-12
    )
    assert found["mean"] == pytest.approx((gain.mean - 0.5 * loss.mean) / 1.5)
    assert found["low"] < found["mean"] < found["high"]


def test_less_loss_is_a_better_value(bench: Any) -> None:
    worse, _ = bench.tasks.value({"gain": [0.5, 0.4], "loss": [0.3, 0.5]}, "search")
    better, _ = bench.tasks.value({"gain": [0.5, 0.4], "loss": [0.2, 0.5]}, "search")
    assert better - worse == pytest.approx(0.05 * 0.5 / 1.5)


def test_the_summary_has_the_keys_that_scripts_rely_on(fill: Any, bench: Any) -> None:
    summary = json.loads(json.dumps(reported(fill(), bench), allow_nan=False))
    assert {key: summary[key] for key in ("format", "seed", "trials", "pools")} == {
        "format": 1,
        "seed": 3,
        "trials": {"complete": 9, "stopped": 0, "failed": 0},
        "pools": {"search": 20, "select": 20, "report": 20},
    }
    winner = summary["winner"]
    assert {"trial", "recipe_digest", "weights_digest", "search", "select", "report"} <= set(winner)
    assert (winner["trial"], winner["weights_digest"]) == (7, "good")
    for row in summary["candidates"]:
        assert set(row) == {"name", "trial", "report"}
        assert set(row["report"]) == {"mean", "low", "high", "tasks"}
        assert set(row["report"]["tasks"]) == {"gain", "loss"}


def test_the_optimism_of_the_search_score_is_shown(fill: Any, bench: Any) -> None:
    record = fill()
    winner = reported(record, bench)["winner"]
    assert winner["search"] == {"mean": record.trials[7].value}
    for pool in ("select", "report"):
        value, _ = bench.tasks.value(bench.scores_of("good", pool), pool)
        assert winner[pool]["mean"] == pytest.approx(value)
    assert winner["search"]["mean"] > winner["select"]["mean"] > winner["report"]["mean"]


def test_items_of_equal_weights_cost_once(fill: Any, bench: Any) -> None:
    bench.same = {"uniform": "parent:one"}
    record = fill()
    record.trials[3] = replace(record.trials[3], same_as=1)
    cost = reported(record, bench)["cost"]
    assert len(bench.scored) == 5 + 5
    assert cost["items_scored"] == 20 * (8 + 5 + 5)
    assert cost["items_full"] == 20 * (9 + 5 + 6)


def test_seconds_of_trials_and_measurements_are_added_up(
    fill: Any, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(10**6))
    monkeypatch.setattr(worker.time, "perf_counter", lambda: next(now))
    cost = reported(fill(), bench)["cost"]
    assert cost["seconds"] == {"build": 9 * 1 + 11, "model": 9 * 2 + 11, "other": 9 * 0.5}


def test_the_pools_have_no_item_in_common_and_are_stored(study: Study) -> None:
    record = toy.in_memory(study(trials=1))
    pools = {pool: record.item_ids(pool) for pool in ("search", "select", "report")}
    items = [item for pool in pools.values() for ids in pool.values() for item in ids]
    assert len(items) == len(set(items)) == 60
    assert [len(pool["gain"]) for pool in pools.values()] == [10, 10, 10]


def test_scores_are_those_of_the_pools_own_items_in_the_pools_order(study: Study) -> None:
    spec = study(trials=1)
    bench, record = toy.Toy(spec), toy.in_memory(spec)
    found = select(record, bench, toy.Listener())
    model, ids = bench.model(record.trial(found.winner).recipe), record.item_ids("select")
    assert record.trial(found.winner).measured["select"].scores == {
        name: [task.score_one(model, item) for item in ids[name]]
        for name, task in bench.tasks.evaluators.items()
    }


def test_a_group_is_one_entry_with_its_own_mean_and_its_tasks_beside(
    fill: Any, bench: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = Suite("both", ((toy.Task("gain"), 0.25), (toy.Task("more"), 0.75)))
    spec = bench.spec.model_copy(update={"scores": bench.spec.scores[:1]})
    grouped = Scripted(spec, tasks=[suite])
    record = Record(optuna.create_study(direction="maximize"), "memory")
    for number, name in enumerate(OUTCOMES):
        record.trials.append(grouped.settled(name, number))
    found = reported(record, grouped)
    scores = grouped.scores_of(name_of(record.trial(chosen(record, grouped).winner)), "report")
    mean = 0.25 * np.mean(scores["gain"]) + 0.75 * np.mean(scores["more"])
    winner = found["winner"]["report"]
    assert winner["groups"]["both"]["mean"] == pytest.approx(mean)
    assert (winner["mean"], set(winner["tasks"])) == (pytest.approx(mean), {"gain", "more"})
    assert found["score"] == {
        "aggregate": "mean",
        "entries": [
            {
                "name": "both",
                "weight": 1.0,
                "tasks": {
                    "gain": {"share": 0.25, "chance": 0.0},
                    "more": {"share": 0.75, "chance": 0.0},
                },
            }
        ],
    }
    tables.report(Report.from_json(found))
    table = capsys.readouterr().out
    assert "both" in table
    assert "gain" not in table


@pytest.mark.parametrize("kind", ["min", "geometric_mean"])
def test_values_and_differences_are_of_the_aggregate_that_was_asked_for(
    fill: Any, bench: Any, kind: str
) -> None:
    spec = bench.spec.model_copy(update={"aggregate": kind})
    other = Scripted(spec, tasks=[toy.Task("gain"), toy.Task("more")])
    record = Record(optuna.create_study(direction="maximize"), "memory")
    for number, name in enumerate(OUTCOMES):
        record.trials.append(other.settled(name, number))
    found = reported(record, other)
    ours = other.scores_of("good", "report")
    means = [np.mean(ours["gain"]), np.mean(ours["more"])]
    logs = np.log(means) @ [1.0, 0.5] / 1.5  # the toy's second task has weight 0.5
    expected = min(means) if kind == "min" else float(np.exp(logs))
    assert found["winner"]["report"]["mean"] == pytest.approx(expected)
    assert found["score"]["aggregate"] == kind
    theirs = next(r for r in found["candidates"] if r["name"] == "uniform")["report"]["mean"]
    difference = found["winner"]["minus_uniform"]
    assert difference["estimate"] == pytest.approx(expected - theirs)
    assert difference["low"] <= difference["estimate"] <= difference["high"]


def test_what_a_reader_must_know_is_in_the_summary_and_on_the_screen_once(
    bench: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    record = Record(optuna.create_study(direction="maximize"), "memory")
    for number, name in enumerate(OUTCOMES):
        record.trials.append(bench.settled(name, number))
    assert reported(record, bench)["notices"] == []
    for task in bench.tasks.evaluators.values():
        task.facts = replace(task.facts, notice="All of the test split of the public benchmark x.")
    found = reported(record, bench)
    assert found["notices"] == ["All of the test split of the public benchmark x."]
    tables.report(Report.from_json(found))
    assert capsys.readouterr().out.count("the public benchmark x.") == 1
