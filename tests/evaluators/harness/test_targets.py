from __future__ import annotations

import numpy as np
import pytest

from evaluators.target import Choice
from merge_core.errors import EvaluationError, NoTargetsError
from tests.evaluators.conftest import CHOICE, GENERATION, ROLLING, choice_docs, metric

Q = [{"q": "2+2", "a": "4"}, {"q": "3+3", "a": "6"}]


def opened(tasks, docs=Q, options=None, **settings):
    made = tasks.write("own", docs, **{**GENERATION, **settings})
    return tasks.open(made, **(options or {}))


def written(task, position=0):
    (target,) = task.targets([position])
    return [choice.texts for choice in target.choices]


def how(*until):
    return {"generation_kwargs": {"until": [*until], "max_gen_toks": 6, "do_sample": False}}


@pytest.mark.parametrize(
    ("settings", "prompt", "answer"),
    [
        (how("e", "x"), "2+2", " 4e"),
        (how(), "2+2", " 4<eos>"),
        (how("x", "\n"), "2+2", " 4\n"),  # what examples end with, though another comes first
        ({**how("e"), "target_delimiter": ""}, "2+2", "4e"),
        ({**how("e"), "target_delimiter": "=", "doc_to_text": "{{q}} "}, "2+2 ", "=4e"),
        ({**how("e"), "doc_to_text": "{{q}}\n"}, "2+2\n", "4e"),
        ({**how("e"), "doc_to_target": " {{a}}"}, "2+2", " 4e"),
        ({**how("e"), "gen_prefix": "so"}, "2+2 so", " 4e"),
    ],
    ids=str,
)
def test_target_of_a_generation_is_its_right_answer_between_delimiter_and_stop(
    settings, prompt, answer, tasks
):
    assert written(opened(tasks, **settings)) == [((prompt, answer),)]


def test_a_stop_string_that_begins_the_next_example_comes_after_what_parts_them(tasks):
    task = opened(tasks, options={"num_fewshot": 1}, doc_to_text="q: {{q}}", **how("x", "q:"))
    assert written(task) == [(("q: 3+3 6\n\nq: 2+2", " 4\n\nq:"),)]


def test_target_in_a_chat_ends_with_the_end_of_its_turn(tasks):
    task = opened(tasks, options={"apply_chat_template": True}, **how("e"))
    assert written(task) == [(("<user>2+2\n<assistant>", "4<eos>"),)]


def test_target_of_several_right_answers_is_each_of_them(tasks):
    task = opened(tasks, docs=[{"q": "2+2", "a": ["4", "four"]}], **how("e"))
    assert written(task) == [(("2+2", " 4e"),), (("2+2", " foure"),)]


def test_target_may_be_named_by_its_place_among_choices(tasks):
    docs = [{"q": "2+2", "a": 1, "c": ["3", "4"]}]
    assert written(opened(tasks, docs=docs, doc_to_choice="c", **how("e"))) == [(("2+2", " 4e"),)]


@pytest.mark.parametrize(
    "settings", [{"doc_to_target": 0}, {"doc_to_target": " "}, {"doc_to_target": "{{''}}"}], ids=str
)
def test_a_task_without_right_answers_has_no_targets(settings, tasks):
    task = opened(tasks, **settings)
    with pytest.raises(NoTargetsError, match="own has no gradient: document 0 has no right answer"):
        task.targets([])


def choice(tasks, name="own", docs=None, **settings):
    tasks.write(name, docs or choice_docs(), **{**CHOICE, **settings})
    return tasks.open(name)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("acc", (1, 1, 1)), ("acc_norm", (0.75, 1.5, 0.75)), ("acc_bytes", (0.6, 1.2, 1.2))],
)
def test_target_of_a_question_is_its_right_choice_among_all(name, sizes, tasks):
    docs = [{"q": "2?", "choices": ["a", "bb", "é"], "a": 2}]
    (target,) = choice(tasks, docs=docs, metric_list=[metric(name)]).targets([0])
    assert [x.texts for x in target.choices] == [(("2?", f" {x}"),) for x in ("a", "bb", "é")]
    assert [x.size for x in target.choices] == pytest.approx(sizes)
    assert (target.right, target.competing) == ((2,), True)


def test_target_of_exact_match_is_the_right_choice_against_all_else(tasks):
    docs = [{"q": "2?", "choices": ["a", "bb"], "a": 1}]
    (target,) = choice(tasks, docs=docs, metric_list=[metric("exact_match")]).targets([0])
    assert (target.right, target.competing) == ((1,), False)


def test_several_right_choices_and_one_by_its_text_are_right(tasks):
    docs = [{"q": "2?", "choices": ["a", "bb", "c"], "a": [0, 2]}]
    assert choice(tasks, docs=docs).targets([0])[0].right == (0, 2)
    docs = [{"q": "2?", "choices": ["a", "bb", "c"], "a": "bb"}]
    assert choice(tasks, "other", docs=docs).targets([0])[0].right == (1,)


