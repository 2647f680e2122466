"""A graded metric steers the search; the standard one chooses and reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from evaluators.protocol import Suite
from evaluators.registry import EVALUATORS
from merge_core.errors import DocumentError, EvaluationError, MergeError
from merge_core.recipe import yaml_document
from search.cli import app
from search.report.measure import measure
from search.report.reproduce import reproduce
from search.report.select import select
from search.report.summarize import summarize
from search.report.summary import Report
from search.scoring.objectives import named
from search.spec.study_file import StudySpec, of_document
from search.storage.open import open_record
from search.storage.study_record import Record
from search.views import tables
from tests.search import toy

Study = Callable[..., StudySpec]
STUDY = toy.STUDY.replace("task: gain}", "task: gain, chance: 0.2, steer: slope}")
APART = STUDY.replace("score:\n", "aggregate: apart\nscore:\n")
BOTH = STUDY.replace("task: loss,", "task: gain2, steer: slope,")


class Slope(toy.Task):
    """Another metric of the items of a task: of other size, and steeper far from the best."""

    def __init__(
        self, task: str = "gain", count: int = 40, *, higher: bool = True, **more: Any
    ) -> None:
        super().__init__(task, count, **{"unit": "slopes", "higher_is_better": higher, **more})
        self._sign = 1 if higher else -1

    def fingerprint(self) -> str:
        return f"slope {self._sign}"

    def score_one(self, model: toy.Model, item: str) -> float:
        x, y = np.mean(model.points, axis=0)
        return float(self._sign * (5 - 30 * abs(x - 0.9) - 20 * abs(y - 0.1) + toy.noise(item)))


def bench_of(spec: StudySpec, **of: Any) -> toy.Toy:
    return toy.Toy(spec, steering={0: Slope(**of)})


@pytest.fixture
def spec(study: Study) -> StudySpec:
    return study(STUDY, trials=6)


@pytest.fixture
def bench(spec: StudySpec) -> toy.Toy:
    return bench_of(spec)


@pytest.fixture
def record(spec: StudySpec, bench: toy.Toy) -> Record:
    return toy.in_memory(spec, bench)


def finished(record: Record, bench: toy.Toy) -> dict[str, Any]:
    chosen = select(record, bench, toy.Listener())
    measure(record, bench, "report", chosen.named.values(), toy.Listener())
    return summarize(record, bench.spec, bench.tasks, chosen).to_json()


def direct(bench: toy.Toy, task: toy.Task, trial: Any, pool: str) -> list[float]:
    """Score a trial's recipe by an evaluator, without worker or record."""
    return list(task.score(bench.model(trial.recipe), bench.tasks.pools[pool].of(task.task)))


# What is scored by which


def test_search_scores_are_the_graded_ones_and_others_the_standard_ones(
    record: Record, bench: toy.Toy
) -> None:
    finished(record, bench)
    for trial in record.trials:
        assert trial.search.scores["gain"] == direct(bench, Slope(), trial, "search")
        assert trial.search.scores["loss"] == direct(bench, toy.Task("loss"), trial, "search")
    for pool in ("select", "report"):
        for number, found in toy.measured(record, pool).items():
            trial = record.trial(number)
            assert found.scores["gain"] == direct(bench, toy.Task("gain"), trial, pool)


def test_baselines_and_sampled_trials_have_the_graded_value(record: Record, bench: toy.Toy) -> None:
    told = [t.value for t in record._stored.trials()]
    for trial, value in zip(record.trials, told, strict=True):
        graded = np.mean(direct(bench, Slope(), trial, "search"))  # chance does not apply to it
        loss = np.mean(direct(bench, toy.Task("loss"), trial, "search"))
        assert value == pytest.approx((graded - 0.5 * loss) / 1.5)


