"""A dry run says what a study costs, and stores nothing."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluators.answer import Answer
from merge_core.errors import MergeError, NonFiniteError
from search.report.select import choose
from search.run.base_scores import base_scores
from search.run.dry_run import FEW, dry_run, measured
from search.space.starting_points import baselines
from search.spec.study_file import StudySpec
from search.trial import worker
from search.trial.budget import Change
from search.views import tables
from tests.search import toy
from tests.search.real import write_study

Study = Callable[..., StudySpec]


class Graded(toy.Task):
    def fingerprint(self) -> str:
        return "graded"


class Slow(toy.Toy):
    """Builds in 3 seconds, the first in 10; scores a task's item in its number of seconds."""

    ITEM = {"gain": 0.5, "loss": 2.0}  # noqa: RUF012

    def __init__(self, spec: StudySpec, clock: list[float], **more: Any) -> None:
        super().__init__(spec, **more)
        self._clock = clock
        score = self.tasks.scored_by

        def scored(live: Any, pool: str, blocks: Any = None) -> Any:
            sizes = {t: b - a for t, (a, b) in (blocks or {}).items()}
            self.scored.append((pool, str(sizes)))
            for task, size in sizes.items():
                steered = 10 if pool == "search" and task in self.tasks.steering else 1
                clock[0] += size * self.ITEM[task] * steered
            return {task: [0.0] * size for task, size in sizes.items() if task in score(pool)}

        self.tasks.score = scored  # type: ignore[method-assign]

    def build(self, recipe: Any) -> str:
        self._clock[0] += 3.0 if self.built else 10.0
        return super().build(recipe)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(worker.time, "perf_counter", lambda: now[0])
    return now


def test_costs_are_seconds_of_builds_and_items_times_their_numbers(
    study: Study, clock: list[float]
) -> None:
    spec = study(trials=6, finalists=3)
    bench = Slow(spec, clock)
    found = measured(spec, bench)
    assert (found.first_build, found.build) == (10.0, 3.0)
    assert found.per_item == {"gain": 0.5, "loss": 2.0}
    assert found.items == {"search": 20, "select": 20, "report": 20}
    each = 3.0 + 10 * 0.5 + 10 * 2.0  # of both tasks ten items
    assert found.seconds == {
        "trial": each,
        "step": 0.0,
        "baselines": 10 * each,
        "search": 6 * each,
        "select": 5 * each,
        "report": 8 * each,
        "all": 29 * each,
    }
    assert found.items_scored == 29 * 20
    assert found.memory["process"] > 2**20


def test_items_and_candidates_of_the_run_are_no_more_than_the_dry_runs(study: Study) -> None:
    spec = study(trials=6, finalists=3)
    found = measured(spec, toy.Toy(spec))
    bench = toy.Toy(spec)
    record = toy.in_memory(spec, bench)
    choose(record, bench, toy.Listener())
    assert len(record.trials) == found.candidates.baselines + found.candidates.trials
    assert 0.75 * found.items_scored < 20 * len(bench.scored) <= found.items_scored


def test_one_candidate_is_scored_on_a_few_items_of_each_task(
    study: Study, clock: list[float]
) -> None:
    text = toy.STUDY.replace("search: 20, select: 20", "search: 80, select: 20")
    spec = study(text)
    tasks = [toy.Task(name, 200) for name in ("gain", "loss")]
    bench = Slow(spec, clock, tasks=tasks)
    measured(spec, bench)
    assert len(bench.built) == 2
    assert len({recipe.digest() for recipe in bench.built}) == 2
    done = [(pool, sizes) for pool, sizes in bench.scored if sizes != "{}"]
    assert done == [
        ("search", f"{{'{task}': {size}}}") for task in ("gain", "loss") for size in (1, FEW)
    ]


def test_what_steers_costs_what_it_takes_on_the_search_items_only(
    study: Study, clock: list[float]
) -> None:
    text = toy.STUDY.replace("task: gain", "task: gain, steer: slope")
    spec = study(text, trials=6, finalists=3)
    bench = Slow(spec, clock, steering={0: Graded("gain")})
    found = measured(spec, bench)
    assert found.per_item == {"gain": 5.0, "loss": 2.0}
    assert found.seconds["trial"] == 3.0 + 10 * 5.0 + 10 * 2.0
    assert found.seconds["select"] == 5 * (3.0 + 10 * 0.5 + 10 * 2.0)


