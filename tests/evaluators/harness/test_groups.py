"""Groups, suites and tags against the numbers that plain lm-eval gives them."""

from __future__ import annotations

import numpy as np
import pytest

from evaluators.harness import index
from evaluators.protocol import Suite
from merge_core.errors import EvaluationError, UnknownNameError
from tests.evaluators.conftest import CHOICE, choice_docs, metric

DOCS = [{"q": f"say {c}:", "a": c} for c in "abcdef"]
BY_LETTER = {"generation_kwargs": {"until": ["\n"], "max_gen_toks": 1}}


@pytest.fixture(scope="module")
def grouped(tmp_path_factory, standard, tokenizer):
    """Multiple choice of 21, 9 and 5 documents, and groups of them."""
    made = type(standard)(tmp_path_factory.mktemp("groups") / "tasks", tokenizer)
    docs = choice_docs()
    for name, some in {"all": docs, "nine": docs[5:14], "five": docs[16:]}.items():
        made.write(name, some, **CHOICE)
    by_size = [{"metric": "acc", "weight_by_size": True}]
    equal = [{"metric": "acc_norm", "weight_by_size": False, "filter_list": "none"}]
    made.write_group("inner", ["nine", "five"], aggregate_metric_list=by_size)
    made.write_group("nested", ["all", "inner"], aggregate_metric_list=by_size)
    made.write_group("equal", ["nine", "five", "all"], aggregate_metric_list=equal)
    made.write_group("unsaid", ["all", "inner"])
    return made


def value(suite, live):
    means = [e.score(live, range(len(e.items))).mean() for e, _ in suite.members]
    return float(np.dot(means, [share for _, share in suite.members]))


def shares(suite):
    return {e.task: share for e, share in suite.members}


@pytest.mark.parametrize("fewshot", [0, 2])
@pytest.mark.parametrize(
    ("name", "of"), [("inner", "acc"), ("nested", "acc"), ("equal", "acc_norm")]
)
def test_group_has_lm_evals_number_and_items(name, of, fewshot, grouped, live, lm_eval_says):
    suite = grouped.open_any(name, num_fewshot=fewshot)
    theirs = lm_eval_says(live, grouped, name, num_fewshot=fewshot)
    assert value(suite, live) == pytest.approx(theirs.results[f"{of},none"], rel=1e-12)
    for evaluator, _ in suite.members:
        scores = evaluator.score(live, range(len(evaluator.items)))
        assert scores.tolist() == theirs.of_task(evaluator.task).items(of, "none")


def test_shares_are_lm_evals(grouped):
    assert shares(grouped.open_any("nested")) == {"all": 21 / 35, "nine": 9 / 35, "five": 5 / 35}
    assert set(shares(grouped.open_any("equal")).values()) == {1 / 3}


def test_group_that_lm_eval_gives_no_number_is_the_mean_of_its_members(grouped):
    expected = {"all": 1 / 2, "nine": 9 / 28, "five": 5 / 28}
    assert shares(grouped.open_any("unsaid")) == pytest.approx(expected)


def test_metric_asked_for_holds_for_every_member(grouped):
    suite = grouped.open_any("inner", metric="acc_norm")
    assert {e.unit for e, _ in suite.members} == {"acc_norm"}
    assert set(shares(suite).values()) == {1 / 2}  # lm-eval's list has acc only


def test_members_of_different_metrics_are_scored_by_their_own(tasks):
    tasks.write("choice", choice_docs(), **CHOICE)
    tasks.write("letters", DOCS, metric_list=[metric("exact_match")], **BY_LETTER)
    both = [{"metric": name, "weight_by_size": True} for name in ("acc", "exact_match")]
    tasks.write_group("board", ["choice", "letters"], aggregate_metric_list=both)
    suite = tasks.open_any("board")
    assert {e.task: e.unit for e, _ in suite.members} == {"choice": "acc", "letters": "exact_match"}
    assert set(shares(suite).values()) == {1 / 2}


def test_members_settings_in_the_group_count(tasks):
    tasks.write("choice", choice_docs(), **CHOICE)
    tasks.write_group("few", [{"task": "choice", "num_fewshot": 2}])
    ((member, _),) = tasks.open_any("few").members
    alone = tasks.open("choice", num_fewshot=2)
    assert member._prepared.requests[3][0].args == alone._prepared.requests[3][0].args


def test_tag_is_the_mean_of_its_tasks(tasks):
    for name in ("one", "two"):
        tasks.write(name, DOCS, tag="letters", **BY_LETTER)
    suite = tasks.open_any("letters")
    assert isinstance(suite, Suite)
    assert (suite.name, shares(suite)) == ("letters", {"one": 0.5, "two": 0.5})


def test_task_in_two_subgroups_is_there_once(tasks):
    tasks.write("one", DOCS, **BY_LETTER)
    tasks.write("two", DOCS, **BY_LETTER)
    tasks.write_group("a", ["one", "two"])
    tasks.write_group("b", ["one"])
    tasks.write_group("both", ["a", "b"])
    assert shares(tasks.open_any("both")) == {"one": 0.75, "two": 0.25}


def test_group_written_out_in_the_study(grouped, only_local):
    suite = grouped.open_any({"group": "mine", "task": ["five", "nine"]})
    assert (suite.name, shares(suite)) == ("mine", {"five": 0.5, "nine": 0.5})
    with pytest.raises(UnknownNameError, match="'mine'"):  # it is nobody else's
        grouped.open_any("mine")


@pytest.fixture
def only_local(monkeypatch):
    """Spare the four seconds that lm-eval takes to index its own tasks."""
    from lm_eval.tasks import TaskManager

    empty = TaskManager(include_defaults=False)
    monkeypatch.setattr(index, "_own_tasks", lambda: empty)


def test_member_that_does_not_exist_is_answered_with_the_nearest_name(tasks, only_local):
    tasks.write("addition", DOCS)
    tasks.write_group("sums", ["adition"])
    with pytest.raises(UnknownNameError, match=r"no lm-eval task is named 'adition', did you mean"):
        tasks.open_any("sums")


def test_group_without_tasks_is_refused(tasks):
    tasks.write_group("empty", [])
    with pytest.raises(EvaluationError, match="group 'empty' has no task"):
        tasks.open_any("empty")


def test_member_that_cannot_be_scored_is_named(tasks):
    tasks.write("good", DOCS, **BY_LETTER)
    tasks.write("drawn", DOCS, generation_kwargs={"until": ["\n"], "temperature": 0.7})
    tasks.write_group("both", ["good", "drawn"])
    with pytest.raises(EvaluationError, match="'drawn' draws its answers at random"):
        tasks.open_any("both")


@pytest.mark.slow
def test_a_group_of_ones_own_may_name_lm_evals_own_tasks(tasks):
    from evaluators.harness.index import manager_of

    tasks.write("one", DOCS)
    tasks.write_group("mixed", ["one", "gsm8k", "leaderboard"])
    manager = manager_of("mixed", tasks.folder)
    assert {"one", "gsm8k", "leaderboard_musr", "mixed"} <= set(manager.all_tasks)
