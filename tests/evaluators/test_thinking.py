"""Models that think before they answer are scored as plain lm-eval scores them."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from evaluators.engines.encoding import TokenIds
from evaluators.engines.hf.engine import live_model
from evaluators.engines.stopping import Stopping
from evaluators.engines.vllm.engine import VllmEngine
from evaluators.registry import EVALUATORS
from merge_core.errors import EvaluationError, NoTargetsError
from tests.evaluators import conftest
from tests.evaluators.own_files import open_entry, score_all, write_lines

TEMPLATE = (
    conftest.CHAT + "{% if enable_thinking is defined and enable_thinking %}think {% endif %}"
    "{% if mood is defined %}{{ mood }}{% endif %}"
)
ENTRY = {"apply_chat_template": True}
FREE = {  # of lm-eval: no stop string that could stand in thoughts
    **conftest.GENERATION,
    "generation_kwargs": {"until": [], "max_gen_toks": 24, "do_sample": False},
}
FULL = {"max_gen_toks": 24, "do_sample": False}


@pytest.fixture
def thinking(tasks, tokenizer, monkeypatch):
    """A chat template with arguments, and the tasks ``free`` and ``choice``."""
    monkeypatch.setattr(tokenizer, "chat_template", TEMPLATE)
    monkeypatch.setattr(conftest, "CHAT", TEMPLATE)
    docs = [{"q": prompt, "a": prompt[4]} for prompt in conftest.prompts()]
    tasks.write("free", docs, **FREE)
    tasks.write("choice", conftest.choice_docs(), **conftest.CHOICE)
    return tasks


@pytest.fixture
def common(thinking, live):
    """The letter that the model writes most often in the middle of its answers."""
    texts = live.engine.generate_until([(p, FULL) for p in prompts_of(thinking, **ENTRY)])
    inner = "".join(text[2:-2] for text in texts)
    return max(filter(str.isalpha, inner), key=inner.count)  # lm-eval takes a digit for a number


def prompts_of(tasks, **entry):
    return [r.args[0] for group in tasks.open("free", **entry)._prepared.requests for r in group]


@pytest.mark.parametrize(
    ("args", "lm_args"),
    [
        ({"enable_thinking": False}, {"enable_thinking": False}),
        ({"mood": "so"}, {"chat_template_args": {"mood": "so"}}),
        ({"enable_thinking": True, "mood": "so"}, {"enable_thinking": True}),
    ],
)
@pytest.mark.parametrize("end", [None, "text", "number", "digits"])
def test_scores_are_those_of_lm_eval_with_the_same_arguments(
    args, lm_args, end, thinking, live, tokenizer, common, lm_eval_says
):
    number = tokenizer.convert_tokens_to_ids(common)
    ends = {"text": common, "number": number, "digits": str(number), None: None}[end]
    if ends is None and args.get("enable_thinking"):
        ends = common
    entry = {**ENTRY, "chat_template_args": args, "think_end_token": ends}
    if "mood" in args:
        lm_args = {**lm_args, "chat_template_args": {"mood": args["mood"]}}
    task = thinking.open("free", filter="whole", **entry)
    theirs = lm_eval_says(
        live,
        thinking,
        "free",
        apply_chat_template=True,
        fewshot_as_multiturn=True,
        lm_args={**lm_args, "think_end_token": ends},
    )
    assert [[r.args for r in group] for group in task._prepared.requests] == theirs.prompts("whole")
    scores = task.score(live, range(len(task.items))).tolist()
    assert scores == theirs.items("exact_match", "whole")
    said = [s["resps"][0][0] for s in theirs.samples if s["filter"] == "whole"]
    how = {**FULL, "until": [], "think_end_token": ends}
    how = {key: value for key, value in how.items() if value is not None}
    if end == "digits":
        how["think_end_token"] = number
    ours = live.engine.generate_until([(r[0][0], how) for r in theirs.prompts("whole")])
    assert ours == said


def test_arguments_of_the_template_reach_its_prompts(thinking):
    plain = prompts_of(thinking, **ENTRY)
    found = prompts_of(thinking, **ENTRY, chat_template_args={"mood": "so"})
    assert found == [f"{prompt}so" for prompt in plain]


@pytest.mark.parametrize("kind", ["text", "number"])
@pytest.mark.parametrize("stops", [["e"], ["a", " "], []])
def test_stop_strings_count_behind_the_thoughts_as_lm_eval_cuts_them(
    kind, stops, thinking, live, tokenizer, common
):
    from lm_eval.models.utils import postprocess_generated_text

    asked = prompts_of(thinking, **ENTRY)
    whole = live.engine.generate_until([(prompt, FULL) for prompt in asked])
    end = common if kind == "text" else tokenizer.convert_tokens_to_ids(common)
    how = {**FULL, "until": stops, "think_end_token": end}
    found = live.engine.generate_until([(prompt, how) for prompt in asked])
    assert found == [postprocess_generated_text(text, stops, common) for text in whole]
    assert any(common in text for text in whole)


def test_an_engine_of_lm_evals_own_cuts_thoughts_alike(thinking, tokenizer, common):
    live = live_model(conftest.make_model(), tokenizer, batch_size=8)
    asked = prompts_of(thinking, **ENTRY)
    for end in (common, tokenizer.convert_tokens_to_ids(common), None):
        how = {**FULL, "until": ["e"], **({} if end is None else {"think_end_token": end})}
        ours = live.engine.generate_until([(prompt, how) for prompt in asked])
        theirs = live.engine._hflm.written([(prompt, how) for prompt in asked])
        assert ours == theirs


def test_vllm_ends_no_generation_in_thoughts_and_tells_their_ends_apart(tokenizer):
    sent = []

    def answers(prompts, settings):
        sent.extend(settings)
        ids = tokenizer.encode("one.x two.y three.", add_special_tokens=False)
        written = SimpleNamespace(token_ids=ids, cumulative_logprob=-1.0)
        return [SimpleNamespace(outputs=[written]) for _ in prompts]

    engine = object.__new__(VllmEngine)
    engine._tokenizer, engine._ids, engine._ends = tokenizer, TokenIds(tokenizer, 999), {1}
    engine._settings, engine._vllm = {}, SimpleNamespace(answers=answers)
    ends = ["x", "y", tokenizer.convert_tokens_to_ids("y"), None]
    hows = [{"until": ["."], **({"think_end_token": end} if end else {})} for end in ends]
    assert engine.generate_until([("say", how) for how in hows]) == [
        "two", "three", "three", "one"
    ]  # fmt: skip
    assert sorted(how["stop"] for how in sent) == [[], [], [], ["."]]


def test_thoughts_without_an_end_are_the_answer_as_in_lm_eval():
    assert Stopping(9, ("b",), "</think>").cut("  thinking about") == "thinking a"
    assert Stopping(9, ("b",), "</think>").cut("a b</think>\n\nc </think> dbe") == "d"
    assert Stopping(9, ("b",)).cut(" abc") == " a"


def test_the_end_of_thoughts_is_part_of_the_fingerprint_and_its_absence_is_not(thinking):
    plain = thinking.open("free", **ENTRY)
    assert "think" not in plain.fingerprint()
    entries = [{"think_end_token": "a"}, {"think_end_token": 5}, {"chat_template_args": {}}]
    prints = {thinking.open("free", **ENTRY, **entry).fingerprint() for entry in entries}
    assert len({plain.fingerprint(), *prints}) == 4
    assert json.loads(min(prints))["apply_chat_template"] is True


@pytest.mark.parametrize("evaluator", ["exact_match", "multiple_choice"])
def test_own_questions_get_the_arguments_too(evaluator, thinking, live, tokenizer, tmp_path):
    rows = [{"q": f"say {c}:", "choices": [c, "x"], "answer": c} for c in "abc"]
    entry = {"file": write_lines(tmp_path / "quiz.jsonl", rows), "prompt": "{{ q }}", **ENTRY}
    if evaluator == "multiple_choice":
        entry["choices"] = "choices"
    args = {"chat_template_args": {"mood": "so", "enable_thinking": False}}
    plain = open_entry(evaluator, tmp_path, tokenizer, **entry)
    quiz = open_entry(evaluator, tmp_path, tokenizer, **entry, **args)
    assert quiz.fingerprint() != plain.fingerprint()
    assert all(0 <= score <= 1 for score in score_all(quiz, live))


def test_an_own_question_is_compared_with_what_follows_the_thoughts(
    thinking, live, tokenizer, tmp_path, common
):
    said = live.engine.generate_until([(p, FULL) for p in prompts_of(thinking, **ENTRY)])
    i = next(i for i, text in enumerate(said) if common in text)
    rows = [{"q": conftest.prompts()[i], "answer": said[i].rpartition(common)[2].lstrip() or " "}]
    entry = {"file": write_lines(tmp_path / "quiz.jsonl", rows), "prompt": "{{ q }}", **ENTRY}
    quiz = open_entry(
        "exact_match", tmp_path, tokenizer, **entry, think_end_token=common, max_tokens=24
    )
    assert score_all(quiz, live) == [1.0]
    assert "think_end_token" in quiz.fingerprint()
    without = open_entry("exact_match", tmp_path, tokenizer, **entry, max_tokens=24)
    assert score_all(without, live) == [0.0]


THINK = {"enable_thinking": True}
END = "expected a text or the number of a token, got "


@pytest.mark.parametrize("evaluator", ["lm_eval", "exact_match"])
@pytest.mark.parametrize(
    ("entry", "problems"),
    [
        ({**ENTRY, "chat_template_args": THINK, "think_end_token": "</think>"}, {}),
        ({**ENTRY, "think_end_token": 7}, {}),
        ({"think_end_token": "</think>"}, {}),
        ({**ENTRY, "chat_template_args": {"enable_thinking": False}}, {}),
        (
            {"chat_template_args": {}},
            {"chat_template_args": "needs `apply_chat_template: true`"},
        ),
        (
            {**ENTRY, "chat_template_args": THINK},
            {
                "think_end_token": "required with `enable_thinking: true`: what ends the thoughts, "
                "such as '</think>'"
            },
        ),
        (
            {**ENTRY, "chat_template_args": {"tokenize": True, "messages": []}},
            {
                "chat_template_args.tokenize": "set by lm-eval itself; omit it",
                "chat_template_args.messages": "set by lm-eval itself; omit it",
            },
        ),
        (
            {**ENTRY, "chat_template_args": "x"},
            {"chat_template_args": "expected a mapping, got 'x'"},
        ),
        ({"think_end_token": ""}, {"think_end_token": f"{END}''"}),
        ({"think_end_token": -1}, {"think_end_token": f"{END}-1"}),
        ({"think_end_token": 1.5}, {"think_end_token": f"{END}1.5"}),
        (
            {"apply_chat_template": 3, "chat_template_args": {}},
            {"apply_chat_template": "expected true or false, got 3"},
        ),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_in_the_study_file(evaluator, entry, problems):
    needed = {"lm_eval": {"task": "x"}, "exact_match": {"file": "x", "prompt": "x"}}[evaluator]
    found = EVALUATORS.get(evaluator).problems({**needed, **entry})
    assert {p.path: p.rule for p in found} == problems


def test_likelihoods_are_of_answers_without_thoughts(thinking):
    needed = {"file": "x", "prompt": "x", "choices": "x"}
    plugin = EVALUATORS.get("multiple_choice")
    (problem,) = plugin.problems({**needed, **ENTRY, "chat_template_args": THINK})
    assert problem.path == "chat_template_args.enable_thinking"
    with pytest.raises(EvaluationError, match=r"'choice' asks for likelihoods \(multiple_choice\)"):
        thinking.open("choice", **ENTRY, chat_template_args=THINK, think_end_token="x")
    thinking.open("choice", **ENTRY, chat_template_args={"enable_thinking": False})


def test_an_end_of_thoughts_where_nothing_is_written_is_refused(thinking):
    with pytest.raises(EvaluationError, match="has think_end_token, but generates nothing; omit"):
        thinking.open("choice", think_end_token="</think>")


def test_an_argument_that_the_template_does_not_have_is_refused(thinking, tokenizer, tmp_path):
    rule = r"chat_template_args\.enable_thinkin: the tokenizer's chat template has no such .*, did"
    args = {"chat_template_args": {"enable_thinkin": True}}
    with pytest.raises(EvaluationError, match=rf"^lm-eval task 'free': {rule}"):
        thinking.open("free", **ENTRY, **args)
    entry = {"file": write_lines(tmp_path / "quiz.jsonl", [{"q": "x", "answer": "y"}])}
    with pytest.raises(EvaluationError, match=rf"^quiz\.jsonl: {rule}"):
        open_entry("exact_match", tmp_path, tokenizer, **entry, prompt="{{ q }}", **ENTRY, **args)


def test_thoughts_leave_no_targets_for_a_gradient(thinking, tokenizer, tmp_path):
    rule = r"has no gradient: what a model is to think before its answer"
    with pytest.raises(NoTargetsError, match=rule):
        thinking.open("free", **ENTRY, think_end_token="x").targets([0])
    assert thinking.open("free", **ENTRY, chat_template_args={"enable_thinking": False}).targets(
        [0]
    )
    entry = {"file": write_lines(tmp_path / "quiz.jsonl", [{"q": "x", "answer": "y"}])}
    entry |= {"prompt": "{{ q }}", **ENTRY}
    with pytest.raises(NoTargetsError, match=rule):
        open_entry("exact_match", tmp_path, tokenizer, **entry, think_end_token="x").targets([0])
    assert open_entry("exact_match", tmp_path, tokenizer, **entry).targets([0])


def test_a_special_token_is_named_by_its_number(thinking, tokenizer, tmp_path):
    rule = r"think_end_token: '<eos>' is a special token, .*; write its number, 1$"
    with pytest.raises(EvaluationError, match=rf"^lm-eval task 'free': {rule}"):
        thinking.open("free", think_end_token="<eos>")
    entry = {"file": write_lines(tmp_path / "quiz.jsonl", [{"q": "x", "answer": "y"}])}
    with pytest.raises(EvaluationError, match=rf"^quiz\.jsonl: {rule}"):
        open_entry(
            "exact_match", tmp_path, tokenizer, **entry, prompt="{{ q }}", think_end_token="<eos>"
        )
