from __future__ import annotations

import math
from typing import ClassVar

import pytest

from evaluators.target import Choice, Target
from evaluators.testing import EvaluatorContract
from merge_core.errors import EvaluationError
from tests.evaluators.own_files import open_entry, score_all, scripted, write_lines

ASK = {"prompt": "{{ q }}", "choices": "choices", "gold": "a"}
NATS = {"no": -3.0, "perhaps": -4.0, "é": -2.5}


class OnTheStandardTask(EvaluatorContract):
    tolerance = 1e-4  # padding: float32 sums of about 20 logs of size 10
    entry: ClassVar[dict[str, object]]
    other: ClassVar[dict[str, object]]

    @pytest.fixture(scope="class")
    @classmethod
    def build(cls, standard, tokenizer):
        entry = {"file": "choice.jsonl", **ASK, **cls.entry}
        return lambda: open_entry("multiple_choice", standard.folder, tokenizer, **entry)

    @pytest.fixture(scope="class")
    @classmethod
    def build_other(cls, standard, tokenizer):
        entry = {"file": "choice.jsonl", **ASK, **cls.other}
        return lambda: open_entry("multiple_choice", standard.folder, tokenizer, **entry)

    @pytest.fixture(scope="class")
    @classmethod
    def live_model(cls, live):
        return live


class TestAccuracy(OnTheStandardTask):
    entry: ClassVar = {}
    other: ClassVar = {"metric": "acc_norm"}


class TestMargin(OnTheStandardTask):
    entry: ClassVar = {"metric": "margin", "num_fewshot": 2}
    other: ClassVar = {"metric": "margin", "num_fewshot": 2, "seed": 5}


class TestProbability(OnTheStandardTask):
    entry: ClassVar = {"metric": "probability"}
    other: ClassVar = {"metric": "margin"}


class TestInAChat(OnTheStandardTask):
    entry: ClassVar = {"apply_chat_template": True, "system": "be brief"}
    other: ClassVar = {"apply_chat_template": True}


@pytest.fixture
def opened(tmp_path, tokenizer):
    def make(rows, **entry):
        file = write_lines(tmp_path / "quiz.jsonl", rows)
        return open_entry("multiple_choice", tmp_path, tokenizer, **{"file": file, **ASK, **entry})

    return make


def row(choices=("no", "perhaps", "é"), a=0, q="say:"):
    return {"q": q, "choices": list(choices), "a": a}


def with_nats():
    return scripted(nats=lambda context, continuation: NATS[continuation.strip()])


@pytest.mark.parametrize("metric", ["acc", "acc_norm"])
def test_scores_are_those_of_lm_eval_on_the_same_questions(metric, standard, tokenizer, live):
    ours = open_entry(
        "multiple_choice",
        standard.folder,
        tokenizer,
        **{"file": "choice.jsonl", **ASK, "metric": metric},
    )
    theirs = standard.open("choice", metric=metric)
    assert score_all(ours, live) == score_all(theirs, live)
    assert 0 < sum(score_all(ours, live)) < len(ours.items)


@pytest.mark.parametrize(
    ("metric", "scores"),
    [
        # no, perhaps, é: nats -3, -4, -2.5; per character -1.5, -0.57, -2.5; per byte -1.5, -0.57,
        # -1.25; against the best other one -0.5, -1.5, +0.5
        ("acc", [0, 0, 1]),
        ("acc_norm", [0, 1, 0]),
        ("acc_bytes", [0, 1, 0]),
        ("margin", [-0.5, -1.5, 0.5]),
        # e^-0.5, e^-1.5, 1 times the likeliest one's probability: parts of 1.829661
        ("probability", pytest.approx([0.331499, 0.121952, 0.546549], abs=1e-6)),
    ],
)
def test_golden_scores_of_three_right_answers(metric, scores, opened):
    quiz = opened([row(a=i) for i in range(3)], metric=metric)
    assert score_all(quiz, with_nats()) == scores


@pytest.mark.parametrize(
    ("metric", "unit", "chance"),
    [
        ("acc_norm", "acc_norm", (1 / 2 + 1 / 3) / 2),
        ("probability", "probability", (1 / 2 + 1 / 3) / 2),
        ("margin", "nats", None),
    ],
)
def test_chance_is_the_mean_share_of_one_choice_but_of_no_margin(metric, unit, chance, opened):
    quiz = opened([row(), row(choices=("no", "é"))], metric=metric)
    assert (quiz.unit, quiz.chance, quiz.higher_is_better) == (unit, chance, True)


def test_bytes_and_characters_differ_where_letters_take_two_bytes(opened):
    # é: -2.5 / 1 character, / 2 bytes; no: -3 / 2 of either. -1.5 > -2.5, but -1.25 > -1.5.
    rows = [row(choices=("no", "é"), a=1)]
    assert score_all(opened(rows, metric="acc_norm"), with_nats()) == [0]
    assert score_all(opened(rows, metric="acc_bytes"), with_nats()) == [1]


def test_a_tie_goes_to_the_first_choice_as_in_lm_eval(opened):
    quiz = opened([row(a=0, q="x"), row(a=1, q="y")])
    assert score_all(quiz, scripted(nats=lambda *_: -1.0)) == [1, 0]


@pytest.mark.parametrize("gold", [2, "C", "é"])
def test_the_right_choice_may_be_a_place_a_letter_or_a_text(gold, opened):
    assert score_all(opened([row(a=gold)]), with_nats()) == [1]


def test_choices_may_stand_under_a_key_each(opened):
    rows = [{"q": "say:", "first": "no", "second": "é", "a": "B"}]
    assert score_all(opened(rows, choices=["first", "second"]), with_nats()) == [1]


