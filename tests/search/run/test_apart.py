"""Studies with several objectives: fronts, the record, resuming, and who wins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from typer.testing import CliRunner

from search.cli import app
from search.report.measure import REPORT, SELECT, measure
from search.report.reproduce import reproduce
from search.report.select import select
from search.report.summarize import summarize
from search.report.summary import Report
from search.scoring.pareto import front, thinned
from search.spec.study_file import StudySpec
from search.storage.locate import open_study
from search.views import tables
from tests.search import toy

Study = Callable[..., StudySpec]
APART = toy.STUDY.replace("score:\n", "aggregate: apart\nscore:\n").replace("loss", "other")


class Other(toy.Task):
    """Best where the second parent is, so that it is at odds with ``gain``."""

    def __init__(self) -> None:
        super().__init__("other")

    def score_one(self, model: toy.Model, item: str) -> float:
        loss = sum(a**2 + (b - 1) ** 2 for a, b in model.points) / len(model.points)
        return 1 - loss + 0.1 * toy.noise(item)


@pytest.fixture
def spec(study: Study) -> StudySpec:
    return study(APART, trials=20, sampler="auto")


def bench_of(spec: StudySpec) -> toy.Toy:
    return toy.Toy(spec, tasks=[toy.Task("gain"), Other()])


# Fronts


def test_front_is_what_brute_force_over_pairs_leaves() -> None:
    values = {n: tuple(x) for n, x in enumerate(np.random.default_rng(0).integers(0, 5, (60, 3)))}
    array = np.array(list(values.values()))
    beaten = [((array >= x).all(1) & (array > x).any(1)).any() for x in array]
    assert front(values) == [n for n, lost in enumerate(beaten) if not lost]
    assert 1 < len(front(values)) < 60


def test_front_is_optunas() -> None:
    study = optuna.create_study(directions=["maximize"] * 2)
    rng = np.random.default_rng(1)
    for _ in range(50):
        study.add_trial(optuna.trial.create_trial(values=rng.normal(size=2).tolist()))
    values = {t.number: t.values for t in study.trials}
    assert front(values) == sorted(t.number for t in study.best_trials)


def test_equal_trials_stay_on_the_front() -> None:
    assert front({3: (1, 0), 5: (1, 0), 6: (0, 0), 7: (0, 1)}) == [3, 5, 7]


def test_the_best_overall_and_the_best_of_each_objective_come_first() -> None:
    values = {0: (9, 0), 1: (6, 6), 2: (0, 9), 3: (5, 7)}
    overall = {0: 4.5, 1: 6.0, 2: 4.5, 3: 6.0}
    assert [thinned(values, overall, n) for n in (1, 2, 3, 9)] == [
        [1],
        [1, 0],
        [1, 0, 2],
        [1, 0, 2, 3],
    ]


# The record


def test_a_trial_has_its_objectives_and_their_weighted_mean(spec: StudySpec) -> None:
    bench = bench_of(spec)
    trial = toy.in_memory(spec, bench).trials[-1]
    means = [np.mean(trial.search.scores[task]) for task in ("gain", "other")]
    assert trial.values == pytest.approx(means)
    assert trial.value == pytest.approx(np.dot(means, [1, 0.5]) / 1.5)
    assert trial.row()["values"] == list(trial.values)


def test_what_is_stored_is_an_optuna_study_of_several_objectives(spec: StudySpec) -> None:
    record = toy.searched(spec, bench_of(spec))
    _, again = open_study(str(spec.storage))
    assert toy.kept(again.trials) == toy.kept(record.trials)
    stored = optuna.load_study(study_name="toy", storage=spec.storage)
    assert len(stored.directions) == 2
    best = front({t.number: t.values for t in record.trials})
    assert sorted(t.number for t in stored.best_trials) == best


def test_a_failed_trial_has_no_objectives(spec: StudySpec, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(spec)
    build = bench.build

    def fails_once(recipe: Any) -> str:
        if len(bench.built) == 12:
            bench.built.append(recipe)
            raise MemoryError("no memory")
        return build(recipe)

    monkeypatch.setattr(bench, "build", fails_once)
    record = toy.searched(spec, bench)
    failed = [t for t in record.trials if t.state == "failed"]
    assert [(t.values, t.value) for t in failed] == [((), None)]
    _, again = open_study(str(spec.storage))
    assert toy.kept(again.trials) == toy.kept(record.trials)


@pytest.mark.parametrize("sampler", ["tpe", "auto", "random"])
def test_resuming_gives_the_trials_of_an_unbroken_run(study: Study, sampler: str) -> None:
    spec = study(APART, trials=30, sampler=sampler)
    whole = toy.in_memory(spec, bench_of(spec)).trials
    again = toy.in_memory(spec, bench_of(spec), before=whole[:30]).trials
    assert toy.kept(again) == toy.kept(whole)
    assert len(whole) == 40


def test_the_sampler_sees_every_objective(study: Study) -> None:
    # by the mean alone the trials after the random ones would be others
    apart, mean = study(APART, trials=16), study(APART.replace("apart", "mean"), "b", trials=16)
    one, other = (
        toy.in_memory(toy.spec_of(text, spec.folder, trials=16, sampler="tpe"), bench_of(spec))
        for text, spec in ((APART, apart), (APART.replace("apart", "mean"), mean))
    )
    params = [[dict(t.params) for t in record.trials] for record in (one, other)]
    assert params[0][:15] == params[1][:15]
    assert params[0] != params[1]


def test_every_trial_is_reproduced(spec: StudySpec) -> None:
    record = toy.searched(spec, bench_of(spec))
    rows = list(reproduce(record, bench_of(spec), range(len(record.trials))))
    assert {row["verdict"] for row in rows} == {"identical"}


def test_trials_are_listed_with_their_objectives_and_the_front(spec: StudySpec) -> None:
    record = toy.searched(spec, bench_of(spec))
    best = front({t.number: t.values for t in record.trials})
    run = CliRunner().invoke(app, ["trials", spec.storage, "--json"])
    rows = json.loads(run.stdout)
    assert [row["number"] for row in rows if row["front"]] == best
    assert [len(row["values"]) for row in rows] == [2] * len(rows)
    one = next(iter(record.trials[-1].params))  # with all knobs the heading is folded
    shown = CliRunner().invoke(app, ["trials", spec.storage, "--knobs", one]).stdout
    assert "* on the front" in shown


# Who wins


def test_the_front_is_reported_and_the_best_mean_of_it_wins(
    spec: StudySpec, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = bench_of(spec)
    record = toy.in_memory(spec, bench)
    chosen = select(record, bench, toy.Listener())
    best = front({t.number: t.values for t in record.trials})
    assert chosen.winner in best
    assert toy.measured(record, REPORT) == {}
    values = {n: record.trials[n].values for n in best}
    overall = {n: record.trials[n].value for n in best}
    scores = {n: found.scores for n, found in toy.measured(record, SELECT).items()}
    fresh = {n: bench.tasks.value(scores[n], SELECT)[0] for n in thinned(values, overall, 3)}
    assert chosen.winner == max(fresh, key=lambda n: fresh[n])
    names = [name for name in chosen.named if name.startswith("front:")]
    assert names
    measure(record, bench, REPORT, chosen.named.values(), toy.Listener())
    found = summarize(record, bench.spec, bench.tasks, chosen).to_json()
    assert [row["name"] for row in found["candidates"]][-len(names) - 1 :] == [*names, "winner"]
    entries = found["winner"]["minus_uniform"]["entries"]
    assert set(entries) == {"gain", "other"}
    assert entries["gain"]["low"] <= entries["gain"]["estimate"] <= entries["gain"]["high"]
    tables.report(Report.from_json(found))
    assert names[0] in capsys.readouterr().out


def test_no_more_finalists_than_asked_are_scored(study: Study) -> None:
    spec = study(APART, trials=20, finalists=2)
    bench = bench_of(spec)
    record = toy.in_memory(spec, bench)
    assert len(front({t.number: t.values for t in record.trials})) > 2
    chosen = select(record, bench, toy.Listener())
    scored = {n for n in toy.measured(record, SELECT) if record.trials[n].baseline is None}
    assert len(scored) <= 2
    assert len([n for n in chosen.named if n.startswith("front:")]) <= 1


# What is refused


def test_one_entry_cannot_be_kept_apart(tmp_path: Path) -> None:
    text = APART.replace("  - {evaluator: lm_eval, task: other, weight: 0.5}\n", "")
    with pytest.raises(Exception, match="'apart' needs at least two entries under `score`"):
        toy.spec_of(text, tmp_path)


def test_cma_es_is_refused_for_several_objectives(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="'cma-es' has one objective, `aggregate: apart` several"):
        toy.spec_of(APART, tmp_path, sampler="cma-es")


def test_a_study_with_several_objectives_cannot_go_on_with_one(spec: StudySpec) -> None:
    toy.searched(spec, bench_of(spec))
    other = toy.spec_of(APART.replace("apart", "mean"), spec.folder, trials=20, sampler="auto")
    with pytest.raises(Exception, match="began with another study file; changed: aggregate"):
        toy.searched(other, bench_of(other))
