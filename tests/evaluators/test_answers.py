"""What is shown of a model's answers is what its scores are of."""

from __future__ import annotations

import numpy as np
import pytest

from evaluators.answer import Answer
from evaluators.protocol import Evaluator, Item, TaskFacts, answer_items
from merge_core.errors import EvaluationError, ItemError, NoAnswersError
from tests.evaluators.conftest import CHOICE, metric
from tests.evaluators.own_files import open_entry, score_all, scripted, write_lines


def all_answers(evaluator, live):
    return answer_items(evaluator, live, range(len(evaluator.items)))


def test_a_generated_answer_is_raw_and_the_right_one_beside_it(standard, live):
    task = standard.open("gen")
    answers, scores = all_answers(task, live), score_all(task, live)
    assert {0.0, 1.0} == set(scores)
    for i, (answer, score) in enumerate(zip(answers, scores, strict=True)):
        assert answer.prompt == task.prompts([i])[0]
        first = next((c for c in answer.said if c in "abcdefghijklmnopqrstuvwxyz0123456789"), "")
        assert (first == answer.right) == (score == 1), "the filter takes the first letter"
    assert any(len(answer.said) > 1 for answer in answers), "what the filter drops is shown"


@pytest.mark.parametrize("chosen", ["acc", "acc_norm"])
def test_the_choice_that_is_shown_is_right_where_the_score_says_so(standard, live, chosen):
    task = standard.open("choice", metric=chosen)
    answers, scores = all_answers(task, live), score_all(task, live)
    assert {0.0, 1.0} == set(scores)
    assert [float(a.said == a.right) for a in answers] == scores
    assert answers[1].right == f"bb{answers[1].prompt[4:9]}".strip()


def test_what_is_written_instead_of_a_continuation_is_shown(standard, live):
    task = standard.open("ends")
    answers, scores = all_answers(task, live), score_all(task, live)
    assert {0.0, 1.0} == set(scores)
    assert [float(a.said == a.right) for a in answers] == scores
    wrong = [a for a, score in zip(answers, scores, strict=True) if not score]
    assert any(a.said.strip() for a in wrong)
    assert all(len(a.said) <= len(a.right) for a in wrong), "as many tokens: here, characters"


def test_choices_that_stand_in_the_prompt_are_shown_with_what_differs(tasks):
    name = tasks.write(
        "pronouns",
        [{"options": ["the cat saw that mia", "the cat saw that max"], "gold": 1, "end": "ran"}],
        **{
            **CHOICE,
            "doc_to_text": "gold",
            "doc_to_choice": "options",
            "doc_to_target": "end",
        },
    )
    task = tasks.open(name)
    live = scripted(
        nats=lambda context, _: -1.0 if "mia" in context else -2.0, tokenizer=tasks._tokenizer
    )
    assert answer_items(task, live, [0]) == [Answer("the cat saw that ", "max ran", "mia ran")]


def test_mutual_information_shows_the_choice_that_its_question_makes_likelier(tasks):
    docs = [{"q": "q", "choices": ["a", "b"], "a": 0}]
    both = [metric("acc"), metric("acc_mutual_info")]
    name = tasks.write("info", docs, **{**CHOICE, "metric_list": both})
    nats = {("q", " a"): -3.0, ("q", " b"): -2.0, ("", " a"): -9.0, ("", " b"): -1.0}
    live = scripted(nats=lambda *pair: nats[pair], tokenizer=tasks._tokenizer)
    said = {
        m: tasks.open(name, metric=m).answers(live, [0])[0].said for m in ("acc", "acc_mutual_info")
    }
    assert said == {"acc": "b", "acc_mutual_info": "a"}