def test_chance_still_counts_where_the_standard_metric_does(record: Record, bench: toy.Toy) -> None:
    found = finished(record, bench)["winner"]
    trial = record.trial(found["trial"])
    for pool in ("select", "report"):
        gain = (np.mean(direct(bench, toy.Task("gain"), trial, pool)) - 0.2) / 0.8
        loss = np.mean(direct(bench, toy.Task("loss"), trial, pool))
        expected = pytest.approx((gain - 0.5 * loss) / 1.5)
        assert found[pool]["mean"] == expected
        scores = record.trial(trial.number).measured[pool].scores
        assert bench.tasks.value(scores, pool)[0] == expected


def test_chance_counts_on_the_search_pool_where_nothing_else_steers(study: Study) -> None:
    spec = study(BOTH.replace("task: gain2, steer: slope", "task: gain2, chance: 0.3"), trials=1)
    trial = toy.in_memory(spec, bench_of(spec)).trials[0]
    slope, gain = (np.mean(trial.search.scores[task]) for task in ("gain", "gain2"))
    assert trial.value == pytest.approx((slope + 0.5 * (gain - 0.3) / 0.7) / 1.5)


def test_another_trial_is_best_by_what_steers(record: Record, bench: toy.Toy) -> None:
    # guards the tests above and below: the two metrics disagree about the trials
    gain = [np.mean(direct(bench, toy.Task("gain"), t, "search")) for t in record.trials]
    slope = [np.mean(t.search.scores["gain"]) for t in record.trials]
    assert np.argmax(gain) != np.argmax(slope)


def test_sampler_follows_what_steers(study: Study) -> None:
    steered = study(STUDY, trials=40, sampler="cma-es")
    plain = study(toy.STUDY, "plain", trials=40, sampler="cma-es")
    runs = toy.in_memory(steered, bench_of(steered)), toy.in_memory(plain)
    task = Slope()
    best = [
        max(np.mean(direct(bench_of(steered), task, t, "search")) for t in run.trials[10:])
        for run in runs
    ]
    assert best[0] > best[1]


def test_the_direction_is_that_of_the_metric_of_the_pool(spec: StudySpec) -> None:
    up, down = (toy.in_memory(spec, bench_of(spec, higher=x)) for x in (True, False))
    assert [t.value for t in up.trials] == [t.value for t in down.trials]
    signs = [np.sign(np.mean(run.trials[0].search.scores["gain"])) for run in (up, down)]
    assert signs[0] == -signs[1]


def test_every_objective_is_by_what_steers_it(study: Study) -> None:
    spec = study(APART, trials=4, sampler="tpe")
    bench = bench_of(spec)
    record = toy.in_memory(spec, bench)
    for trial in record.trials:
        graded = np.mean(direct(bench, Slope(), trial, "search"))
        assert trial.values == pytest.approx((graded, -np.mean(trial.search.scores["loss"])))
    found = finished(record, bench)
    assert found["winner"]["search"]["steered_by"] == {"gain": "slope"}
    others = [row["name"] for row in found["candidates"] if row["name"].startswith("front:")]
    trials = {record.trial(int(name.removeprefix("front:"))).number for name in others}
    assert trials <= set(toy.measured(record, "select"))


def test_members_of_a_group_are_steered_with_the_groups_own_shares(study: Study) -> None:
    text = STUDY.replace("  - {evaluator: lm_eval, task: loss, weight: 0.5}\n", "")
    spec = study(text.replace("task: gain,", "task: both,"), trials=1)
    tasks = Suite("both", ((toy.Task("gain"), 0.25), (toy.Task("more"), 0.75)))
    steering = Suite("both", ((Slope("gain"), 0.5), (Slope("more"), 0.5)))
    bench = toy.Toy(spec, tasks=[tasks], steering={0: steering})
    trial = toy.in_memory(spec, bench).trials[0]
    means = [np.mean(direct(bench, Slope(task), trial, "search")) for task in ("gain", "more")]
    assert trial.value == pytest.approx(np.dot(means, [0.25, 0.75]))


# What is stored and said


def test_resuming_gives_the_trials_of_an_unbroken_run(spec: StudySpec, record: Record) -> None:
    again = toy.in_memory(spec, bench_of(spec), before=record.trials[:12])
    assert toy.kept(again.trials) == toy.kept(record.trials)


