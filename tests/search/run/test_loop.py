"""The search: the same trials at every run, however often it was killed in between."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from evaluators.protocol import Suite
from merge_core.errors import EvaluationError, MergeError, NonFiniteError
from merge_core.recipe.schema import Recipe, Source
from search.report import files as results
from search.report.summary import Report
from search.run import study as whole
from search.run.loop import search
from search.run.resume import open_for
from search.samplers.registry import SAMPLERS
from search.samplers.shipped import make_random
from search.spec.study_file import StudySpec
from search.storage.open import open_record
from search.storage.study_record import Record
from search.trial import settle
from search.trial.failure import InterruptedStudyError
from search.trial.trial import Trial
from search.workers import hire
from tests.search import toy

Study = Callable[..., StudySpec]
SAMPLER_NAMES = ("random", "tpe", "cma-es", "catcma", "qmc", "nsga2")


class Fragile(toy.Toy):
    """Fails for some recipes, always the same ones."""

    def build(self, recipe: Recipe) -> str:
        if toy.noise(recipe.digest()) < 0.3:
            raise NonFiniteError("this recipe does not build")
        return super().build(recipe)


def asked(trials: list[Trial]) -> list[Trial]:
    return [t for t in trials if t.baseline is None]


def after(count: int) -> Callable[[], bool]:
    """Return a ``stop`` that lets that many trials pass."""
    answers = iter([False] * count)
    return lambda: next(answers, True)


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Registers the sampler ``spy``; collects (start, trials of the study) of every ask."""
    seen: list[Any] = []

    class Sampler(optuna.samplers.RandomSampler):
        def before_trial(self, study: optuna.Study, trial: Any) -> None:
            seen[-1].append([t for t in study.get_trials() if t.state.is_finished()])

    def make(space: Any, start: Any, seed: int) -> Any:
        seen.append([start])
        return Sampler(seed)

    monkeypatch.setitem(SAMPLERS._added, "spy", make)
    return seen


def test_baselines_come_first_then_as_many_trials_as_the_study_says(study: Study) -> None:
    spec, listener = study(trials=3), toy.Listener()
    record, bench = open_for(spec), toy.Toy(spec)
    assert search(spec, record, bench, listener, toy.never)
    names = [t.baseline for t in record.trials]
    assert names == [*toy.BASELINES, None, None, None]
    assert (listener.total, listener.resumed) == (13, 0)
    assert listener.trials == record.trials == open_record(spec.storage).trials


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_the_same_seed_gives_the_same_trials(study: Study, sampler: str) -> None:
    one, two = (toy.in_memory(study(sampler=sampler, trials=12)).trials for _ in range(2))
    assert toy.kept(one) == toy.kept(two)
    assert len({t.recipe.digest() for t in asked(one)}) == 12


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_another_seed_gives_other_trials_but_the_same_baselines(study: Study, sampler: str) -> None:
    one, two = (
        toy.in_memory(study(sampler=sampler, trials=2, seed=seed)).trials for seed in (3, 4)
    )
    assert [t.recipe for t in one[:10]] == [t.recipe for t in two[:10]]
    assert not {t.recipe for t in asked(one)} & {t.recipe for t in asked(two)}


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_a_study_resumed_after_any_number_of_trials_is_the_unbroken_one(
    study: Study, sampler: str
) -> None:
    spec = study(sampler=sampler, trials=11)
    toy.searched(spec, Fragile(spec))
    stored = open_record(spec.storage).trials
    assert {t.state for t in asked(stored)} == {"complete", "failed"}
    for k in range(len(stored)):
        again = toy.in_memory(spec, Fragile(spec), stored[:k])
        assert toy.kept(again.trials) == toy.kept(stored), f"stopped after {k}"


CONDITIONAL = """
name: conditional
recipe:
  merge_method: {choices: [task_arithmetic, linear]}
  base_model: org/base
  models:
    - {model: org/one, parameters: {weight: {low: 0.1, high: 1.5, per: 2}}}
    - model: org/two
      take_part: {choices: [true, false]}
      parameters: {weight: {low: 0.1, high: 1.5}}
  parameters: {lambda: {low: 0.5, high: 1.5}}
score: [{evaluator: lm_eval, task: gain}]
items: {search: 5, select: 5, report: 5}
search: {trials: 16}
"""