def test_own_questions_show_all_right_answers_and_what_was_written(tmp_path, tokenizer):
    rows = [{"q": "2+2", "a": ["4", "four", "4"]}, {"q": "1+1", "a": "2"}]
    entry = {"file": write_lines(tmp_path / "q.jsonl", rows), "prompt": "{{ q }}:", "answer": "a"}
    task = open_entry("exact_match", tmp_path, tokenizer, **entry, answer_regex="([0-9])")
    live = scripted(says=lambda prompt: f"{prompt} is 4!", tokenizer=tokenizer)
    assert answer_items(task, live, [1, 0]) == [
        Answer("1+1:", "2", "1+1: is 4!"), Answer("2+2:", "4 | four", "2+2: is 4!"),
    ]  # fmt: skip


def test_choices_of_own_questions_are_compared_as_the_metric_does(tmp_path, tokenizer):
    rows = [{"q": "q", "options": ["a", "bbbb"], "answer": "a"}]
    entry = {"file": write_lines(tmp_path / "q.jsonl", rows), "prompt": "{{ q }}:"}
    nats = {" a": -2.0, " bbbb": -3.0}
    live = scripted(nats=lambda _, more: nats[more], tokenizer=tokenizer)
    for chosen, said in (("acc", "a"), ("margin", "a"), ("acc_norm", "bbbb")):
        task = open_entry(
            "multiple_choice", tmp_path, tokenizer, **entry, choices="options", metric=chosen
        )
        assert task.answers(live, [0]) == [Answer("q:", "a", said)]


@pytest.mark.parametrize("name", ["judge", "python"])
def test_where_nothing_is_right_the_answer_for_examples_is_shown(
    tmp_path, tokenizer, name, monkeypatch
):
    from evaluators.jsonl.python_function import SCORERS

    monkeypatch.setitem(SCORERS._added, "zero", lambda answer, item: 0.0)
    rows = [{"q": "q", "gold": "g"}]
    entry = {"file": write_lines(tmp_path / "q.jsonl", rows), "prompt": "{{ q }}"}
    more = {"function": "zero"}
    if name == "judge":
        more = {"rubric": "{{ answer }}", "base_url": "http://localhost:1/v1", "model": "m"}
    live = scripted(says=lambda prompt: "said", tokenizer=tokenizer)
    for gold, right in (({}, ""), ({"gold": "gold"}, "g")):
        task = open_entry(name, tmp_path, tokenizer, **entry, **more, **gold)
        assert task.answers(live, [0]) == [Answer("q", right, "said")]


def test_an_item_that_does_not_fit_is_not_asked(tmp_path, tokenizer):
    rows = [{"q": "q" * 600, "answer": "a"}]
    entry = {"file": write_lines(tmp_path / "q.jsonl", rows), "prompt": "{{ q }}"}
    task = open_entry("exact_match", tmp_path, tokenizer, **entry)
    live = scripted(says=lambda _: "x", tokenizer=tokenizer)
    with pytest.raises(ItemError, match=f"item {task.items[0].id}: 600 tokens"):
        task.answers(live, [0])
    assert not live.engine.asked


class Plugin(Evaluator):
    def __init__(self, says=None):
        items = (Item("0", "mine"), Item("1", "mine"))
        super().__init__(TaskFacts(task="mine", unit="x", higher_is_better=True, items=items))
        if says is not None:
            self.answers = lambda model, which: says

    def score(self, model, which):
        return np.zeros(len(which))

    def fingerprint(self):
        return "mine"


def test_an_evaluator_that_says_nothing_of_answers_has_none():
    with pytest.raises(NoAnswersError, match="mine has no answers to show: its evaluator does not"):
        answer_items(Plugin(), scripted(), [])


@pytest.mark.parametrize(
    ("says", "rule"),
    [
        ("text", "expected 1 answers in a list, got str"),
        ([], "expected 1 answers in a list, got 0"),
        (["text"], "got 'text'"),
        ([Answer("p", "r", None)], "got Answer"),
    ],
)
def test_answers_that_are_none_are_refused(says, rule):
    with pytest.raises(EvaluationError, match=f"mine: .*{rule}"):
        answer_items(Plugin(says), scripted(), [0])
