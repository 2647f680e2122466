"""What a study's tasks make of scores: signs, sizes, names."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from merge_core.errors import MergeError, ParameterError
from search.report.measure import REPORT, measure
from search.report.select import select
from search.report.summarize import summarize
from search.run import study as whole
from search.spec.study_file import StudySpec
from search.trial.trial import Trial
from search.workers import hire
from tests.search import toy

Study = Callable[..., StudySpec]
ITEMS = "items: {search: 20, select: 20, report: 20}"


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

        def begin(
            self, total: int, settled: list[Trial], hours: float | None = None, workers: int = 1
        ) -> None:
            heard.append("begin")

    monkeypatch.setattr(hire, "Worker", lambda *_: bench)
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


def passages(count: int, size: int) -> dict[str, object]:
    """Return the facts of a task of passages with as many questions each."""
    names = tuple(f"p{i // size}" for i in range(count))
    return {"count": count, "clusters": names, "clustered_by": "passage"}


def test_the_record_tells_clusters_and_the_notices_count_them(study: Study) -> None:
    tasks = [toy.Task("gain", **passages(60, 3)), toy.Task("loss", 30)]
    found = toy.Toy(study(), tasks=tasks).tasks
    about = found.about()
    assert about["clusters"]["by"] == {"gain": "passage"}
    for pool, ids in found.item_ids().items():
        passage = [tasks[0].items[i].id for i in range(60)]
        order = [passage.index(id_) // 3 for id_ in ids["gain"]]
        numbers = about["clusters"][pool]["gain"]
        assert numbers == [list(dict.fromkeys(order)).index(p) for p in order]
        assert set(Counter(order).values()) == {3}
        assert set(about["clusters"][pool]) == {"gain"}
        assert len(set(found.clusters(pool)["loss"])) == len(ids["loss"])
    json.dumps(about)
    (notice,) = found.notices
    assert notice.endswith("one pool. gain: 20 clusters of 60 items by `passage`.")


def test_pools_of_clusters_alone_have_fewer_items_and_say_so(study: Study) -> None:
    tasks = [toy.Task("gain", **passages(60, 3)), toy.Task("loss", **passages(60, 3))]
    found = toy.Toy(study(), tasks=tasks).tasks
    assert [len(pool) for pool in found.pools.values()] == [18, 18, 18]
    assert found.notices[1].endswith(
        "there are 18 instead of 20 for search, 18 instead of 20 for select, 18 instead of 20 for "
        "report."
    )


def test_the_record_of_tasks_without_clusters_says_nothing_of_them(bench: toy.Toy) -> None:
    assert "clusters" not in bench.tasks.about()
    assert bench.tasks.notices == []


class Count(toy.Task):
    """A number of the whole model, as costs are."""

    def score_one(self, model: toy.Model, item: str) -> float:
        return float(len(model.points))


def test_a_number_of_the_whole_model_leaves_all_intervals_finite(study: Study) -> None:
    """Also with one item of it in each pool."""
    tasks = [toy.Task("gain"), Count("loss", 3, exact=True)]
    few = toy.STUDY.replace(ITEMS, "items: {search: 14, select: 14, report: 15}")
    bench = toy.Toy(study(few, trials=1), tasks=tasks)
    assert [len(pool.of("loss")) for pool in bench.tasks.pools.values()] == [1, 1, 1]
    record = toy.in_memory(bench.spec, bench)
    chosen = select(record, bench, toy.Listener())
    measure(record, bench, REPORT, chosen.named.values(), toy.Listener())
    report = summarize(record, bench.spec, bench.tasks, chosen)
    json.dumps(report.to_json(), allow_nan=False)
    found = report.winner.report
    assert found.tasks["loss"].low == found.tasks["loss"].mean == found.tasks["loss"].high
    assert found.low < found.mean < found.high


def test_one_graded_item_in_a_pool_is_refused_when_pools_are_made(study: Study) -> None:
    tasks = [toy.Task("gain"), toy.Task("loss", 4)]
    with pytest.raises(ParameterError, match=r"^task loss: 4 items, but .* graded .* at least 5$"):
        toy.Toy(study(), tasks=tasks)
    assert ITEMS in toy.STUDY
    few = study(toy.STUDY.replace(ITEMS, "items: {search: 20, select: 3, report: 20}"))
    rule = r"^items.select must be .* 2 tasks, and two for graded ones \(gain, loss\): 4, got 3$"
    with pytest.raises(ParameterError, match=rule):
        toy.Toy(few)
    right = {"bounds": (0, 1), "binary": True}
    tasks = [toy.Task("gain", 60, **right), toy.Task("loss", 4, **right)]
    pools = toy.Toy(study(), tasks=tasks).tasks.pools
    assert min(len(pool.of("loss")) for pool in pools.values()) == 1


def test_a_study_of_before_or_of_other_clusters_is_not_resumed(study: Study) -> None:
    spec, facts = study(trials=1), passages(60, 3)
    began = toy.Toy(spec, tasks=[toy.Task("gain", 60), toy.Task("loss", 30)])
    toy.searched(spec, began)
    now = toy.Toy(spec, tasks=[toy.Task("gain", **facts), toy.Task("loss", 30)])
    rule = (
        r"^the items of study 'toy' are not those it began with \(search, select, report\); items "
        r"of one cluster \(`passage` of gain\) were in several pools; start anew \(--fresh\)$"
    )
    with pytest.raises(MergeError, match=rule):
        toy.searched(spec, now)


def test_a_study_of_clusters_is_resumed_as_it_was(study: Study) -> None:
    def bench(key: str) -> toy.Toy:
        facts = {**passages(60, 3), "clustered_by": key}
        return toy.Toy(spec, tasks=[toy.Task("gain", **facts), toy.Task("loss", 30)])

    spec = study(trials=2)
    toy.searched(spec, bench("passage"))
    again = toy.searched(toy.spec_of(toy.STUDY, spec.folder, trials=3), bench("passage"))
    assert sum(t.baseline is None for t in again.trials) == 3
    with pytest.raises(MergeError, match=r"^the clusters of items of study 'toy' are not those"):
        toy.searched(spec, bench("page"))