@pytest.mark.parametrize(
    "sampler",
    [
        *("random", "tpe", "catcma"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("auto", "gp", "nsga2", "qmc")),
    ],
)
def test_trials_have_the_knobs_that_changed_something_and_a_resumed_study_draws_them_again(
    tmp_path: Path, sampler: str
) -> None:
    spec = toy.spec_of(CONDITIONAL, tmp_path, sampler=sampler)
    space = toy.Toy(spec).builder.space
    unbroken = toy.in_memory(spec).trials
    for trial in unbroken:
        if trial.params:
            assert trial.params.keys() == space.active(trial.params)
            assert space.recipe(trial.params) == trial.recipe
    kinds = {(t.params["merge_method"], t.params["take_part/two"]) for t in asked(unbroken)}
    assert len(kinds) == 4
    for k in (3, 9, 14, 20):
        again = toy.in_memory(spec, before=unbroken[:k])
        assert toy.kept(again.trials) == toy.kept(unbroken), f"stopped after {k}"


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "cma-es"])
def test_a_study_that_is_stopped_and_opened_anew_after_every_trial_is_the_unbroken_one(
    study: Study, sampler: str
) -> None:
    unbroken = toy.in_memory(study(sampler=sampler, trials=9)).trials
    spec = study(sampler=sampler, trials=9)
    for _ in unbroken:
        assert len(toy.searched(spec, stop=after(1)).trials) <= len(unbroken)
    assert toy.kept(open_record(spec.storage).trials) == toy.kept(unbroken)


def test_a_finished_study_that_is_run_again_settles_nothing(study: Study) -> None:
    spec = study(trials=2)
    toy.searched(spec)
    bench = toy.Toy(spec)
    assert len(toy.searched(spec, bench).trials) == 12
    assert (bench.built, bench.scored) == ([], [])


def test_stop_ends_between_two_trials_and_says_so(study: Study) -> None:
    spec = study(trials=5)
    record = open_for(spec)
    assert not search(spec, record, toy.Toy(spec), toy.Listener(), after(11))
    assert len(record.trials) == 11
    assert search(spec, record, toy.Toy(spec), toy.Listener(), toy.never)


@pytest.mark.parametrize("part", ["build", "score"])
def test_the_search_goes_on_after_a_trial_that_fails(study: Study, part: str) -> None:
    spec = study(trials=5)
    bench, work = toy.Toy(spec), getattr(toy.Toy, part)

    def fail_twelfth(self: toy.Toy, what: Any) -> Any:
        if len(bench.built) == 12 - (part == "build"):
            bench.built.append(what)
            raise MemoryError("no luck")
        return work(self, what)

    setattr(bench, part, fail_twelfth.__get__(bench))
    states = [t.state for t in toy.searched(spec, bench).trials]
    assert states == ["complete"] * 11 + ["failed"] + ["complete"] * 3
    assert open_record(spec.storage).trials[11].reason == "MemoryError: no luck"


def test_an_outage_settles_nothing_and_the_next_run_goes_on_there(study: Study) -> None:
    spec = study(trials=4)
    bench, score = toy.Toy(spec), toy.Toy.score
    down = iter([False] * 3 + [True] + [False] * 8 + [True] + [False] * 9)

    def scored(pool: str) -> Any:
        if next(down):
            raise EvaluationError("the judge failed (4 tries): ConnectionError")
        return score(bench, pool)

    bench.score = scored  # type: ignore[method-assign]
    for settled in (3, 11):
        with pytest.raises(InterruptedStudyError, match=rf"^trial {settled}: the judge failed"):
            toy.searched(spec, bench)
        assert len(open_record(spec.storage).trials) == settled
    assert toy.kept(toy.searched(spec, bench).trials) == toy.kept(toy.in_memory(spec).trials)


class Full(toy.Toy):
    """Has no memory for candidates of the search."""

    def build(self, recipe: Recipe) -> str:
        if len(self.built) >= 10:
            raise MemoryError("no memory")
        return super().build(recipe)


