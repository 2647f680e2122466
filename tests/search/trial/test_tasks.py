"""What a study's tasks make of scores: signs, sizes, names."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from search.report.select import REPORT, measure, select
from search.report.summary import summarize
from search.run import study as whole
from search.spec.study_file import StudySpec
from search.trial.trial import Trial
from tests.search import toy

Study = Callable[..., StudySpec]


@pytest.fixture
def bench(study: Study) -> toy.Toy:
    """A ``loss`` whose items have sizes is reported as twice itself."""
    texts = toy.Task("loss", sizes=tuple(range(1, 41)), reported=lambda x: 2 * x)
    return toy.Toy(study(), tasks=[toy.Task("gain"), texts])


@pytest.mark.parametrize("pool", ["search", "select", "report"])
def test_items_with_sizes_count_by_the_sizes_of_their_own_pool(bench: toy.Toy, pool: str) -> None:
    sizes = [bench.tasks.evaluators["loss"].sizes[i] for i in bench.tasks.pools[pool].of("loss")]
    losses = np.random.default_rng(0).uniform(size=10)
    gain, loss = bench.tasks.oriented({"gain": [0.5] * 10, "loss": list(losses)}, pool).values()
    assert gain.values.tolist() == [0.5] * 10
    assert loss.values.mean() == pytest.approx(-np.average(losses, weights=sizes))
    value, _ = bench.tasks.value({"gain": [0.5] * 10, "loss": list(losses)}, pool)
    assert value == pytest.approx((0.5 - 0.5 * np.average(losses, weights=sizes)) / 1.5)


def test_the_first_items_of_a_pool_count_by_their_own_sizes(bench: toy.Toy) -> None:
    sizes = [
        bench.tasks.evaluators["loss"].sizes[i] for i in bench.tasks.pools["search"].of("loss")[:4]
    ]
    losses = [0.1, 0.2, 0.3, 0.9]
    loss = bench.tasks.oriented({"gain": [0.5], "loss": losses}, "search")["loss"]
    assert loss.values.mean() == pytest.approx(-np.average(losses, weights=sizes))


def test_samples_say_which_items_of_their_pool_are_not_independent(study: Study) -> None:
    passages = toy.Task("gain", clusters=tuple(f"passage {i // 4}" for i in range(40)))
    bench = toy.Toy(study(), tasks=[passages, toy.Task("loss", exact=True)])
    for pool, items in bench.tasks.pools.items():
        scores = {"gain": [0.5] * 6, "loss": [2.0] * 6}
        gain, loss = bench.tasks.oriented(scores, pool).values()
        found = [passages.cluster_ids[i] for i in items.of("gain")[:6]]
        same = np.equal.outer(found, found)
        assert (np.equal.outer(gain.clusters, gain.clusters) == same).all()
        assert same.any(where=~np.eye(6, dtype=bool)) or pool != "report"
        assert (gain.exact, loss.exact) == (False, True)
        assert len(set(loss.clusters)) == 6


def test_the_summary_has_the_number_that_the_task_reports(bench: toy.Toy, study: Study) -> None:
    record = toy.in_memory(study(trials=1), bench)
    chosen = select(record, bench, toy.Listener())
    measure(record, bench, REPORT, chosen.named.values(), toy.Listener())
    report = summarize(record, bench.spec, bench.tasks, chosen).winner.report
    found = report.tasks["loss"]
    losses = record.trial(chosen.winner).measured[REPORT].scores["loss"]
    sizes = [bench.tasks.evaluators["loss"].sizes[i] for i in bench.tasks.pools[REPORT].of("loss")]
    assert found.mean == pytest.approx(2 * np.average(losses, weights=sizes))
    assert found.low < found.mean < found.high


def test_a_run_says_what_must_be_known_before_its_first_trial(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = study(trials=1)
    (spec.folder / "study.yaml").write_text(toy.STUDY)
    bench = toy.Toy(spec, tasks=[toy.Task(name, notice="Public.") for name in ("gain", "loss")])
    heard: list[str] = []

    class Told(toy.Listener):
        def notice(self, text: str) -> None:
            heard.append(text)

        def begin(self, total: int, settled: list[Trial], hours: float | None = None) -> None:
            heard.append("begin")

    monkeypatch.setattr(whole, "Worker", lambda *_: bench)
    assert whole.run(spec.folder, Told(), lambda: True) is None
    assert heard == ["parents: mapped: they are points", "Public.", "begin"]


@pytest.mark.parametrize("pool", ["search", "report"])
def test_contributions_have_a_tasks_number_as_their_plain_mean_whatever_items_count(
    bench: toy.Toy, pool: str
) -> None:
    random = np.random.default_rng(1)
    scores = {task: list(random.uniform(size=10)) for task in ("gain", "loss")}
    parts = bench.tasks.contributions(scores, pool)
    for task, vector in bench.tasks.oriented(scores, pool).items():
        assert parts[task].mean() == pytest.approx(vector.values.mean(), rel=1e-12)
    first = bench.tasks.contributions({task: x[:3] for task, x in scores.items()}, pool)
    assert first["loss"].tolist() == parts["loss"][:3].tolist(), "an item's part is its own"


def test_spans_hold_whatever_two_items_contribute(study: Study) -> None:
    sizes = tuple(range(1, 41))
    tasks = [toy.Task("gain", sizes=sizes, bounds=(2.0, 5.0)), toy.Task("loss")]
    found = toy.Toy(study(), tasks=tasks).tasks
    scores = {"gain": [2.0, 5.0] * 5, "loss": [0.5] * 10}
    parts = found.contributions(scores, "search")["gain"]
    spans = found.spans("search")
    assert np.ptp(parts) <= spans["gain"] < np.inf
    assert spans["loss"] == np.inf
