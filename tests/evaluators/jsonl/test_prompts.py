from __future__ import annotations

import pytest

from evaluators.jsonl import prompts as made
from evaluators.jsonl.prompts import PromptOptions, prepare
from merge_core.errors import EvaluationError
from tests.evaluators.own_files import open_entry, write_lines

ROWS = [{"q": f"say {c}:", "a": c} for c in "abcdefgh"]


@pytest.fixture
def prompts(tmp_path, tokenizer):
    def make(rows=ROWS, **entry):
        file = write_lines(tmp_path / "quiz.jsonl", rows)
        options = PromptOptions(**{"file": file, "prompt": "{{ q }}", **entry})
        return prepare(options, tmp_path, tokenizer, lambda row: row.text("a"))

    return make


def test_plain_prompt_is_system_examples_and_question_apart_by_empty_lines(prompts):
    made = prompts(ROWS[:2], system="be brief", num_fewshot=1)
    assert made.texts[0] == "be brief\n\nsay b: b\n\nsay a:"


def test_examples_have_the_delimiter_that_is_asked_for(prompts):
    assert prompts(ROWS[:2], delimiter="", num_fewshot=1).texts[0] == "say b:b\n\nsay a:"


def test_chat_is_one_turn_per_question_and_answer(prompts):
    made = prompts(ROWS[:2], system="be brief", num_fewshot=1, apply_chat_template=True)
    assert made.texts[0] == (
        "<system>be brief\n<user>say b:\n<assistant>b\n<user>say a:\n<assistant>"
    )


def test_a_prompt_may_use_all_that_jinja_has(prompts):
    rows = [{"q": "x", "options": ["one", "two"]}]
    text = "{{ q | upper }}{% for o in options %}\n{{ loop.index }}. {{ o }}{% endfor %}\n"
    assert prompts(rows, prompt=text).texts == ("X\n1. one\n2. two\n",)


@pytest.mark.parametrize("seed", range(5))
def test_no_row_is_an_example_of_itself_or_of_its_twin(seed, prompts):
    rows = [*ROWS[:4], ROWS[0]]
    for row, text in zip(rows, prompts(rows, num_fewshot=3, seed=seed).texts, strict=True):
        *shots, question = text.split("\n\n")
        assert question == row["q"]
        assert len(set(shots)) == 3
        assert f"{row['q']} {row['a']}" not in shots


def test_examples_do_not_depend_on_the_other_rows_that_are_scored(prompts, tmp_path):
    shots = write_lines(tmp_path / "shots.jsonl", ROWS)
    whole = prompts(ROWS, num_fewshot=2, fewshot_file=shots)
    part = prompts(ROWS[5:2:-1], num_fewshot=2, fewshot_file=shots)
    assert part.texts == whole.texts[5:2:-1]


def test_another_seed_draws_other_examples(prompts):
    assert prompts(num_fewshot=3).texts != prompts(num_fewshot=3, seed=5).texts


def test_every_row_is_drawn_about_as_often(prompts):
    rows = [{"q": f"say {i}:", "a": str(i)} for i in range(200)]
    texts = prompts(rows, num_fewshot=5).texts
    times = [sum(f"say {i}: {i}\n\n" in text for text in texts) for i in range(200)]
    # Binomial(199, 5 / 199): mean 5, standard deviation 2.2; 4.5 of them above is 1 in 10,000
    assert sum(times) == 1000
    assert max(times) <= 15


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        ({"prompt": "{{ question }}"}, r"quiz.jsonl:1: prompt cannot be filled: 'question' is"),
        ({"prompt": "{{ q.x.y }}"}, "prompt cannot be filled: .*; the row has q, a"),
        ({"prompt": "{{ q / 2 }}"}, "prompt cannot be filled: unsupported operand"),
        ({"prompt": "{% if %}"}, "prompt: line 1: Expected an expression"),
        ({"prompt": "{{ q.__class__.__mro__ }}"}, "prompt cannot be filled: it may not run code"),
        ({"prompt": "{{ '' }}"}, "quiz.jsonl:1: the prompt is empty"),
        ({"num_fewshot": 8}, "num_fewshot is 8, but quiz.jsonl has 7 other rows"),
        ({"num_fewshot": 1, "fewshot_file": "gone"}, "gone: cannot be read: No such file"),
    ],
)
def test_what_gives_no_prompt_is_refused(entry, rule, prompts):
    with pytest.raises(EvaluationError, match=rule):
        prompts(**entry)


