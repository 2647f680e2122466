"""A small real study that is searched by gradient: its trials, its resumption, its refusals."""

import json
import math
import os
import subprocess
import sys

import optuna
import pytest
from typer.testing import CliRunner

from merge_core.errors import MergeError
from search.cli import app
from search.report.reproduce import reproduce
from search.run import steps
from search.run.study import run
from search.spec import study_file
from search.storage.locate import open_study
from search.trial.worker import Worker
from search.workers import hire
from tests.search.real import Quiet, run_whole, without_costs, worker_of, write_study


class Told(Quiet):
    """Progress that is kept."""

    def __init__(self):
        self.notices = []

    def notice(self, text):
        self.notices.append(text)


def stop_after(n):
    """Stop once so many trials may have been settled."""
    asked = iter(range(n))
    return lambda: next(asked, None) is None


def trials_of(study):
    _, record = open_study(str(study))
    return [(t.row(), t.gradient, t.recipe.plain()) for t in record.trials], record


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished study of eight steps, with its summary."""
    study = write_study(tmp_path_factory.mktemp("gradient"), sampler="gradient", trials=8)
    return study, run_whole(study)


def test_every_step_is_a_trial_with_recipe_and_weights_and_every_fifth_has_scores(finished):
    study, summary = finished
    _, record = trials_of(study)
    steps = [t for t in record.trials if t.baseline is None]
    assert [t.state for t in steps] == [
        "complete",
        *["unscored"] * 4,
        "complete",
        "unscored",
        "complete",
    ]
    assert all(t.weights_digest for t in steps)
    assert len({t.weights_digest for t in steps}) == 8
    assert steps[0].recipe == record.trial(steps[0].same_as).recipe
    assert [t.gradient.held_out is not None for t in steps] == [
        True,
        *[False] * 4,
        True,
        False,
        False,
    ]
    assert all(t.gradient.slopes.keys() == t.params.keys() for t in steps[:-1])
    assert steps[-1].gradient.mean
    assert summary["trials"]["unscored"] == 5
    losses = [t.gradient.loss for t in steps[:-1]]
    assert all(map(math.isfinite, losses))


def test_steps_that_two_workers_share_are_those_of_one(finished, tmp_path, monkeypatch):
    class Two(Worker):
        count = 2

    monkeypatch.setattr(hire, "Worker", Two)
    study = write_study(tmp_path / "gradient", sampler="gradient", trials=8)
    assert without_costs(run_whole(study)) == without_costs(finished[1])
    (ours, record), (theirs, _) = trials_of(study), trials_of(finished[0])
    assert ours == theirs
    assert record.runs[-1]["workers"] == 2


def test_loss_of_what_is_learnt_from_falls(finished):
    _, record = trials_of(finished[0])
    losses = [t.gradient.loss for t in record.trials if t.gradient and t.gradient.loss is not None]
    assert losses[-1] < losses[0]  # of all twelve items at each step


def test_winner_is_not_worse_than_the_best_simple_merge_on_the_items_that_steered(finished):
    _, record = trials_of(finished[0])
    best = max(t.value for t in record.trials if t.baseline)
    assert max(t.value for t in record.trials if t.value is not None) >= best


def test_every_trial_is_reproduced_from_the_database(finished):
    spec, record = open_study(str(finished[0]))
    rows = list(reproduce(record, worker_of(spec, record), range(len(record.trials))))
    assert {row["verdict"] for row in rows} == {"identical"}


def test_any_optuna_tool_opens_the_steps(finished):
    study = optuna.load_study(
        study_name="small", storage=f"sqlite:///{finished[0].parent}/results/study.db"
    )
    states = [t.state.name for t in study.get_trials() if "gradient" in t.user_attrs]
    assert states == ["COMPLETE", *["PRUNED"] * 4, "COMPLETE", "PRUNED", "COMPLETE"]


def test_trials_are_listed_with_what_steps_cost(finished):
    rows = json.loads(CliRunner().invoke(app, ["trials", str(finished[0]), "--json"]).stdout)
    steps = [row for row in rows if "gradient" in row]
    assert steps[1]["gradient"]["items"] == 3 * 12  # three quarters of sixteen, forward and back
    assert steps[0]["gradient"]["items"] == 3 * 12 + 4
    assert "slopes" not in steps[0]["gradient"]


def assert_same_trials(study, other):
    ours, theirs = (
        [(t.params, t.weights_digest, t.gradient, t.value) for t in trials_of(x)[1].trials]
        for x in (study, other)
    )
    assert ours == theirs


@pytest.mark.slow
def test_study_is_the_same_in_a_process_with_other_hashes(finished, tmp_path):
    study = write_study(tmp_path, sampler="gradient", trials=8)
    command = [sys.executable, "-m", "mergetune", "run", str(study)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert_same_trials(study, finished[0])


@pytest.mark.slow
@pytest.mark.parametrize("after", [8, 10, 13])
def test_study_that_is_stopped_goes_on_to_the_bit(finished, tmp_path, after):
    study = write_study(tmp_path, sampler="gradient", trials=8)
    assert run(study, Quiet(), stop_after(after)) is None
    broken = without_costs(run_whole(study))
    assert broken == without_costs(finished[1])
    assert_same_trials(study, finished[0])


def test_auto_takes_steps_first_and_draws_close_to_the_best_then(tmp_path, monkeypatch):
    study = write_study(tmp_path, sampler="auto", trials=8)
    monkeypatch.setattr(steps, "GENERATIONS", 0)
    run_whole(study)
    searched = [t for t in trials_of(study)[1].trials if t.baseline is None]
    assert [t.gradient is not None for t in searched] == [True] * 6 + [False] * 2
    best = steps.best_point(searched[:6])
    for trial in searched[6:]:
        assert max(abs(trial.params[name] - best[name]) for name in best) < 0.5


def test_auto_takes_steps_alone_where_draws_would_be_too_few(tmp_path):
    study = write_study(tmp_path, sampler="auto", trials=3)
    run_whole(study)
    searched = [t for t in trials_of(study)[1].trials if t.baseline is None]
    assert all(t.gradient is not None for t in searched)


def with_task(study, entry):
    text = study.read_text()
    study.write_text(text.replace("items:", f"  - {entry}\nitems:", 1))
    (study.parent / "q.jsonl").write_text("".join(f'{{"q": "add {i}+1="}}\n' for i in range(9)))


JUDGE = (
    '{evaluator: judge, file: q.jsonl, prompt: "{{ q }}", rubric: "{{ answer }}", '
    'base_url: "http://localhost:1/v1", model: m}'
)


def test_gradient_where_a_task_has_no_right_answers_is_refused_before_anything_is_built(tmp_path):
    study = write_study(tmp_path, sampler="gradient")
    with_task(study, JUDGE)
    with pytest.raises(MergeError, match=r"'gradient' cannot search here: q has no gradient: "):
        run_whole(study)
    assert trials_of(study)[0] == []


def test_auto_goes_on_without_a_gradient_and_says_why(tmp_path):
    study = write_study(tmp_path, sampler="auto", trials=2)
    text = study.read_text().replace("high: 1.5, per: 2", "high: 1.5, step: 0.1, per: 2")
    study.write_text(text)
    told = Told()
    run(study, told, lambda: False)
    assert any("searched without gradients: no knob has a derivative" in x for x in told.notices)
    assert all(t.gradient is None for t in trials_of(study)[1].trials)


def test_gradient_of_several_objectives_or_on_vllm_is_refused_in_the_study_file(tmp_path):
    study = write_study(tmp_path, sampler="gradient")
    text = study.read_text()
    for change in ("aggregate: apart\n", "engine: {name: vllm}\n"):
        lines = [
            x
            for x in text.splitlines()
            if not (change.startswith("engine") and x.startswith("engine"))
        ]
        study.write_text("\n".join([*lines, change]))
        with pytest.raises(MergeError, match=r"search\.sampler: 'gradient'"):
            study_file.read(study)