def test_the_budget_of_the_run_counts(study: Study, clock: list[float]) -> None:
    spec = study(trials=600)
    assert measured(spec, Slow(spec, clock), Change.of(trials=2)).candidates.trials == 2
    found = measured(spec, Slow(spec, clock), Change.of(hours=0.1))
    assert found.seconds["baselines"] == 280
    assert found.seconds["search"] == 360 - 280
    found = measured(spec, Slow(spec, clock), Change.of(hours=0.01))
    assert found.seconds["search"] == 0


def test_a_study_without_dimensions_has_no_trials_to_pay_for(
    study: Study, clock: list[float]
) -> None:
    text = toy.STUDY.replace("{low: 0.0, high: 1.5, per: 2}", "0.5")
    spec = study(text.replace("{low: 0.0, high: 1.5}", "0.5"), trials=9)
    found = measured(spec, Slow(spec, clock))
    assert (found.candidates.trials, found.seconds["search"]) == (0, 0.0)


def test_a_candidate_that_fails_is_an_error_with_its_reason(study: Study) -> None:
    spec = study()
    bench = toy.Toy(spec)

    def broken(_: Any) -> str:
        raise NonFiniteError("it has nan")

    bench.build = broken  # type: ignore[method-assign]
    with pytest.raises(MergeError, match=r"^the candidate of the dry run failed: it has nan"):
        measured(spec, bench)


