from __future__ import annotations

import math
from typing import ClassVar

import pytest

from evaluators.json_rows import read_rows
from evaluators.testing import EvaluatorContract
from merge_core.errors import EvaluationError, ParameterError
from tests.evaluators.own_files import open_entry, score_all, scripted, write_lines

GEN = {
    "file": "gen.jsonl",
    "prompt": "{{ q }}",
    "answer": "a",
    "stop": ["e", "\n"],
    "max_tokens": 6,
    "answer_regex": "([a-z0-9])",
}


class OnTheStandardTask(EvaluatorContract):
    entry: ClassVar[dict[str, object]]
    other: ClassVar[dict[str, object]]

    @pytest.fixture(scope="class")
    @classmethod
    def build(cls, standard, tokenizer):
        entry = {**GEN, **cls.entry}
        return lambda: open_entry("exact_match", standard.folder, tokenizer, **entry)

    @pytest.fixture(scope="class")
    @classmethod
    def build_other(cls, standard, tokenizer):
        entry = {**GEN, **cls.other}
        return lambda: open_entry("exact_match", standard.folder, tokenizer, **entry)

    @pytest.fixture(scope="class")
    @classmethod
    def live_model(cls, live):
        return live


class TestExact(OnTheStandardTask):
    entry: ClassVar = {}
    other: ClassVar = {"answer_regex": "[a-z]"}


class TestF1WithExamples(OnTheStandardTask):
    entry: ClassVar = {"metric": "f1", "num_fewshot": 2}
    other: ClassVar = {"metric": "f1", "num_fewshot": 2, "seed": 5}


class TestInAChat(OnTheStandardTask):
    entry: ClassVar = {"apply_chat_template": True, "num_fewshot": 1}
    other: ClassVar = {"apply_chat_template": True, "num_fewshot": 1, "max_tokens": 5}


@pytest.fixture
def opened(tmp_path, tokenizer):
    def make(rows, **entry):
        usual = {"file": write_lines(tmp_path / "quiz.jsonl", rows), "prompt": "{{ q }}"}
        return open_entry("exact_match", tmp_path, tokenizer, **{**usual, **entry})

    return make


def scores(quiz, said):
    return score_all(quiz, scripted(says=lambda prompt: said))


def test_scores_are_those_of_lm_eval_on_the_same_questions(standard, tokenizer, live):
    ours = open_entry("exact_match", standard.folder, tokenizer, **GEN)
    rows = read_rows(standard.folder / "gen.jsonl")  # "[invalid]": lm-eval's word for no match
    kept = [i for i, row in enumerate(rows) if row.values["a"] != "[invalid]"]
    theirs = standard.open("gen").score(live, range(len(rows)))[kept].tolist()
    assert ours.score(live, range(len(rows)))[kept].tolist() == theirs
    assert 0 < sum(theirs) < len(theirs)


@pytest.mark.parametrize(
    ("right", "said", "settings", "score"),
    [
        ("Paris", " Paris\n", {}, 1),
        ("New  York", "New\nYork ", {}, 1),
        ("Paris", " Paris", {"ignore_space": False}, 0),
        ("Paris", "paris", {}, 0),
        ("Straße", "STRASSE", {"ignore_case": True}, 1),
        (["Paris", "Lutetia"], "Lutetia", {}, 1),
        (4, "4", {}, 1),
        ("42", "It is 42, not 43.", {"answer_regex": r"(\d+)"}, 1),
        ("43", "It is 42, not 43.", {"answer_regex": r"(?s).*?(\d+)\D*$"}, 1),
        ("42", "It is 42.", {"answer_regex": r"\d+"}, 1),
        ("42", "nothing", {"answer_regex": r"(\d+)"}, 0),
        ("x", "y", {"answer_regex": "(x)|y"}, 0),
        ("1000", "1,000.0", {"numeric": True}, 1),
        ("0.5", " .50 ", {"numeric": True}, 1),
        ("0.5", "1/2", {"numeric": True}, 0),
        ("1000", "1,0,0,0", {"numeric": True}, 0),
        (1000, "1e3", {"numeric": True}, 1),
        ("-3", "+3", {"numeric": True}, 0),
        ("3", "three", {"numeric": True}, 0),
    ],
)
def test_golden_comparison(right, said, settings, score, opened):
    assert scores(opened([{"q": "x", "answer": right}], **settings), said) == [score]


@pytest.mark.parametrize(
    ("said", "f1"),
    [
        ("The cat sat.", 1.0),  # case, punctuation and articles are nothing
        ("cat", 2 / 3),  # precision 1, recall 1/2
        ("a cat sat on mats", 2 * 2 / (2 + 4)),
        ("dogs", 0.0),
        ("", 0.0),
    ],
)
def test_golden_token_f1(said, f1, opened):
    quiz = opened([{"q": "x", "answer": ["cat sat", "mouse"]}], metric="f1")
    assert scores(quiz, said) == pytest.approx([f1])


def test_units_and_direction_name_the_metric(opened):
    rows = [{"q": "x", "answer": "y"}]
    told = [(q.unit, q.higher_is_better) for q in (opened(rows), opened(rows, metric="f1"))]
    assert told == [("exact_match", True), ("f1", True)]