class Narrow(toy.Task):
    """Has one item that no model takes, the one with the place ``LONG``."""

    LONG = 0

    def unfit(self, model: Any, which: Any) -> dict[int, str]:
        return {i: "602 tokens do not fit" for i in which if i == self.LONG}


@pytest.mark.parametrize("place", range(40))
def test_an_item_of_any_pool_that_does_not_fit_ends_the_run_before_the_first_trial(
    study: Study, place: int
) -> None:
    spec = study(trials=1)
    narrow = Narrow("gain")
    narrow.LONG = place
    bench = toy.Toy(spec, tasks=[narrow, toy.Task("loss")])
    pool = next((x for x, p in bench.tasks.pools.items() if place in p.of("gain")), None)
    if pool is None:  # an item that no pool has
        assert toy.searched(spec, bench).trials
        return
    rule = rf"trial 0: gain: 1 of 10 items of the {pool} pool .*; gain-{place}: 602 tokens do not"
    with pytest.raises(InterruptedStudyError, match=rule):
        toy.searched(spec, bench)
    assert not open_record(spec.storage).trials
    assert not bench.scored


def test_a_study_that_has_begun_goes_on_with_items_that_do_not_fit(study: Study) -> None:
    toy.searched(study(trials=1))
    spec = study(trials=2)
    bench = toy.Toy(spec, tasks=[Narrow("gain"), toy.Task("loss")])
    assert len(toy.searched(spec, bench).trials) == 12


def test_candidates_that_fail_alike_one_after_the_other_end_the_run(study: Study) -> None:
    spec = study(trials=30, sampler="random")
    bench = Full(spec)
    for run in (1, 2):
        with pytest.raises(MergeError, match=r"^the last 8 candidates failed .*: MemoryError: no"):
            toy.searched(spec, bench)
        assert len(open_record(spec.storage).trials) == 10 + 8 * run


def failed_at(trials: list[Trial], names: tuple[str, ...], error: str) -> list[Trial]:
    """Return trials of which some baselines failed."""
    return [
        Trial(t.number, "failed", t.recipe, t.baseline, t.params, error=error)
        if t.baseline in names
        else t
        for t in trials
    ]


@pytest.mark.parametrize(
    ("names", "error", "tried"),
    [
        (("base", "uniform"), "merge_core.errors.EvaluationError: the judge was down", 2),
        (("base", "uniform"), "torch.OutOfMemoryError: CUDA out of memory", 0),
        (("base",), "RuntimeError: [enforce fail] DefaultCPUAllocator: not enough", 0),
        (toy.BASELINES[:3], "MemoryError: no memory", 3),
        (("base", "uniform"), "merge_core.errors.NonFiniteError: a.weight", 0),
        (("base", "parent:org/one"), "merge_core.errors.ItemError: too long", 0),
        (toy.BASELINES[:3], "merge_core.errors.ItemError: too long", 3),  # else no report
    ],
)
def test_failed_baselines_that_may_do_now_are_tried_again(
    study: Study, names: tuple[str, ...], error: str, tried: int
) -> None:
    spec = study(trials=2)
    before = failed_at(toy.in_memory(spec).trials[:10], names, error)
    trials = toy.in_memory(spec, before=before).trials
    assert [t.baseline for t in trials[10:]] == [*names[:tried], None, None]
    assert {t.state for t in trials[10:]} == {"complete"}


def test_nothing_is_searched_where_every_parent_fails(study: Study) -> None:
    spec = study(trials=3)
    bench = toy.Toy(spec)
    build = bench.build

    def of_parents(recipe: Recipe) -> str:
        if len(recipe.models) == 1 and recipe.models[0].model != "org/base":
            raise MemoryError("no memory")
        return build(recipe)

    bench.build = of_parents  # type: ignore[method-assign]
    with pytest.raises(MergeError, match=r"^every parent failed, .*; the first: MemoryError: no"):
        toy.searched(spec, bench)
    assert len(open_record(spec.storage).trials) == 10