def test_numbers_may_be_choices_and_are_meant_by_their_text(opened):
    rows = [{"q": "2+2=", "choices": [3, 4, 2.5, 17], "a": 17}]
    assert score_all(opened(rows), scripted(nats=lambda _, x: float(x))) == [1]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"a": 3}, r"quiz.jsonl:1: a: 3 is neither a place from 0, a letter nor a text of"),
        ({"a": -1}, "-1 is neither a place"),
        ({"a": "D"}, "'D' is neither"),
        ({"a": True}, "expected a text or a number, got true"),
        ({"a": None}, "expected a text or a number, got null"),
        ({"choices": ["B", "A"], "a": "A"}, "'A' may mean several of the choices"),
        ({"choices": ["2", "1", "0"], "a": 2}, "2 may mean several of the choices"),
        ({"choices": ["x", "y", "x"], "a": "x"}, "'x' may mean several"),
        ({"choices": ["x"], "a": 0}, r"expected at least two choices.*got \['x'\]"),
        ({"choices": ["x", ""], "a": 0}, "expected at least two choices, none of them empty"),
        ({"choices": "xy", "a": 0}, "choices: expected a list of choices, got 'xy'"),
        ({"choices": ["x", ["y"]], "a": 0}, r"choices\[1\]: expected a text or a number, got"),
    ],
)
def test_a_row_that_is_no_question_is_refused(change, rule, opened):
    with pytest.raises(EvaluationError, match=rule):
        opened([{**row(), **change}])


def test_a_key_that_a_row_lacks_is_answered_with_the_nearest(opened):
    with pytest.raises(
        EvaluationError, match=r"quiz.jsonl:2: no key 'choices', did you mean 'choice'"
    ):
        opened([row(), {"q": "say:", "choice": [], "a": 0}])


def test_a_question_longer_than_the_window_fails_and_says_why(opened):
    quiz = opened([row(), row(q="long" * 10)])
    short, long = score_all(quiz, scripted(nats=lambda _, x: NATS[x.strip()], window=16))
    assert short == 0
    assert math.isnan(long)
    reason = "48 tokens do not fit the model's window of 16"  # 40 + a blank + "perhaps"
    assert quiz.failures[quiz.items[1].id].startswith(reason)
    assert list(quiz.failures) == [quiz.items[1].id]
    unfit = quiz.unfit(scripted(window=16), [1, 0])
    assert unfit == {1: quiz.failures[quiz.items[1].id]}


def test_a_question_as_long_as_the_window_is_scored(opened):
    quiz = opened([row()])  # "say:" + " perhaps" are 12 tokens
    assert score_all(quiz, scripted(nats=lambda _, x: NATS[x.strip()], window=12)) == [0]


def test_failures_are_those_of_the_latest_call(opened):
    quiz = opened([row(q="long" * 10), row()])
    model = scripted(nats=lambda _, x: NATS[x.strip()], window=16)
    quiz.score(model, [0])
    assert len(quiz.failures) == 1
    quiz.score(model, [1])
    assert quiz.failures == {}


@pytest.mark.parametrize(
    ("entry", "pair"),
    [
        ({}, ("say:", " no")),
        ({"prompt": "{{ q }}\n"}, ("say:\n", "no")),
        ({"delimiter": ""}, ("say:", "no")),
        ({"delimiter": "\n"}, ("say:", "\nno")),
        ({"apply_chat_template": True}, ("<user>say:\n<assistant>", "no")),
    ],
)
def test_a_blank_stands_before_a_choice_where_nothing_else_is_said(entry, pair, opened):
    model = with_nats()
    opened([row()], **entry).score(model, [0])
    assert model.engine.asked[0] == pair


@pytest.mark.parametrize("change", [{"a": 1}, {"choices": ["no", "perhaps"]}, {"q": "tell:"}])
def test_fingerprint_changes_with_a_row(change, opened):
    before = opened([row()]).fingerprint()
    assert opened([{**row(), **change}]).fingerprint() != before


def test_targets_are_the_right_choices_among_all_as_the_metric_compares_them(tmp_path, tokenizer):
    rows = [{"q": "2?", "options": ["3", "four"], "answer": "B"}]
    entry = {"file": write_lines(tmp_path / "q.jsonl", rows), "prompt": "{{ q }}"}
    entry |= {"choices": "options"}
    sizes = {"acc": (1, 1), "margin": (1, 1), "acc_norm": (0.4, 1.6), "acc_bytes": (0.4, 1.6)}
    for metric, (one, other) in sizes.items():
        quiz = open_entry("multiple_choice", tmp_path, tokenizer, **entry, metric=metric)
        choices = Choice((("2?", " 3"),), size=one), Choice((("2?", " four"),), size=other)
        assert quiz.targets([0]) == [Target(choices, (1,), competing=True)]


def test_loss_of_a_question_is_the_log_of_what_probability_scores(standard, tokenizer, live):
    entry = {"file": "choice.jsonl", "prompt": "{{ q }}", "choices": "choices", "gold": "a"}
    quiz = open_entry("multiple_choice", standard.folder, tokenizer, **entry, metric="probability")
    shares = score_all(quiz, live)
    losses = live.engine.losses(quiz.targets(range(len(shares))))
    assert [math.exp(-x) for x in losses] == pytest.approx(shares, rel=1e-4)


@pytest.mark.parametrize(
    ("metric", "bounds", "binary"),
    [
        ("acc", (0, 1), True),
        ("acc_bytes", (0, 1), True),
        ("probability", (0, 1), False),
        ("margin", None, False),
    ],
)
def test_scores_are_right_or_wrong_a_probability_or_without_bounds(metric, bounds, binary, opened):
    quiz = opened([row()], metric=metric)
    assert (quiz.bounds, quiz.binary, quiz.exact) == (bounds, binary, False)
