import json
import re

import pytest

from evaluators.registry import EVALUATORS
from merge_core.errors import EvaluationError
from search.draft.questions import guess


def file_of(folder, *rows):
    file = folder / "q.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return file


def entry_of(folder, *rows):
    found = guess(file_of(folder, *rows), "q.jsonl")
    assert found.items == len(rows)
    return {key: x for key, x in found.entry.items() if key != "file"}


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        (
            {"question": "2+2?", "choices": ["3", "4"], "answer": 1},
            {"prompt": "Question: {{ question }}\nAnswer:", "choices": "choices", "gold": "answer"},
        ),
        (
            {"prompt": "2+2=", "options": ["3", "4"], "gold": "B"},
            {"prompt": "{{ prompt }}", "choices": "options", "gold": "gold"},
        ),
        (
            {"ctx": "He", "endings": ["sat", "flew"], "label": 0},
            {"prompt": "{{ ctx }}", "choices": "endings", "gold": "label"},
        ),
        (
            {"context": "C.", "question": "Q?", "A": "x", "B": "y", "C": "z", "answer": "B"},
            {
                "prompt": "{{ context }}\n\nQuestion: {{ question }}\nAnswer:",
                "choices": ["A", "B", "C"],
                "gold": "answer",
            },
        ),
        (
            {"question": "Q?", "option1": "x", "option2": "y", "answer": "y"},
            {
                "prompt": "Question: {{ question }}\nAnswer:",
                "choices": ["option1", "option2"],
                "gold": "answer",
            },
        ),
        (
            {"question": "Q?", "options": ["x", "y"], "answer": ["y"], "gold": 1},
            {
                "prompt": "Question: {{ question }}\nAnswer:",
                "choices": "options",
                "gold": "gold",
            },
        ),
        (
            {"review": "razor sharp", "choices": ["terrible", "great"], "answer": "great"},
            {"prompt": "{{ review }}\nAnswer:", "choices": "choices", "gold": "answer"},
        ),
        (
            {"q": "Q?", "words": ["x", "y"], "correct": 0},
            {"prompt": "Question: {{ q }}\nAnswer:", "choices": "words", "gold": "correct"},
        ),
    ],
)
def test_a_list_of_choices_and_which_is_right_is_multiple_choice(tmp_path, row, wanted):
    assert entry_of(tmp_path, row, row) == {"evaluator": "multiple_choice", **wanted}


def test_a_question_and_an_answer_in_words_is_an_exact_match(tmp_path):
    rows = [{"question": "Capital?", "answer": "Paris"}, {"question": "Who?", "answer": "Ada L."}]
    assert entry_of(tmp_path, *rows) == {
        "evaluator": "exact_match",
        "prompt": "Question: {{ question }}\nAnswer:",
        "answer": "answer",
        "stop": "\n",
        "max_tokens": 14,
    }


def test_answers_that_are_all_numbers_are_compared_as_numbers(tmp_path):
    found = entry_of(tmp_path, {"prompt": "2+2=", "target": 4}, {"prompt": "x", "target": "1,000"})
    assert found["answer"] == "target"
    assert found["prompt"] == "{{ prompt }}"
    assert found["numeric"] is True
    assert re.search(found["answer_regex"], "It is -1,000.5 or 7")[1] == "-1,000.5"


def test_several_right_answers_and_answers_of_several_lines_are_kept(tmp_path):
    found = entry_of(tmp_path, {"query": "x?", "answer": ["a", "b\nc"]})
    assert "stop" not in found
    assert found["answer"] == "answer"


def test_an_instruction_is_asked_with_its_input(tmp_path):
    row = {"instruction": "Sort.", "input": "c a b", "output": "a b c"}
    found = entry_of(tmp_path, row)
    assert found["prompt"] == "{{ instruction }}\n{{ input }}\n"
    assert found["answer"] == "output"


@pytest.mark.parametrize("row", [{"text": "Long."}, {"body": "x", "id": 3}, {"lyrics": "La"}])
def test_a_text_without_a_question_is_measured_in_bits_per_byte(tmp_path, row):
    assert entry_of(tmp_path, row) == {"evaluator": "bits_per_byte", "text": next(iter(row))}


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([{"x": "a", "y": "b"}], "none of them is known as a question, choices or a text"),
        ([{"question": "Q?"}], "question is a question, but none of answer, gold"),
        ([{"question": "Q?", "choices": ["a", "b"]}], "choices: choices, but none of answer"),
        ([{"question": "Q?", "choices": ["a", "b"], "answer": 2}], "says in each line which is"),
        ([{"question": "Q?", "choices": ["a", "b"], "answer": "c"}], "says in each line which is"),
        (
            [{"question": "Q?", "option1": "x", "option2": "y", "answer": 1}],
            "option1, option2: choices, but none of answer",
        ),
        ([{"choices": ["a", "b"], "answer": 0}], "which key is the question is not clear"),
        (
            [{"x": "t", "y": "u", "choices": ["a", "b"], "answer": 0}],
            "choices: choices, but which key is the question is not clear",
        ),
        ([{"a": 98, "b": 45, "answer": "143"}], "a, b: choices, but none of answer, gold"),
        ([{"question": "Q?", "answer": "w " * 200}], "answer has up to 400 characters"),
        ([{"question": "Q?", "answer": True}], "answer holds other things than texts and numbers"),
        ([{"text": "x", "label": 1}], "text may be a text to be likely, or a question that label"),
        ([{"messages": [{"role": "user", "content": "x"}]}], "none of them is known"),
        (
            [{"question": "Q?", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "A"}],
            "choices holds a mapping, expected a list of choices",
        ),
        ([{"question": "Q?", "answer": "a"}, {"question": "Q?"}], "all lines have the keys quest"),
    ],
)
def test_what_is_not_clear_is_refused_with_what_to_write(tmp_path, rows, why):
    with pytest.raises(EvaluationError, match=re.escape(why)) as caught:
        guess(file_of(tmp_path, *rows), "data/q.jsonl")
    for name in ("exact_match", "multiple_choice", "bits_per_byte"):
        assert f"{{evaluator: {name}, file: data/q.jsonl, " in str(caught.value)


def test_texts_without_keys_are_measured_in_bits_per_byte(tmp_path):
    file = tmp_path / "held.txt"
    file.write_text("One.\n\nTwo.\n")
    entry = {"evaluator": "bits_per_byte", "file": "d/held"}
    for path, count in ((file, 2), (tmp_path, 1)):
        found = guess(path, "d/held")
        assert (found.entry, found.items) == (entry, count)


def test_files_of_other_kinds_are_refused(tmp_path):
    with pytest.raises(EvaluationError, match=r"q\.csv: expected \.jsonl .* \.txt, \.parquet or a"):
        guess(tmp_path / "q.csv", "q.csv")


def test_what_is_guessed_has_keys_that_its_evaluator_takes(tmp_path):
    rows = (
        {"question": "Q?", "choices": ["a", "b"], "answer": 1},
        {"question": "Q?", "answer": 4},
        {"text": "x"},
    )
    for row in rows:
        found = guess(file_of(tmp_path, row), "q.jsonl")
        options = {key: x for key, x in found.entry.items() if key != "evaluator"}
        assert not EVALUATORS.get(found.entry["evaluator"]).problems(options)
