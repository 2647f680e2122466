"""A job and its result are values that travel; the worker does the same in another process."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from merge_core.errors import EvaluationError, NonFiniteError
from merge_core.recipe.schema import Recipe, Source
from search.spec import study_file
from search.trial.failure import Failure
from search.trial.worker import Job, Result, Worker
from tests.search import toy
from tests.search.real import write_study

SOURCES = Source("org/one", (("weight", 1 / 3),)), Source("org/two", (("weight", 0.25),))
RECIPE = Recipe("task_arithmetic", SOURCES, "org/base")
JOB = Job(RECIPE, "search", blocks={"gain": (2, 5)}, known=frozenset({"00ff"}), expected="ff00")


@pytest.fixture
def bench() -> toy.Toy:
    return toy.Toy(toy.spec_of(toy.STUDY, Path("/nowhere")))


def raising(error: Exception) -> Callable[..., Any]:
    def wrong(*_: object) -> Any:
        raise error

    return wrong


def test_job_and_result_come_out_of_a_pickle_as_they_went_in() -> None:
    assert pickle.loads(pickle.dumps(JOB)) == JOB
    failure = Failure(False, "OSError", "OSError: disk", "Traceback ...", "Traceback ...")
    for result in (Result("00ff", {"gain": [0.1 + 0.2]}, {"build": 0.5}), Result(failure=failure)):
        assert pickle.loads(pickle.dumps(result)) == result


def test_a_result_has_digest_scores_and_seconds(bench: toy.Toy) -> None:
    result = bench.run(Job(RECIPE, "select"))
    assert result.weights_digest == bench.model(RECIPE).digest
    assert {task: len(x) for task, x in (result.scores or {}).items()} == {"gain": 10, "loss": 10}
    assert (set(result.seconds), result.failure) == ({"build", "model"}, None)


def test_the_candidate_that_is_live_is_not_built_again_unless_a_job_failed(
    bench: toy.Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pool in ("search", "select"):
        bench.run(Job(RECIPE, pool))
    assert bench.built == [RECIPE]
    with monkeypatch.context() as patch:
        patch.setattr(bench, "score", raising(OSError("gone")))
        bench.run(Job(RECIPE, "report"))
    bench.run(Job(RECIPE, "report"))
    assert bench.built == [RECIPE, RECIPE]


def test_weights_with_known_scores_or_other_than_expected_are_not_scored(bench: toy.Toy) -> None:
    digest = bench.model(RECIPE).digest
    unwanted = [{"known": frozenset({digest})}, {"expected": "other"}]
    found = [bench.run(Job(RECIPE, "search", **more)) for more in unwanted]  # type: ignore[arg-type]
    assert [(r.weights_digest, r.scores) for r in found] == [(digest, None)] * 2
    assert bench.scored == []
    assert bench.run(Job(RECIPE, "search", expected=digest)).scores


def test_an_error_the_user_can_mend_is_told_by_its_message_another_by_its_class(
    bench: toy.Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "build", raising(NonFiniteError("a.weight: 3 entries")))
    ours = bench.run(Job(RECIPE, "search"))
    assert (ours.weights_digest, ours.scores) == ("", None)
    assert ours.failure is not None
    assert ours.failure.kind == "NonFiniteError"
    assert ours.failure.reason == ours.failure.text == "a.weight: 3 entries"
    assert ours.failure.traceback.endswith("NonFiniteError: a.weight: 3 entries\n")
    monkeypatch.setattr(bench, "build", raising(ValueError("no\nluck")))
    theirs = bench.run(Job(RECIPE, "search")).failure
    assert theirs is not None
    assert (theirs.kind, theirs.reason) == ("ValueError", "ValueError: no")
    assert theirs.text == theirs.traceback


def test_blocks_are_places_in_the_pools_order_and_other_tasks_are_left_out() -> None:
    real = toy.Toy(toy.spec_of(toy.STUDY, Path("/nowhere")))
    model = real.model(RECIPE)
    score = super(toy.ToyTasks, real.tasks).score
    whole, part = score(model, "select"), score(model, "select", {"gain": (3, 6)})
    assert part == {"gain": whole["gain"][3:6]}


@pytest.mark.parametrize(
    ("scores", "got"),
    [
        (np.zeros(9), r"float64 of shape \(9,\)"),
        (np.zeros((10, 1)), r"float64 of shape \(10, 1\)"),
        (["a"] * 10, "list"),
    ],
)
def test_scores_that_are_not_one_number_per_item_are_refused(
    bench: toy.Toy, monkeypatch: pytest.MonkeyPatch, scores: Any, got: str
) -> None:
    monkeypatch.setattr(toy.Task, "score", lambda *_: scores)
    bench.build(RECIPE)
    rule = f"^gain: expected 10 scores as a float64 array, got {got}$"
    with pytest.raises(EvaluationError, match=rule):
        bench.score("search")


def worked(study: Any, folder: Path, job: Job) -> Result:
    """Make a worker and let it do a job."""
    return Worker(study, folder).run(job)


@pytest.mark.slow
def test_a_worker_in_a_spawned_process_gives_the_result_of_this_one(tmp_path: Path) -> None:
    spec = study_file.read(write_study(tmp_path / "study"))
    here = Worker(spec.data, spec.folder)
    space = here.builder.space
    job = Job(space.recipe({d.name: 0.4 for d in space.dimensions}), "search")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        there = pool.submit(worked, spec.data, spec.folder, job).result()
    assert there.failure is None
    assert there.scores
    assert replace(there, seconds={}) == replace(here.run(job), seconds={})