def test_costs_are_printed_for_people(
    study: Study, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    spec = study(trials=120, finalists=3)
    tables.costs(measured(spec, Slow(spec, clock)))
    lines = capsys.readouterr().out.splitlines()
    parts = ["10 baselines 4m40s", "120 trials 56m00s", "5 candidates on select items 2m20s"]
    parts.append("6 on report items and 2 on some of them 3m44s")
    assert lines[:-1] == [
        "a build: 3 s, the first 10 s",
        "an item: gain 500 ms, loss 2e+03 ms",
        "items of a candidate: 20 search, 20 select, 20 report; at most 2860 scored in all",
        "a trial: 28 s",
        "in all: about 1h06m: " + ", ".join(parts),
    ]
    assert lines[-1].startswith("peak of memory: process ")


@pytest.mark.slow
def test_a_dry_run_of_a_real_study_leaves_its_folder_as_it_was(tmp_path: Path) -> None:
    file = write_study(tmp_path / "small", trials=3)
    count = itertools.count()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if next(count) < 10**4}
    found = dry_run(file, Change.of(trials=7))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert found.candidates.trials == 7
    assert min(found.build, *found.per_item.values(), found.seconds["all"]) > 0
    plain = json.loads(json.dumps(found.plain()))
    assert plain["candidates"]["trials"] == 7
    assert plain["base"]["name"] == "base"
    assert {len(said) for said in plain["base"]["answers"].values()} == {2}


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "steps"), [("gradient", 8), ("auto", 8), ("random", 0)])
def test_steps_by_gradient_are_measured_by_one_of_them(
    tmp_path: Path, sampler: str, steps: int, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_study(tmp_path / "small", sampler=sampler, trials=8)
    found = dry_run(file)
    assert (found.steps, found.candidates.trials) == (steps, 8)
    pool = found.items["search"]
    drawn = found.candidates.baselines + 8 - steps
    later = (found.candidates.select + found.candidates.again) * found.items["select"]
    later += found.candidates.report * found.items["report"]
    mean = (found.items_scored - later - drawn * pool) / max(steps, 1)
    assert (mean > 3) == (steps > 0), "a backward pass counts as three evaluations of an item"
    assert mean <= 3 * pool + 2 * pool / 5
    assert (found.seconds["step"] > 0) == (steps > 0)
    drawn_seconds = (8 - steps) * found.seconds["trial"]
    assert found.seconds["search"] == drawn_seconds + steps * found.seconds["step"]
    tables.costs(found)
    assert ("; a step by gradient, at most" in capsys.readouterr().out) == (steps > 0)


@pytest.mark.slow
def test_a_gradient_that_there_is_not_is_refused_before_the_run(tmp_path: Path) -> None:
    file = write_study(tmp_path / "small", sampler="gradient", trials=8, method="dare_linear")
    text = file.read_text().replace("high: 1.5", "high: 1.5, step: 0.5")
    file.write_text(text)
    with pytest.raises(MergeError, match="gradient"):
        dry_run(file)


def test_builds_of_a_study_of_paths_are_those_of_two_paths(
    own_family: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = own_family("llama")
    rows = [json.dumps({"q": f"{i}+1=", "answer": "1"}) for i in range(8)]
    (root / "q.jsonl").write_text("\n".join(rows))
    (root / "study.yaml").write_text(
        "recipe: {slices: {path: {parents: [one, two], max_layers: 6}}, dtype: float32}\n"
        "score: [{evaluator: exact_match, file: q.jsonl, prompt: '{{ q }}', max_tokens: 2}]\n"
        "items: {search: 4, select: 2, report: 2}\n"
        "search: {trials: 2, sampler: random}\nengine: {device: cpu}\n"
    )
    built = []
    monkeypatch.setattr(
        worker.Builder,
        "build",
        lambda self, recipe, build=worker.Builder.build: (
            built.append(recipe) or build(self, recipe)
        ),
    )
    found = dry_run(root / "study.yaml")
    assert len(dict.fromkeys(built)) == 3, "two of them, and the first parent to be scored"
    assert found.build > 0
    assert found.base is not None
    assert found.base.name == "parent:one"


class Asked(toy.Task):
    """Scores alternately as it is told, and shows answers."""

    def __init__(self, task: str, *scores: float, **more: Any) -> None:
        super().__init__(task, 90, bounds=(0.0, 1.0), **more)
        self.scores = scores

    def score(self, model: Any, which: Sequence[int]) -> np.ndarray[Any, Any]:
        return np.array([self.scores[place % len(self.scores)] for place, _ in enumerate(which)])

    def answers(self, model: Any, which: Sequence[int]) -> list[Answer]:
        return [Answer(f"1 + {i} =", "4", "4 or 5") for i in which]


def test_the_base_is_scored_on_a_few_items_and_asked_two(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = study(toy.STUDY.replace("search: 20, select: 20", "search: 80, select: 20"))
    bench = toy.Toy(spec, tasks=[Asked("gain", 0.0, 1.0), Asked("loss", 0.0)])
    found = base_scores(spec, bench, FEW)
    assert {*bench.built} == {baselines(spec, bench.builder.space)[0].recipe}
    assert (found.name, found.items) == ("base", {"gain": FEW, "loss": FEW})
    assert found.scores == {"gain": 0.5, "loss": 0.0}
    assert {task: len(said) for task, said in found.answers.items()} == {"gain": 2, "loss": 2}
    (warning,) = found.warnings
    assert warning == (
        f"base scores 0 on each of {FEW} items of loss: 8 of 8 answers hold the right one and "
        "say more: `stop` or `answer_regex` may cut that off"
    )
    tables.costs(replace(measured(spec, bench), base=found))
    out, err = capsys.readouterr()
    lines = out.splitlines()
    at = lines.index(f"base on {FEW} items of gain: 0.500 points")
    assert lines[at + 2 : at + 4] == ["    right   '4'", "    said    '4 or 5'"]
    assert err == f"warning: {warning}\n"


def test_the_mean_of_the_base_goes_by_the_sizes_of_items(study: Study) -> None:
    spec = study(toy.SHORT)
    task = Asked("gain", 0.0, 1.0, sizes=tuple(range(1, 91)), reported=lambda x: 10 * x)
    bench = toy.Toy(spec, tasks=[task])
    sizes = [i + 1 for i in bench.tasks.pools["search"].of("gain")[:4]]
    expected = 10 * (sizes[1] + sizes[3]) / sum(sizes)
    assert base_scores(spec, bench, 4).scores["gain"] == pytest.approx(expected)