def test_choices_that_stand_in_the_prompt_are_compared_there(tasks):
    docs = [{"starts": ["one x", "two x"], "a": 1, "end": "y"}]
    own = {"doc_to_text": "a", "doc_to_target": "end", "doc_to_choice": "starts"}
    (target,) = choice(tasks, docs=docs, **own).targets([0])
    assert [x.texts for x in target.choices] == [(("one x", " y"),), (("two x", " y"),)]
    assert target.right == (1,)


def test_mutual_information_takes_off_what_a_choice_has_without_its_question(tasks):
    docs = [{"q": "2?", "choices": ["a", "bb"], "a": 1}]
    (target,) = choice(tasks, docs=docs, metric_list=[metric("acc_mutual_info")]).targets([0])
    assert target.choices == tuple(
        Choice((("2?", f" {x}"),), less=(("", f" {x}"),), size=1.0) for x in ("a", "bb")
    )


@pytest.mark.usefixtures("trusted")
def test_a_task_with_its_own_results_is_asked_which_choices_they_like_best(tasks):
    # as truthfulqa_mc2 does: the share of all right choices, of which doc_to_target names one
    (tasks.folder / "code.py").write_text(
        "import math\n\n\n"
        "def results(doc, answers):\n"
        "    shares = [math.exp(nats) for nats, _ in answers]\n"
        "    right = sum(s for s, label in zip(shares, doc['labels']) if label)\n"
        "    return {'acc': right / sum(shares)}\n"
    )
    docs = [{"q": "2?", "choices": ["a", "b", "c"], "a": 0, "labels": [1, 0, 1]}]
    own = {"process_results": "!function code.results", "metric_list": [metric("acc")]}
    assert choice(tasks, docs=docs, **own).targets([0])[0].right == (0, 2)
    docs = [{**docs[0], "labels": [1, 1, 1]}]
    with pytest.raises(NoTargetsError, match="document 0 has choices of which acc likes all alike"):
        choice(tasks, "other", docs=docs, **own).targets([])


def test_a_question_without_a_right_choice_has_no_targets(tasks):
    task = choice(tasks, docs=[{"q": "2?", "choices": ["a", "b"], "a": -1}])
    with pytest.raises(NoTargetsError, match=r"right choice -1, which is none of \['a', 'b'\]"):
        task.targets([])


def test_what_a_tasks_own_code_raises_names_task_and_document(tasks, monkeypatch):
    task = opened(tasks)
    monkeypatch.setattr(task._prepared.task, "doc_to_target", lambda doc: doc["b"])
    with pytest.raises(EvaluationError, match=r"^own: what document 0 wants said: KeyError: 'b'$"):
        task.targets([])


@pytest.mark.parametrize("name", ["word_perplexity", "byte_perplexity", "bits_per_byte"])
def test_loss_of_a_text_is_its_score(name, standard, live):
    task = standard.open("texts", metric=name)
    every = range(len(task.items))
    sign = -1 if task.higher_is_better else 1
    scores = sign * task.score(live, every)
    assert live.engine.losses(task.targets(every)) == pytest.approx(scores, rel=1e-5)


def test_loss_of_a_perplexity_is_the_nats_that_it_is_made_of(standard, live):
    task = standard.open("ends", metric="perplexity")
    every = range(len(task.items))
    scores = task.score(live, every)
    assert live.engine.losses(task.targets(every)) == pytest.approx(scores, rel=1e-5, abs=1e-5)


def test_loss_of_a_continuation_is_its_nats_by_token(standard, live, tokenizer):
    task = standard.open("ends")
    every = range(len(task.items))
    pairs = [requests[0].args for requests in task._prepared.requests]
    nats = [
        -x / len(tokenizer(pair[1])["input_ids"])
        for pair, (x, _) in zip(pairs, live.engine.loglikelihood(pairs), strict=True)
    ]
    assert live.engine.losses(task.targets(every)) == pytest.approx(nats, rel=1e-5, abs=1e-5)


def test_loss_of_a_question_is_the_log_of_what_probability_scores(standard, live):
    task = standard.open("choice", metric="probability")
    every = range(len(task.items))
    losses = live.engine.losses(task.targets(every))
    np.testing.assert_allclose(np.exp([-x for x in losses]), task.score(live, every), rtol=1e-4)


@pytest.mark.usefixtures("trusted")
def test_a_text_whose_metric_is_not_by_size_counts_by_its_tokens(tasks, live):
    code = "def results(doc, answers):\n    return {'own': answers[0]}\n"
    (tasks.folder / "code.py").write_text(code)
    own = {"process_results": "!function code.results", "metric_list": [metric("own")]}
    task = tasks.open(tasks.write("rolling", [{"text": "abc de"}], **{**ROLLING, **own}))
    (nats,) = live.engine.loglikelihood_rolling(["abc de"])
    assert live.engine.losses(task.targets([0])) == [pytest.approx(-nats / 6, rel=1e-5)]