@pytest.mark.parametrize(
    ("settings", "until"),
    [({}, ["\n\n"]), ({"stop": "."}, ["."]), ({"apply_chat_template": True}, [])],
)
def test_an_answer_ends_at(settings, until, opened):
    model = scripted(says=lambda prompt: "y")
    score_all(opened([{"q": "x", "answer": "y"}], **settings), model)
    ((_, how),) = model.engine.asked
    assert how == {"until": until, "max_gen_toks": 256, "do_sample": False}


def test_a_prompt_without_room_for_its_answer_fails_and_says_why(opened):
    quiz = opened([{"q": "abcd", "answer": "y"}, {"q": "abcde", "answer": "y"}], max_tokens=12)
    model = scripted(says=lambda prompt: "y", window=16)
    short, long = score_all(quiz, model)
    assert short == 1
    assert math.isnan(long)
    assert [text for text, _ in model.engine.asked] == ["abcd"]
    reason = "5 tokens and up to 12 of its answer do not fit the model's window of 16"
    assert quiz.failures[quiz.items[1].id].startswith(reason)
    assert quiz.unfit(model, [1, 0]) == {1: quiz.failures[quiz.items[1].id]}


def test_positions_that_fail_and_repeat_keep_their_places(opened):
    quiz = opened([{"q": "ab", "answer": "ab"}, {"q": "abcde", "answer": "y"}], max_tokens=12)
    found = quiz.score(scripted(says=str, window=16), [1, 0, 1, 0]).tolist()
    assert [math.isnan(x) for x in found] == [True, False, True, False]
    assert [found[1], found[3]] == [1, 1]


@pytest.mark.parametrize(
    ("right", "settings", "rule"),
    [
        ([], {}, r"quiz.jsonl:1: answer: expected at least one right answer"),
        (None, {}, "answer: expected a text or a number, got null"),
        ([["x"]], {}, r'answer: expected a text or a number, got \["x"\]'),
        ("four", {"numeric": True}, "`numeric: true` needs a number, got 'four'"),
        ("x", {"answer": "anwser"}, "no key 'anwser', did you mean 'answer'"),
    ],
)
def test_a_row_without_a_right_answer_is_refused(right, settings, rule, opened):
    with pytest.raises(EvaluationError, match=rule):
        opened([{"q": "x", "answer": right}], **settings)


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"answer_regex": "("}, r"answer_regex '\(' is no regular expression: missing \)"),
        ({"numeric": True, "metric": "f1"}, "`metric` must be exact"),
    ],
)
def test_settings_that_do_not_do_are_refused(settings, rule, opened):
    with pytest.raises(ParameterError, match=rule):
        opened([{"q": "x", "answer": "1"}], **settings)


def test_fingerprint_changes_with_a_right_answer(opened):
    first, second = (opened([{"q": "x", "answer": a}]).fingerprint() for a in "yz")
    assert first != second


def written(opened_quiz):
    return [choice.texts[0] for target in opened_quiz.targets([0]) for choice in target.choices]


def test_target_is_the_right_answer_with_its_gap_and_the_first_stop_string(opened):
    rows = [{"q": "2+2?", "answer": 4}]
    assert written(opened(rows)) == [("2+2?", " 4\n\n")]
    assert written(opened(rows, stop=["", "e", "x"])) == [("2+2?", " 4e")]
    assert written(opened(rows, stop="")) == [("2+2?", " 4<eos>")]
    assert written(opened(rows, delimiter=": ")) == [("2+2?", ": 4\n\n")]
    assert written(opened(rows, prompt="{{ q }}\n")) == [("2+2?\n", "4\n\n")]


def test_target_of_several_right_answers_is_each_of_them(opened):
    rows = [{"q": "half?", "answer": ["0.5", ".5", "0.5"]}]
    assert written(opened(rows, stop="e")) == [("half?", " 0.5e"), ("half?", " .5e")]


@pytest.mark.parametrize(
    ("turn", "ending"), [("<end>\n", "<end>"), ("\n <end><eos>", "\n <end>"), ("\n", "<eos>")]
)
def test_target_in_a_chat_ends_with_what_ends_a_turn(turn, ending, tmp_path, make_tokenizer):
    chatty = make_tokenizer()
    chatty.add_special_tokens({"additional_special_tokens": ["<end>"]})
    chatty.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}" + turn + "{% endfor %}<assistant>"
    )
    file = write_lines(tmp_path / "quiz.jsonl", [{"q": "2?", "answer": "4"}])
    entry = {"file": file, "prompt": "{{ q }}", "apply_chat_template": True, "stop": "x"}
    ((prompt, answer),) = written(open_entry("exact_match", tmp_path, chatty, **entry))
    assert prompt.endswith(f"<user>2?{turn}<assistant>")
    assert answer == f"4{ending}"


@pytest.mark.parametrize(("metric", "binary"), [("exact", True), ("f1", False)])
def test_scores_are_shares_and_those_of_exact_right_or_wrong(metric, binary, opened):
    task = opened([{"q": "a", "answer": "b"}], metric=metric)
    assert (task.bounds, task.binary, task.exact) == ((0, 1), binary, False)