def test_every_trial_reproduces_from_the_database_alone(spec: StudySpec) -> None:
    toy.searched(spec, bench_of(spec))
    record = open_record(spec.storage)
    assert {r["verdict"] for r in reproduce(record, bench_of(spec), range(16))} == {"identical"}
    other = bench_of(spec, higher=False)
    assert {r["verdict"] for r in reproduce(record, other, range(16))} == {"scores differ"}


def test_another_task_that_steers_is_refused_on_resume(spec: StudySpec) -> None:
    toy.searched(spec, bench_of(spec))
    rule = "^the tasks that steer the search of study 'toy' are not those it began with"
    with pytest.raises(MergeError, match=rule):
        toy.searched(spec, bench_of(spec, higher=False))


@pytest.mark.parametrize("to", ["chance: 0.2}", "chance: 0.2, steer: other}"])
def test_another_metric_to_steer_by_is_refused_on_resume(spec: StudySpec, to: str) -> None:
    toy.searched(spec, bench_of(spec))
    other = toy.spec_of(STUDY.replace("chance: 0.2, steer: slope}", to), spec.folder, trials=6)
    with pytest.raises(MergeError, match=r"changed: score\[0\].steer"):
        toy.searched(other, bench_of(other))


def test_measured_scores_are_left_out_where_they_are_measured(
    record: Record, spec: StudySpec
) -> None:
    bench = bench_of(spec, measured=True)
    measured = [bench.tasks.measured(p) for p in ("search", "select", "report")]
    assert measured == [{"gain"}, set(), set()]
    bench.tasks.steering["gain"]._sign = -1  # type: ignore[attr-defined]
    assert next(reproduce(record, bench, [0]))["verdict"] == "identical"


def test_search_values_are_said_to_have_another_unit(
    record: Record, bench: toy.Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    found = finished(record, bench)
    notice = "Search values are by slope (gain): another unit than all other scores have."
    assert found["notices"] == bench.tasks.notices == [notice]
    value = record.trial(found["winner"]["trial"]).value
    assert found["winner"]["search"] == {"mean": value, "steered_by": {"gain": "slope"}}
    assert [entry.get("steer") for entry in found["score"]["entries"]] == ["slope", None]
    tables.report(Report.from_json(found))
    said = capsys.readouterr().out
    assert f"The winner scored {value:.3f} by slope, another unit, on the 20 items that" in said
    assert notice in " ".join(said.split())


def test_trials_are_listed_with_what_their_values_are_by(study: Study) -> None:
    text = {"steered": STUDY, "plain": toy.STUDY}
    said = {}
    for name in text:
        spec = study(text[name].replace("name: toy", f"name: {name}"), name, trials=1)
        toy.searched(spec, bench_of(spec) if name == "steered" else None)
        said[name] = CliRunner().invoke(app, ["trials", spec.storage]).stdout
    assert "steered, values by slope" in said["steered"]
    assert "values by" not in said["plain"]


def test_a_study_without_steer_says_nothing_of_it(study: Study) -> None:
    spec = study(trials=1)
    bench = toy.Toy(spec)
    record = toy.in_memory(spec, bench)
    assert "steer" not in str(finished(record, bench))
    assert "steering" not in bench.tasks.about()


def test_what_steers_is_stored(bench: toy.Toy) -> None:
    about = bench.tasks.about()
    assert about["tasks"] == {"gain": "toy gain 1", "loss": "toy loss 1"}
    assert about["steering"] == {"gain": "slope 1"}


# What is refused


def problems_of(entry: dict[str, Any], **more: Any) -> list[tuple[str, str]]:
    data = {**yaml_document.parse(toy.STUDY, "study.yaml").data, "score": [entry], **more}
    with pytest.raises(DocumentError, match=r"study\.yaml") as caught:
        of_document(yaml_document.Document("study.yaml", data, {}), toy.Path("/nowhere"))
    return [(p.path, p.rule) for p in caught.value.problems]


CHOICE = {"evaluator": "multiple_choice", "file": "x", "prompt": "x", "choices": "x"}
METRICS = ("acc", "acc_norm", "acc_bytes", "margin", "probability")


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        (
            {**CHOICE, "steer": "margn"},
            f"expected one of {', '.join(METRICS)}, got 'margn', did you mean 'margin'?",
        ),
        ({**CHOICE, "steer": 3}, "expected a metric, got 3"),
        ({**CHOICE, "steer": None}, "expected a metric, got nothing"),
        (
            {"evaluator": "bits_per_byte", "file": "x", "steer": "nats"},
            "evaluator 'bits_per_byte' has no `metric` to choose; omit `steer`",
        ),
    ],
)
def test_what_cannot_steer_is_refused_when_the_file_is_read(
    entry: dict[str, Any], rule: str
) -> None:
    assert problems_of(entry) == [("score[0].steer", rule)]