def test_prompts_that_fill_the_memory_are_refused(prompts, monkeypatch):
    monkeypatch.setattr(made, "BYTES", 1000)
    with pytest.raises(EvaluationError, match=r"quiz.jsonl:3: .* more than 1000 characters"):
        prompts(prompt="{{ 'x' * 400 }}")


def test_a_prompt_cannot_change_its_row(prompts):
    with pytest.raises(EvaluationError, match=r"access to attribute 'append'.*is unsafe"):
        prompts([{"q": ["x"], "a": "y"}], prompt="{{ q.append('z') }}")


def test_a_chat_without_a_template_is_refused(prompts, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", None)
    with pytest.raises(EvaluationError, match=r"quiz.jsonl .*the tokenizer has no chat template"):
        prompts(apply_chat_template=True)


def test_a_template_that_refuses_a_role_is_an_error(prompts, tokenizer, monkeypatch):
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    monkeypatch.setattr(tokenizer, "chat_template", refusing)
    with pytest.raises(EvaluationError, match="chat template cannot be filled: no system"):
        prompts(apply_chat_template=True, system="be brief")


LONG = "Once upon a time there was a little girl who"


def test_rows_of_one_passage_are_one_cluster_and_twins_are_too(tmp_path, tokenizer):
    rows = [{"q": q, "p": "xyx"[i], "answer": "a"} for i, q in enumerate("abc")]
    file = write_lines(tmp_path / "quiz.jsonl", [*rows, rows[1]])
    entry = {"file": file, "prompt": "{{ q }}"}
    quiz = open_entry("exact_match", tmp_path, tokenizer, **entry, cluster="p")
    one, two, three, four = quiz.cluster_ids
    assert one == three != two == four
    assert quiz.clustered_by == "p"
    plain = open_entry("exact_match", tmp_path, tokenizer, **entry)
    assert (plain.clusters, plain.fingerprint()) == (None, quiz.fingerprint())
    with pytest.raises(EvaluationError, match=r"^quiz.jsonl:1: cluster: no key 'pp', did you mean"):
        open_entry("exact_match", tmp_path, tokenizer, **entry, cluster="pp")


def test_a_passage_that_rows_share_is_found(tmp_path, tokenizer):
    rows = [{"q": q, "passage": LONG, "answer": "a"} for q in "ab"] + [{"q": "c", "answer": "a"}]
    entry = {"file": write_lines(tmp_path / "quiz.jsonl", rows), "prompt": "{{ q }}"}
    quiz = open_entry("exact_match", tmp_path, tokenizer, **entry)
    assert (quiz.clustered_by, len({*quiz.cluster_ids})) == ("passage", 2)
    alone = open_entry("exact_match", tmp_path, tokenizer, **entry, cluster="none")
    assert (alone.clusters, len({*alone.cluster_ids})) == (None, 3)


def test_a_row_is_the_same_document_under_another_name(tmp_path, tokenizer):
    rows = [{"q": q, "answer": "a"} for q in "abca"]
    one, two = (
        open_entry(
            "exact_match",
            tmp_path,
            tokenizer,
            file=write_lines(tmp_path / f"{name}.jsonl", rows),
            prompt="{{ q }}",
        )
        for name in ("one", "two")
    )
    assert one.documents == two.documents
    assert one.documents[3] == f"{one.documents[0]}#2"
    assert not {item.id for item in one.items} & {item.id for item in two.items}
