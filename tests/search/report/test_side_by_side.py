"""What trials say to items, beside what is right and how it was scored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluators.protocol import Suite
from merge_core.errors import MergeError, UnknownNameError
from search.commands import answers as command
from search.report.side_by_side import FEW, Wanted, _wrong, side_by_side, usual_pool
from search.report.who import who
from search.storage.study_record import Record
from search.trial.facts import Facts
from tests.search import toy
from tests.search.report.test_samples import Bench, Speaking, finished
from tests.search.scoring.test_steer import Slope


class RightOrWrong(Speaking):
    """Every third item is right, whoever is asked."""

    def __init__(self, task: str) -> None:
        super().__init__(task, bounds=(0, 1), binary=True)

    def score(self, model: Any, which: Sequence[int]) -> Any:
        return np.array([float(i % 3 == 0) for i in which])


def study(tmp_path: Path, *tasks: toy.Task) -> tuple[Record, Bench]:
    bench = Bench(
        toy.spec_of(f"keep_answers: 0\n{toy.STUDY}", tmp_path),
        tasks=tasks or [Speaking("gain"), RightOrWrong("loss")],
    )
    record, _ = finished(bench)
    bench.built.clear()
    bench._live = None
    return record, bench


def shown(record: Record, bench: Bench, *names: str, **more: Any) -> tuple[Any, list[str]]:
    told: list[str] = []
    trials = tuple(who(record, name) for name in names)
    wanted = Wanted(trials, more.pop("pool", usual_pool(trials[0])), **more)
    return side_by_side(record, wanted, lambda: bench, told.append), told


def test_two_trials_are_asked_the_same_items_and_their_scores_stand_beside(tmp_path: Path) -> None:
    record, bench = study(tmp_path)
    found, told = shown(record, bench, "uniform", "one", most=3)
    ours, theirs = (who(record, name) for name in ("uniform", "one"))
    assert [len(one.heard) for one in found.tasks.values()] == [3, 3]
    for task, one in found.tasks.items():
        ids = record.item_ids("report")[task]
        assert (one.items, one.matching) == (len(ids), len(ids))
        sign = 1 if task == "gain" else -1
        pairs = zip(*(t.measured["report"].scores[task] for t in (ours, theirs)), strict=True)
        gains = [sign * (a - b) for a, b in pairs]
        assert (one.better, one.worse) == (sum(x > 0 for x in gains), sum(x < 0 for x in gains))
        for i, heard in enumerate(one.heard):
            assert heard.id == ids[i]
            assert {x.prompt for x in heard.answers} == {f"prompt of {heard.id}"}
            assert [x.said for x in heard.answers] == [
                f"by {t.weights_digest}" for t in (ours, theirs)
            ]
            assert heard.scores == tuple(
                t.measured["report"].scores[task][i] for t in (ours, theirs)
            )
    assert told == [f"trial {t.number} is built again and asked 6 items" for t in (ours, theirs)]
    (first, *_) = found.plain()["tasks"]["gain"]["answers"]
    assert first["said"][0] == {
        "answer": f"by {ours.weights_digest}",
        "score": ours.measured["report"].scores["gain"][0],
    }


def test_only_wrong_items_are_asked_for_in_the_pools_order(tmp_path: Path) -> None:
    record, bench = study(tmp_path)
    found, _ = shown(record, bench, "best", wrong=True, tasks=("loss",), pool="search")
    (one,) = found.tasks.values()
    scores = who(record, "best").search.scores["loss"]
    wrong = [i for i, score in enumerate(scores) if score > 0]  # lower is better
    assert one.matching == len(wrong)
    ids = record.item_ids("search")["loss"]
    assert [heard.id for heard in one.heard] == [ids[i] for i in wrong[:FEW]]


@pytest.mark.parametrize(
    ("facts", "scores", "wrong"),
    [
        (Facts(unit="acc", higher_is_better=True, bounds=[0, 2]), [0, 1, 2], [0, 1]),
        (Facts(unit="acc", higher_is_better=True), [0, 1, 0.5], [0, 2]),
        (Facts(unit="loss", higher_is_better=False, bounds=[-1, 2]), [-1, 0], [1]),
        (Facts(unit="nats", higher_is_better=False), [2.0, 9.0, 4.0], [1]),
    ],
)
def test_wrong_is_what_has_not_the_best_score_or_is_worse_than_the_mean_where_none_is_known(
    facts: Facts, scores: list[float], wrong: list[int]
) -> None:
    assert _wrong(facts, scores) == wrong


def test_tasks_without_answers_show_none_and_are_said_to(tmp_path: Path) -> None:
    record, bench = study(tmp_path, Speaking("gain"), toy.Task("loss"))
    found, _ = shown(record, bench, "best")
    assert {task: len(one.heard) for task, one in found.tasks.items()} == {"gain": FEW, "loss": 0}


def test_items_without_a_score_are_shown_without_one_but_are_not_wrong(tmp_path: Path) -> None:
    record, bench = study(tmp_path)
    number = next(t.number for t in record.trials if "select" not in t.measured)
    found, _ = shown(record, bench, str(number), pool="select", most=1)
    assert [one.heard[0].scores for one in found.tasks.values()] == [(None,), (None,)]
    rule = f"--wrong: trial {number} has no scores of gain on the select pool; it was scored on: s"
    with pytest.raises(MergeError, match=rule):
        shown(record, bench, str(number), pool="select", wrong=True)


def test_an_unknown_task_a_failed_trial_and_other_weights_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, bench = study(tmp_path)
    with pytest.raises(UnknownNameError, match=r"no task 'gian'; it has gain, loss, did you mean"):
        shown(record, bench, "best", tasks=("gian",))
    record.trials[2] = replace(record.trials[2], state="failed", error="ValueError: no luck")
    with pytest.raises(MergeError, match="trial 2 failed, so it says nothing: ValueError: no luck"):
        shown(record, bench, "2")
    monkeypatch.setattr(bench, "build", lambda recipe: "other")
    with pytest.raises(MergeError, match=r"built again with other weights \(other, was "):
        shown(record, bench, "best")


def test_another_engine_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, bench = study(tmp_path)
    about = {**(record.about or {}), "engine": {"engine": "vllm"}}
    monkeypatch.setattr(record, "_about", about)
    _, told = shown(record, bench, "best")
    assert told[1].startswith("engine of the engine was 'vllm' when it was scored, is 'toy': ")


def test_the_winner_is_called_so_and_the_best_so_far_is_said_to_be_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mergetune: Any
) -> None:
    record, bench = study(tmp_path)
    monkeypatch.setattr(command, "open_study", lambda *_: (bench.spec, record))
    monkeypatch.setattr(command, "Worker", lambda *_: bench)
    code, out, err = mergetune("answers", tmp_path, "--limit", 1)
    number = who(record, "best").number
    assert code == 0
    assert f"not finished: trial {number} is the best so far, by search items\n" in err
    assert f"\ntrial {number} (uniform), score " in out
    monkeypatch.setattr(Record, "summary", {"winner": {"trial": number}})
    code, out, err = mergetune("answers", tmp_path, "--limit", 1, "--json")
    assert "not finished" not in err
    assert json.loads(out)["trials"] == [{"number": number, "baseline": "uniform", "winner": True}]
    name = f"\ntrial {number} (winner, uniform), score "
    assert name in mergetune("answers", tmp_path, "--limit", 1)[1]


def test_what_steers_names_the_search_scores_and_a_group_means_all_its_tasks(
    tmp_path: Path,
) -> None:
    text = toy.STUDY.replace("task: gain}", "task: gain, steer: slope}")
    members = Suite("both", ((Speaking("gain"), 0.5), (Speaking("more"), 0.5)))
    steering = Suite("both", ((Slope("gain"), 0.5), (Slope("more"), 0.5)))
    tasks: Any = [members, Speaking("loss")]
    spec = toy.spec_of(f"keep_answers: 0\n{text}", tmp_path)
    bench = Bench(spec, tasks=tasks, steering={0: steering})  # type: ignore[dict-item]
    record = toy.in_memory(spec, bench)
    found, _ = shown(record, bench, "uniform", tasks=("both",), pool="search", most=1)
    assert {task: one.unit for task, one in found.tasks.items()} == dict.fromkeys(
        ("gain", "more"), "slope"
    )
    found, _ = shown(record, bench, "uniform", "base", tasks=("both",), pool="search", most=1)
    assert [one.better for one in found.tasks.values()] == [None, None]
    with pytest.raises(MergeError, match=r"gain is scored by another metric on the search pool \("):
        shown(record, bench, "uniform", tasks=("both",), pool="search", wrong=True)
    found, _ = shown(record, bench, "uniform", tasks=("loss",), pool="search", most=1)
    assert [one.unit for one in found.tasks.values()] == ["points"]