def test_weights_that_were_scored_are_not_scored_again(study: Study) -> None:
    weight = "{choices: [0.5, 1.0]}"
    text = toy.STUDY.replace("{low: 0.0, high: 1.5, per: 2}", weight)
    spec = study(text.replace("{low: 0.0, high: 1.5}", weight), trials=12)
    bench = toy.Toy(spec)
    trials = toy.searched(spec, bench).trials
    assert len(bench.scored) == len(set(bench.scored)) == len({t.weights_digest for t in trials})
    assert sum(t.same_as is not None for t in trials) == len(trials) - len(bench.scored) > 8


@pytest.mark.parametrize(("sampler", "tolerance"), [("tpe", 0.2), ("cma-es", 0.1)])
@pytest.mark.parametrize("seed", range(2))
def test_finds_the_known_optimum_of_the_toy_landscape(
    study: Study, sampler: str, tolerance: float, seed: int
) -> None:
    trials = toy.in_memory(study(sampler=sampler, trials=60, seed=seed)).trials
    best = max(trials, key=lambda t: t.value)
    one, two = toy.BEST
    assert list(best.params.values()) == pytest.approx([one, one, two], abs=tolerance)


def test_the_sampler_starts_at_the_best_baseline_inside_the_space(study: Study, spy: Any) -> None:
    trials = toy.in_memory(study(sampler="spy", trials=4, seed=1)).trials
    best = max((t for t in trials if t.baseline and t.params), key=lambda t: t.value)
    better = [t for t in trials if t.value > best.value]
    assert best.baseline == "simple:weight=0.6"
    assert {t.baseline for t in better} == {"uniform", None}  # outside the space; asked for
    assert [start for start, *_ in spy] == [best.params] * 5  # at last for its mean, if it has one


def test_the_sampler_learns_from_the_trials_inside_the_space_alone(study: Study, spy: Any) -> None:
    toy.in_memory(study(sampler="spy", trials=3))
    assert [len(told) for _, told in spy[:3]] == [6, 7, 8]
    assert {tuple(t.params) for _, told in spy[:3] for t in told} == {
        ("weight/one/layers 0-1", "weight/one/layers 2-3", "weight/two")
    }


def test_the_sampler_is_told_which_trials_failed(study: Study, spy: Any) -> None:
    spec = study(sampler="spy", trials=8)
    trials = toy.in_memory(spec, Fragile(spec)).trials
    (_, told) = spy[7]
    inside = [t for t in trials if t.params][:-1]
    assert [t.state.name for t in told] == [
        t.state[:8].upper()[: 8 if t.value else 4] for t in inside
    ]


