from __future__ import annotations

import json
import math

import pytest

from evaluators.jsonl.python_function import SCORERS, Scorer, scorer
from evaluators.testing import EvaluatorContract
from merge_core.errors import EvaluationError, ParameterError, UnknownNameError
from tests.evaluators.own_files import open_entry, score_all, scripted, write_lines

ROWS = [{"q": f"say {c}:", "word": c} for c in "abcdef"]


@scorer(name="letters", unit="letters", higher_is_better=False)
def letters(answer, item):
    return sum(c.isalpha() for c in answer) / len(item["q"])


@scorer(name="digits")
def digits(answer, item):
    return sum(c.isdigit() for c in answer)


@pytest.fixture
def registered(monkeypatch):
    """Register functions for one test."""

    def add(**functions):
        for name, function in functions.items():
            monkeypatch.setitem(SCORERS._added, name, function)

    return add


class TestPython(EvaluatorContract):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def scorers(cls):
        with pytest.MonkeyPatch.context() as patch:
            for function in (letters, digits):
                patch.setitem(SCORERS._added, function.name, function)
            yield

    @pytest.fixture(scope="class")
    @classmethod
    def build(cls, tmp_path_factory, tokenizer, scorers):
        folder = tmp_path_factory.mktemp("python")
        file = write_lines(folder / "words.jsonl", ROWS)
        entry = {"file": file, "prompt": "{{ q }}", "max_tokens": 8}
        return lambda **more: open_entry(
            "python", folder, tokenizer, **{"function": "letters", **entry, **more}
        )

    @pytest.fixture(scope="class")
    @classmethod
    def build_other(cls, build):
        return lambda: build(function="digits")

    @pytest.fixture(scope="class")
    @classmethod
    def live_model(cls, live):
        return live


@pytest.fixture
def opened(tmp_path, tokenizer):
    def make(function, **entry):
        usual = {"file": write_lines(tmp_path / "words.jsonl", ROWS), "prompt": "{{ q }}"}
        return open_entry("python", tmp_path, tokenizer, **{"function": function, **usual, **entry})

    return make


def test_a_function_gets_the_answer_and_its_line(opened, registered):
    seen = []
    registered(watch=lambda answer, item: seen.append((answer, item)) or 1)
    words = opened("watch")
    words.score(scripted(says=lambda prompt: f"{prompt}!"), [1, 0])
    assert seen == [("say b:!", ROWS[1]), ("say a:!", ROWS[0])]


def test_a_function_cannot_change_the_lines(opened, registered):
    registered(spoil=lambda answer, item: len(item.pop("word")))
    words = opened("spoil")
    assert score_all(words, scripted(says=str)) == score_all(words, scripted(says=str)) == [1] * 6


def test_the_declaration_says_unit_and_direction(opened, registered):
    registered(letters=letters, bare=lambda answer, item: 1)
    told = [(e.unit, e.higher_is_better) for e in (opened("letters"), opened("bare"))]
    assert told == [("letters", False), ("score", True)]


def test_a_declared_function_is_still_a_function():
    assert isinstance(letters, Scorer)
    assert letters("ab1", {"q": "xy"}) == 1


def test_nan_is_a_failed_item_with_a_reason(opened, registered):
    registered(refuses=lambda answer, item: math.nan if item["word"] == "b" else True)
    words = opened("refuses")
    scores = score_all(words, scripted(says=str))
    assert [math.isnan(x) for x in scores] == [False, True, False, False, False, False]
    assert words.failures == {words.items[1].id: "words.jsonl:2: scorer 'refuses' gave nan"}


@pytest.mark.parametrize("value", ["1", None, math.inf, 1j, [1]])
def test_what_is_no_finite_number_is_refused(value, opened, registered):
    registered(odd=lambda answer, item: value)
    with pytest.raises(EvaluationError, match=r"words.jsonl:1: scorer 'odd': expected a finite"):
        score_all(opened("odd"), scripted(says=str))


def test_a_function_that_raises_passes_its_cause_on(opened, registered):
    registered(broken=lambda answer, item: item["gone"])
    with pytest.raises(EvaluationError, match="scorer 'broken': KeyError: 'gone'") as got:
        score_all(opened("broken"), scripted(says=str))
    assert isinstance(got.value.__cause__, KeyError)


def test_an_unknown_function_is_answered_with_the_nearest_name(opened, registered):
    registered(letters=letters)
    with pytest.raises(UnknownNameError, match=r"no scorer is named 'leters' .*'letters'\?"):
        opened("leters")


@pytest.mark.parametrize("name", ["os.system", "evil.py", "./evil.py:score", "builtins:eval"])
def test_a_study_file_cannot_name_code_to_import(name, opened):
    with pytest.raises(UnknownNameError, match="no scorer is named"):
        opened(name)


def test_a_scorer_that_is_no_function_is_refused(opened, registered):
    registered(text="len")
    with pytest.raises(EvaluationError, match="scorer 'text' must be a function, got 'len'"):
        opened("text")


def test_examples_need_the_key_of_their_answers(opened, registered):
    registered(letters=letters)
    with pytest.raises(ParameterError, match="num_fewshot is 1, so `gold` must name the key"):
        opened("letters", num_fewshot=1)
    model = scripted(says=str)
    opened("letters", num_fewshot=1, gold="word").score(model, [0])
    assert model.engine.asked[0][0].count("say") == 2


def test_fingerprint_changes_with_the_file_of_the_function(opened, registered, tmp_path):
    prints = []
    for i in range(2):
        file = tmp_path / f"code{i}.py"
        file.write_text(f"def f(answer, item):\n    return {i}\n")
        scope = {}
        exec(compile(file.read_text(), str(file), "exec"), scope)
        registered(f=scope["f"])
        prints.append(opened("f").fingerprint())
    assert prints[0] != prints[1]


def test_a_function_without_a_file_has_a_fingerprint(opened, registered):
    registered(size=min)
    assert json.loads(opened("size").fingerprint())["code"] == ""


def test_the_declaration_says_between_which_numbers_a_score_is(opened, registered):
    registered(share=scorer(name="share", bounds=(0, 1))(lambda answer, item: len(answer) / 4))
    registered(bare=lambda answer, item: 1)
    assert (opened("bare").bounds, opened("share").bounds) == (None, (0, 1))
    assert score_all(opened("share"), scripted(says=lambda _: "ab")) == [0.5] * 6
    with pytest.raises(EvaluationError, match=r"jsonl:1: scorer 'share': .* 0 to 1.* got 1.25"):
        score_all(opened("share"), scripted(says=lambda _: "abcde"))
