"""Metrics that a task gives for some of its documents, or for some answers."""

from __future__ import annotations

import pytest

from merge_core.errors import EvaluationError
from tests.evaluators.conftest import CHOICE, choice_docs, metric

DOCS = [{"q": f"say {c}:", "a": str(i)} for i, c in enumerate("abcdefgh")]
CODE = """
def results(doc, answers):
    n = float(len(answers[0]))
    odd = {"some": n} if int(doc["a"]) % 2 else {}
    said = {"said": n} if answers[0] else {}
    return {"all": n, **odd, **said}
"""


@pytest.fixture
def coded(tasks, trusted):
    (tasks.folder / "code.py").write_text(CODE)
    tasks.write(
        "part",
        DOCS,
        output_type="generate_until",
        generation_kwargs={"until": ["e"], "max_gen_toks": 6, "do_sample": False},
        process_results="!function code.results",
        metric_list=[metric(name) for name in ("some", "all", "said", "none")],
    )
    return tasks


def test_documents_without_the_metric_take_no_part_as_in_lm_eval(coded, live, lm_eval_says):
    task = coded.open("part", metric="some")
    assert [item.id for item in task.items] == [
        item.id for item in coded.open("part", metric="all").items[1::2]
    ]
    scores = task.score(live, range(4))
    assert scores.mean() == lm_eval_says(live, coded, "part").results["some,none"]


@pytest.mark.parametrize(
    ("name", "which"), [("said", "some answers only"), ("none", "no document")]
)
def test_a_metric_that_depends_on_the_answer_or_is_never_given_is_refused(name, which, coded):
    rule = f"'part' has the metric '{name}' for {which}, .*; choose .*all.* with `metric:`"
    with pytest.raises(EvaluationError, match=rule):
        coded.open("part", metric=name)


def test_mean_of_the_items_is_lm_evals_brier_score(tasks, live, lm_eval_says):
    brier = {"metric": "brier_score", "higher_is_better": False}
    tasks.write("sure", choice_docs(), **CHOICE | {"metric_list": [brier]})
    task = tasks.open("sure")
    scores = task.score(live, range(len(task.items)))
    assert not task.higher_is_better
    theirs = lm_eval_says(live, tasks, "sure").results["brier_score,none"]
    assert scores.mean() == pytest.approx(theirs, abs=1e-5)
    assert len(set(scores.tolist())) > 5