def test_every_evaluator_with_metrics_can_be_steered_and_no_other() -> None:
    for name in EVALUATORS.names():
        found = problems_of({"evaluator": name, "steer": "no such", "nokey": 1})
        of_steer = [rule for path, rule in found if path == "score[0].steer"]
        options = {o["name"] for o in EVALUATORS.get(name).describe()["options"]}
        assert ("metric" not in options) == any("has no `metric`" in rule for rule in of_steer)


def test_a_geometric_mean_is_not_steered() -> None:
    entry = {**CHOICE, "steer": "margin"}
    rule = "'geometric_mean' needs scores above 0, which what steers may not have; omit `steer`"
    assert problems_of(entry, aggregate="geometric_mean") == [
        ("aggregate", f"{rule}, or use 'mean' or 'min'")
    ]


@pytest.mark.parametrize(
    ("steering", "rule"),
    [
        (Slope("other"), r"score\[0\].steer: by 'slope' gain has other items than the pools"),
        (Slope(count=39), r"score\[0\].steer: by 'slope' gain has other items than the pools"),
        (Suite("x", ((Slope(), 0.5), (Slope("y"), 0.5))), r"score\[0\].steer: .* other items"),
        (toy.Task("gain"), r"score\[0\].steer: by 'slope' gain is scored anyhow; omit `steer`"),
    ],
)
def test_what_does_not_fit_the_pools_or_changes_nothing_is_refused(
    spec: StudySpec, steering: Any, rule: str
) -> None:
    with pytest.raises(EvaluationError, match=rule):
        toy.Toy(spec, steering={0: steering})


def test_items_in_another_order_are_refused(spec: StudySpec) -> None:
    steering = Slope(items=Slope().items[::-1])
    with pytest.raises(EvaluationError, match="has other items than the pools are made of"):
        toy.Toy(spec, steering={0: steering})


def test_a_group_that_is_steered_both_ways_is_refused(spec: StudySpec) -> None:
    tasks = Suite("both", ((toy.Task("gain"), 0.5), (toy.Task("more"), 0.5)))
    steering = Suite("both", ((Slope(), 0.5), (Slope("more", higher=False), 0.5)))
    with pytest.raises(EvaluationError, match="with `steer`: both: a higher score is better in"):
        named(spec, [tasks, toy.Task("loss")], {0: steering})


def test_a_minimum_compares_one_unit_only(study: Study) -> None:
    text = BOTH.replace("score:\n", "aggregate: min\nscore:\n").replace(", weight: 0.5", "")
    spec = study(text)
    tasks = [toy.Task("gain"), toy.Task("gain2")]
    with pytest.raises(EvaluationError, match="with `steer` these would be slopes, points; let"):
        named(spec, tasks, {0: Slope()})
    with pytest.raises(EvaluationError, match="with `steer`: aggregate 'min' compares tasks with"):
        named(spec, tasks, {0: Slope(), 1: Slope("gain2", higher=False)})
    found = named(spec, tasks, {0: Slope(), 1: Slope("gain2")})
    assert list(found.steering) == ["gain", "gain2"]