def test_a_sampler_gets_another_seed_at_every_ask(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []

    def make(space: Any, start: Any, seed: int) -> Any:
        seeds.append(seed)
        return make_random(space, start, seed)

    monkeypatch.setitem(SAMPLERS._added, "seen", make)
    toy.in_memory(study(sampler="seen", trials=4))
    assert len(set(seeds[:4])) == 4


def test_another_study_file_is_refused_with_the_changed_key_paths(study: Study) -> None:
    toy.searched(study(trials=1), stop=after(1))
    changed = study(toy.STUDY.replace("high: 1.5, per", "high: 1.0, per"), seed=4)
    rule = (
        r"^study 'toy' in sqlite.*study\.db began with another study file; changed: "
        r"recipe\.models\[0\]\.parameters\.weight\.high was 1\.5, is 1\.0; "
        r"search\.seed was 3, is 4\. Change it back, or start"
    )
    with pytest.raises(MergeError, match=rule):
        open_for(changed)


def test_a_longer_study_goes_on_where_the_shorter_one_ended(study: Study) -> None:
    unbroken = toy.in_memory(study(trials=6)).trials
    short = toy.kept(toy.searched(study(trials=2)).trials)
    longer = toy.kept(toy.searched(study(trials=6, hours=5)).trials)
    assert (longer[:12], longer) == (short, toy.kept(unbroken))


def test_a_shorter_study_keeps_what_is_settled(study: Study) -> None:
    toy.searched(study(trials=4))
    assert len(toy.searched(study(trials=1)).trials) == 14


def test_changed_weights_of_a_parent_are_refused_by_name(study: Study) -> None:
    spec = study(trials=1)
    toy.searched(spec)
    bench = toy.Toy(spec, parents={**toy.PARENTS, "org/two": (0.0, 1.25)})
    rule = r"^the weights of org/two are not those that study 'toy' began with; put them back"
    with pytest.raises(MergeError, match=rule):
        toy.searched(spec, bench)


def test_what_decides_how_candidates_answer_is_refused_by_name_where_it_changed(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = study(trials=1)
    before = len(toy.searched(spec).trials)
    for now in ({"org/base/config.json": "11ee"}, {}, {**toy.ToyBuilder.behaviour, "new": "00"}):
        monkeypatch.setattr(toy.ToyBuilder, "behaviour", now)
        rule = r"^(org/base/config\.json|new) changed since study 'toy' began, .* put it back, or"
        with pytest.raises(MergeError, match=rule):
            toy.searched(spec)
    assert len(open_for(spec).trials) == before


def test_a_study_of_an_earlier_version_goes_on_and_says_what_is_not_compared(study: Study) -> None:
    spec = study(trials=1)
    record = toy.searched(spec)
    about = dict(record.about or {})
    about.pop("behaviour")
    about.pop("engine")
    record.begin(about | {"versions": {**about["versions"], "torch": "2.1"}})
    toy.forget_runs(record)
    heard = toy.Listener()
    longer = study(trials=2)
    with pytest.raises(MergeError, match=r"ran in another environment: torch was 2\.1, is "):
        search(longer, open_for(longer), toy.Toy(longer), heard, toy.never)
    assert search(longer, open_for(longer), toy.Toy(longer), heard, toy.never, accept=True)
    assert any("earlier version, which noted neither configs" in x for x in heard.notices)
    assert any(x.startswith("torch was 2.1, is ") for x in heard.notices)
    assert (open_for(longer).about or {})["engine"] == {"engine": "toy"}


FLASH = {"engine": "toy", "attention": "flash"}


def test_scores_by_another_engine_are_refused_and_not_stored(study: Study) -> None:
    spec = study(trials=1)
    record = toy.searched(spec)
    assert (record.about or {})["engine"] == {"engine": "toy"}
    longer = study(trials=3)
    bench = toy.Toy(longer)
    record.keep_run({**record.runs[-1], "environment": {"engine": FLASH}}, again=True)
    rule = r"^the engine is not the one that the study has run with: attention was .flash. and is N"
    with pytest.raises(MergeError, match=rule):
        toy.searched(longer, bench)
    assert len(open_for(spec).trials) == len(record.trials)


class Reworded(toy.Task):
    def fingerprint(self) -> str:
        return "toy 2"


@pytest.mark.parametrize(
    ("tasks", "what"),
    [
        ([Reworded("gain"), toy.Task("loss")], "tasks"),
        (
            [toy.Task("gain"), Suite("two", ((toy.Task("loss"), 0.5), (toy.Task("lossy"), 0.5)))],
            "tasks",
        ),
        ([toy.Task("gain", 39), toy.Task("loss")], "items"),
    ],
)
def test_other_tasks_or_items_are_refused(study: Study, tasks: Any, what: str) -> None:
    spec = study(trials=1)
    toy.searched(spec)
    with pytest.raises(MergeError, match=rf"^the {what} of study 'toy' are not those it began wi"):
        toy.searched(spec, toy.Toy(spec, tasks=tasks))


def test_other_shares_in_a_group_are_refused(study: Study) -> None:
    spec = study(trials=1)

    def bench(share: float) -> toy.Toy:
        group = Suite("both", ((toy.Task("loss"), share), (toy.Task("lossy"), 1 - share)))
        return toy.Toy(spec, tasks=[toy.Task("gain"), group])

    toy.searched(spec, bench(0.5))
    with pytest.raises(MergeError, match=r"^the shares of tasks in groups of study 'toy' are not"):
        toy.searched(spec, bench(0.25))


def test_another_recipe_in_a_baselines_file_is_refused(study: Study, tmp_path: Path) -> None:
    file = tmp_path / "study" / "mine.yaml"
    recipe = "{merge_method: linear, models: [{model: org/one, parameters: {weight: 1}}]}"
    text = toy.STUDY + "baselines: {mine: mine.yaml}"
    file.parent.mkdir()
    file.write_text(recipe)
    assert toy.searched(study(text, trials=1)).trials[10].baseline == "mine"
    file.write_text(recipe.replace("one", "two"))
    with pytest.raises(MergeError, match=r"^the baselines of study 'toy' are not those it began"):
        toy.searched(study(text, trials=1))


def test_trials_of_somebody_elses_study_are_refused(study: Study) -> None:
    spec = study(trials=1)
    record = open_record(spec.storage, spec.name, create=True)
    record.add(
        Trial(0, "complete", Recipe("linear", (Source("a", (("weight", 1),)),)), value=1.0), {}
    )
    with pytest.raises(MergeError, match=r"'toy' in sqlite.*db was not written by mergetune"):
        open_for(spec)


def test_nothing_is_searched_if_every_baseline_fails_however_often_it_is_tried(
    study: Study,
) -> None:
    spec = study(trials=3)
    bench = toy.Toy(spec, parents={**toy.PARENTS, "org/one": (float("nan"), 0.0)})
    bench.score = lambda pool: {"gain": [float("inf")], "loss": [0.0]}  # type: ignore[method-assign]
    for tries in (1, 2):
        with pytest.raises(
            MergeError, match=r"every baseline failed, .*; the first: .*NonFiniteErr"
        ):
            toy.searched(spec, bench)
        assert len(open_record(spec.storage).trials) == 10 * tries


def test_hours_end_the_search_by_the_seconds_that_trials_took(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(0, 10**9, 600))
    monkeypatch.setattr(settle.time, "perf_counter", lambda: next(now))
    spec = study(trials=50, hours=10)
    trials = toy.searched(spec).trials
    spent = [sum(t.search.seconds.values()) for t in trials]
    assert sum(spent[:-1]) < 10 * 3600 <= sum(spent)
    assert len(toy.searched(spec).trials) == len(trials) < 60


def test_baselines_are_settled_however_short_the_time(study: Study) -> None:
    record = toy.in_memory(study(trials=5, hours=1e-9))
    assert tuple(t.baseline for t in record.trials) == toy.BASELINES


def test_a_study_without_knobs_compares_its_baselines(study: Study) -> None:
    text = toy.STUDY.replace("{low: 0.0, high: 1.5, per: 2}", "0.5")
    record = toy.in_memory(study(text.replace("{low: 0.0, high: 1.5}", "0.5"), sampler="auto"))
    assert tuple(t.baseline for t in record.trials) == toy.BASELINES[:5]


# A run that is killed. The whole road: search, selection on fresh items, summary.

MOMENTS = [
    *(("begin", 1, when) for when in ("before", "inside", "after")),
    *(("add", 1, when) for when in ("before", "inside", "after")),
    *(("add", n, when) for n, when in ((5, "after"), (6, "before"), (7, "inside"), (9, "after"))),
    *(("add_measured", n, when) for n, when in ((1, "before"), (3, "inside"), (8, "after"))),
    *(("keep_finalists", 1, when) for when in ("before", "inside", "after")),
    *(("keep_looks", 2, when) for when in ("before", "inside", "after")),
    *(("finish", 1, when) for when in ("before", "inside", "after")),
]


def die_in(method: str, count: int, when: str) -> None:
    """Die before, inside or after the ``count``-th call of a method of ``Record``."""
    original, calls = getattr(Record, method), iter(range(1, 10**6))

    def called(self: Record, *args: Any) -> None:
        mine = next(calls) == count
        if mine and when == "before":
            toy.die()
        if mine and when == "inside":
            toy.die_at("commit", 1)
        original(self, *args)
        if mine:
            toy.die()

    setattr(Record, method, called)


def reported(spec: StudySpec, stop: Callable[[], bool] = toy.never) -> Report | None:
    """Run a whole study, but for its model folder."""
    (spec.folder / "study.yaml").write_text(json.dumps(dict(spec.data)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hire, "Worker", lambda *_: toy.Toy(spec))
        patch.setattr(results, "write", lambda *_: None)
        return whole.run(spec.folder, toy.Listener(), stop)


def run(spec: StudySpec) -> Any:
    """Run a whole study and return what must not depend on kills."""
    report = reported(spec)
    record = open_record(spec.storage)
    assert report is not None
    summary = report.to_json()
    assert summary == record.summary
    del summary["cost"]["seconds"]
    pools = [toy.measured(record, "select"), toy.measured(record, "report")]
    scores = [{n: found.scores for n, found in pool.items()} for pool in pools]
    return toy.kept(record.trials), scores, summary


def test_the_mean_of_the_last_generation_is_a_trial_of_its_own(study: Study) -> None:
    spec = study(sampler="cma-es", trials=20)
    trials = toy.in_memory(spec).trials
    mean = trials[-1]
    assert (mean.baseline, mean.state, len(trials)) == ("mean:20", "complete", 10 + 20 + 1)
    drawn = [t.params for t in trials if t.was_drawn()][7:14]  # two generations of seven
    for name, value in mean.params.items():
        assert min(p[name] for p in drawn) < value < max(p[name] for p in drawn)
    assert toy.kept(toy.in_memory(spec, before=trials).trials) == toy.kept(trials)
    without = toy.in_memory(spec, before=trials[:-1]).trials
    assert [t.recipe for t in without] == [t.recipe for t in trials]


def test_a_search_without_generations_has_no_mean(study: Study) -> None:
    for changes in ({"sampler": "random", "trials": 9}, {"sampler": "cma-es", "trials": 6}):
        spec = study(folder=f"{changes['sampler']}", **changes)
        assert not any(t.is_mean() for t in toy.in_memory(spec).trials)


def test_a_stop_is_heeded_before_the_mean_is_settled(study: Study) -> None:
    spec = study(sampler="cma-es", trials=7)
    bench, record = toy.Toy(spec), open_for(spec)
    answers = iter([False] * (10 + 7))
    assert search(spec, record, bench, toy.Listener(), lambda: next(answers, True)) is None
    assert len(record.trials) == 10 + 7
    assert search(spec, record, bench, toy.Listener(), toy.never)
    assert [t.baseline for t in record.trials[-1:]] == ["mean:7"]


@pytest.mark.parametrize("candidates", [0, 1, 2])
def test_a_run_that_is_stopped_after_the_search_goes_on_there(
    study: Study, candidates: int
) -> None:
    spec = study(trials=2)
    assert reported(spec, after(12 + candidates)) is None
    record = open_record(spec.storage)
    assert len(toy.measured(record, "select")) == candidates
    assert reported(spec) is not None
    assert len(record.trials) == 12


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return what an unbroken run of the short study leaves."""
    spec = toy.spec_of(toy.SHORT, tmp_path_factory.mktemp("unbroken"))
    trials, scores, summary = run(spec)
    assert (len(trials), len(scores[0]), len(scores[1])) == (9, 3, 5)
    return trials, scores, summary


@pytest.mark.slow
@pytest.mark.parametrize(("method", "count", "when"), MOMENTS)
def test_a_run_killed_at_any_moment_and_started_again_is_the_unbroken_one(
    study: Study, unbroken: Any, method: str, count: int, when: str
) -> None:
    spec = study(toy.SHORT)

    def killed() -> None:
        die_in(method, count, when)
        run(spec)

    assert toy.end_of_child(killed) == -signal.SIGKILL
    assert run(spec) == unbroken


@pytest.mark.slow
@pytest.mark.parametrize("count", [12, 60])
def test_a_run_killed_while_it_makes_the_database_is_the_unbroken_one(
    study: Study, unbroken: Any, count: int
) -> None:
    spec = study(toy.SHORT)
    (spec.results / "study.db").unlink()

    def killed() -> None:
        toy.die_at("before_cursor_execute", count)
        run(spec)

    assert toy.end_of_child(killed) == -signal.SIGKILL
    assert run(spec) == unbroken


@pytest.mark.slow
def test_a_run_killed_by_the_clock_again_and_again_is_the_unbroken_one(
    study: Study, unbroken: Any
) -> None:
    spec = study(toy.SHORT)

    def killed(seconds: float) -> None:
        timer = threading.Timer(seconds, toy.die)
        timer.daemon = True
        timer.start()
        run(spec)

    ends = [toy.end_of_child(lambda s=0.04 * n: killed(s)) for n in range(1, 7)]
    assert {-signal.SIGKILL} <= set(ends) <= {0, -signal.SIGKILL}
    assert run(spec) == unbroken
