from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from pydantic import ValidationError

from evaluators.harness.open import EVALUATOR
from merge_core.errors import EvaluationError, NonFiniteError, UnknownNameError
from tests.evaluators.conftest import CHOICE, GENERATION

CASES = {
    "generation": ("gen", "exact_match", "first-letter", {}),
    "generation, other filter": ("gen", "exact_match", "whole", {}),
    "generation with examples": ("gen", "exact_match", "first-letter", {"num_fewshot": 3}),
    "multiple choice": ("choice", "acc", "none", {}),
    "multiple choice by length": ("choice", "acc_norm", "none", {"num_fewshot": 2}),
    "loglikelihood": ("ends", "acc", "none", {}),
    "loglikelihood with examples": ("ends", "acc", "none", {"num_fewshot": 1}),
    "generation in a chat": (
        "gen",
        "exact_match",
        "first-letter",
        {"num_fewshot": 2, "apply_chat_template": True},
    ),
    "multiple choice in a chat": ("choice", "acc", "none", {"apply_chat_template": True}),
    "generation in a chat of one turn, instructed": (
        "gen",
        "exact_match",
        "whole",
        {
            "num_fewshot": 2,
            "apply_chat_template": True,
            "fewshot_as_multiturn": False,
            "system_instruction": "be brief",
        },
    ),
    "multiple choice, instructed": ("choice", "acc", "none", {"system_instruction": "be brief"}),
    "generation with other settings": (
        "gen",
        "exact_match",
        "first-letter",
        {"gen_kwargs": {"max_gen_toks": 1, "until": ["a"]}},
    ),
}


def mean(scores):
    return sum(scores.tolist()) / len(scores)  # as lm_eval.api.metrics.mean does


def prompts(task):
    return [[request.args for request in group] for group in task._prepared.requests]


def all_scores(task, live):
    return task.score(live, range(len(task.items)))


@pytest.mark.parametrize("case", CASES)
def test_mean_of_the_items_is_lm_evals_score_to_the_last_digit(case, standard, live, lm_eval_says):
    name, metric, filter_, more = CASES[case]
    task = standard.open(name, metric=metric, filter=filter_, **more)
    theirs = lm_eval_says(live, standard, name, **more)
    scores = all_scores(task, live)
    assert mean(scores) == theirs.results[f"{metric},{filter_}"]
    assert scores.tolist() == theirs.items(metric, filter_)
    assert prompts(task) == theirs.prompts(filter_)


FOLDER_CASES = {
    "generation": ("gen", "exact_match", "first-letter", {}),
    "generation with examples": ("gen", "exact_match", "first-letter", {"num_fewshot": 2}),
    "multiple choice": ("choice", "acc_norm", "none", {}),
    "multiple choice with examples": ("choice", "acc_norm", "none", {"num_fewshot": 2}),
    "loglikelihood": ("ends", "acc", "none", {}),
    "loglikelihood with examples": ("ends", "acc", "none", {"num_fewshot": 2}),
    "texts": ("texts", "word_perplexity", "none", {}),
}


@pytest.mark.parametrize("case", FOLDER_CASES)
def test_items_are_those_of_plain_lm_eval_on_the_exported_folder(
    case, standard, live, model_folder, lm_eval_says
):
    name, metric, filter_, more = FOLDER_CASES[case]
    theirs = lm_eval_says(model_folder, standard, name, **more).items(metric, filter_)
    scores = all_scores(standard.open(name, metric=metric, filter=filter_, **more), live).tolist()
    if name == "texts":  # lm-eval keeps (nats, words)
        theirs = [-nats / words for nats, words in theirs]
    assert scores == pytest.approx(
        theirs, rel=5e-7, abs=4e-5
    )  # the rounding of evaluators.engines.hf.engine


@pytest.mark.parametrize("name", ["gen", "choice", "ends"])
def test_the_standard_tasks_can_tell_models_apart(name, standard, live):
    # Guards the tests above: a task on which everything is 0 would equal anything.
    assert 0 < mean(all_scores(standard.open(name), live)) < 1


@pytest.mark.parametrize("name", ["gen", "choice", "ends", "texts"])
def test_prompts_are_those_that_lm_eval_makes(name, standard, live, lm_eval_says):
    task = standard.open(name, num_fewshot=0 if name == "texts" else 2)
    theirs = lm_eval_says(live, standard, name, **({} if name == "texts" else {"num_fewshot": 2}))
    found = task.prompts(range(len(task.items)))
    assert found == [asked[0][0] for asked in prompts(task)]
    assert {*found} == {sample["arguments"][0][0] for sample in theirs.samples}


def test_another_fewshot_seed_gives_lm_evals_score_of_that_seed(standard, live, lm_eval_says):
    task = standard.open("choice", num_fewshot=2, seed=99)
    theirs = lm_eval_says(live, standard, "choice", num_fewshot=2, fewshot_random_seed=99)
    assert prompts(task) == theirs.prompts("none")
    assert prompts(task) != prompts(standard.open("choice", num_fewshot=2))
    assert task.fingerprint() != standard.open("choice", num_fewshot=2).fingerprint()


@pytest.mark.parametrize("name", ["gen", "choice", "ends"])
def test_weights_changed_in_place_are_seen_at_once(name, standard, fresh_live, lm_eval_says):
    import torch

    task = standard.open(name)
    before = all_scores(task, fresh_live)
    with torch.no_grad():
        fresh_live.model.model.layers[0].mlp.down_proj.weight.mul_(-3)
    after = all_scores(task, fresh_live)
    theirs = lm_eval_says(fresh_live, standard, name)
    assert not np.array_equal(before, after)
    assert mean(after) == theirs.results[f"{task.unit},{json.loads(task.fingerprint())['filter']}"]


@pytest.mark.parametrize("name", ["gen", "choice", "ends", "texts"])
def test_nan_weights_raise_and_never_score(name, standard, fresh_live):
    import torch

    task = standard.open(name)
    with torch.no_grad():
        fresh_live.model.lm_head.weight[3, 0] = torch.nan
    with pytest.raises(NonFiniteError, match="finite"):
        all_scores(task, fresh_live)


def test_requests_are_built_once_and_no_document_is_read_again(standard, live, monkeypatch):
    from lm_eval.api.task import ConfigurableTask

    task = standard.open("choice", num_fewshot=2)
    before = all_scores(task, live)

    def refuse(*_args, **_kwargs):
        raise AssertionError("asked again")

    for name in ("build_all_requests", "fewshot_context", "doc_iterator", "construct_requests"):
        monkeypatch.setattr(ConfigurableTask, name, refuse)
    assert all_scores(task, live).tolist() == before.tolist()


def test_repeats_and_a_vote_over_them_give_lm_evals_score(tasks, live, lm_eval_says):
    three = {"function": "take_first_k", "k": 3}  # refuses fewer
    vote = [three, {"function": "majority_vote"}, {"function": "take_first"}]
    docs = [{"q": f"say {c}:", "a": c} for c in "abcd"]
    how = {"until": ["\n"], "max_gen_toks": 1}
    tasks.write("vote", docs, repeats=3, generation_kwargs=how, **one_filter("maj", vote))
    scores = all_scores(tasks.open("vote"), live)
    assert mean(scores) == lm_eval_says(live, tasks, "vote").results["exact_match,maj"]


def test_several_targets_give_lm_evals_score(tasks, live, lm_eval_says):
    letters = list("abcdefghijklmnopqrstuvwxyz0123")
    docs = [{"q": f"say {c}:", "a": letters} for c in "abcdefgh"]
    how = {"until": ["\n"], "max_gen_toks": 1}
    tasks.write("any", docs, generation_kwargs=how, metric_list=[exact_match()])
    scores = all_scores(tasks.open("any"), live)
    assert mean(scores) == lm_eval_says(live, tasks, "any").results["exact_match,none"]


def test_metric_and_filter_are_the_first_ones_unless_asked(standard):
    chosen = json.loads(standard.open("gen").fingerprint())
    assert (chosen["metric"], chosen["filter"]) == ("exact_match", "first-letter")
    assert standard.open("choice").unit == "acc"


def test_include_path_is_relative_to_the_folder(standard, tokenizer):
    options = EVALUATOR.options(task="choice", include_path="tasks")
    opened = EVALUATOR.open(options, standard.folder.parent, tokenizer)
    assert opened.items == standard.open("choice").items


def test_items_need_no_tokenizer_without_a_chat_template(standard):
    options = EVALUATOR.options(task="choice", include_path="tasks")
    assert len(EVALUATOR.open(options, standard.folder.parent, None).items) == 21


def test_lower_is_better_where_the_task_says_so(tasks):
    errors = [exact_match(higher_is_better=False)]
    tasks.write("errors", DOCS, metric_list=errors)
    assert tasks.open("errors").higher_is_better is False


def test_documents_of_two_prompts_are_the_same_and_their_items_are_not(tasks):
    docs = [*DOCS, DOCS[2]]
    tasks.write("plain", docs)
    tasks.write("loud", docs, doc_to_text="{{q}}!")
    plain, loud = tasks.open("plain"), tasks.open("loud")
    assert plain.documents == loud.documents
    assert len(set(plain.documents)) == 7
    assert not {item.id for item in plain.items} & {item.id for item in loud.items}


# Fingerprints


def test_fingerprint_does_not_depend_on_the_folder(tmp_path, tasks, tokenizer):
    other = type(tasks)(tmp_path / "elsewhere", tokenizer)
    prints = []
    for place in (tasks, other):
        place.write("same", DOCS, metric_list=[exact_match()])
        prints.append(place.open("same").fingerprint())
    assert prints[0] == prints[1]


@pytest.mark.parametrize(
    "change",
    [
        {"doc_to_text": "{{q}}!"},
        {"doc_to_target": "{{a}}!"},
        {"generation_kwargs": {"until": ["\n"], "max_gen_toks": 3}},
        {"metric_list": [{"metric": "exact_match", "aggregation": "mean", "ignore_case": True}]},
        {"filter_list": [{"name": "none", "filter": [{"function": "take_first_k", "k": 1}]}]},
        {"metadata": {"version": 2.0}},
        {"repeats": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_fingerprint_changes_with(change, tasks):
    usual = {"metric_list": [exact_match()], "generation_kwargs": {"until": ["\n"]}}
    tasks.write("task", DOCS, **usual)
    before = tasks.open("task").fingerprint()
    tasks.write("task", DOCS, **{**usual, **change})
    assert tasks.open("task").fingerprint() != before


def test_fingerprint_changes_with_a_right_answer(tasks):
    usual = {"metric_list": [exact_match()], "generation_kwargs": {"until": ["\n"]}}
    tasks.write("task", DOCS, **usual)
    before = tasks.open("task").fingerprint()
    tasks.write("task", [{**DOCS[0], "a": "z"}, *DOCS[1:]], **usual)
    assert tasks.open("task").fingerprint() != before


@pytest.mark.usefixtures("trusted")
def test_fingerprint_changes_with_the_code_of_a_task(tasks):
    code = tasks.folder / "code.py"
    prints = []
    for result in (0, 1):
        code.write_text(f"def results(doc, answers):\n    return {{'exact_match': {result}}}\n")
        write_with_results(tasks)
        prints.append(tasks.open("coded").fingerprint())
    assert prints[0] != prints[1]


@pytest.mark.parametrize(
    "option",
    [
        {"system_instruction": "be brief"},
        {"gen_kwargs": {"max_gen_toks": 2}},
        {"too_long": "cut"},
        {"fewshot_as_multiturn": False},
    ],
    ids=lambda option: next(iter(option)),
)
def test_fingerprint_changes_with_the_option(option, standard):
    assert standard.open("gen", **option).fingerprint() != standard.open("gen").fingerprint()


# Longer than the window


def test_item_longer_than_the_window_fails_and_says_what_to_do(tasks, live):
    docs = [{"q": "say a:", "choices": ["a", "b"], "a": 0}]
    docs += [{"q": "a" * 600, "choices": ["a", "b"], "a": 1}]
    tasks.write("long", docs, **CHOICE)
    task = tasks.open("long")
    scores = task.score(live, [1, 0, 1])
    assert np.isnan(scores).tolist() == [True, False, True]
    reason = r"602 tokens do not fit the model's window of 512; .* `too_long: cut`"
    assert [*task.failures] == [task.items[1].id]
    assert re.match(reason, task.failures[task.items[1].id])
    assert task.unfit(live, [1, 0]) == {1: task.failures[task.items[1].id]}
    assert tasks.open("long", too_long="cut").unfit(live, [1, 0]) == {}
    task.score(live, [0])
    assert task.failures == {}


def test_room_for_the_answer_counts(tasks, live):
    tasks.write("long", [{"q": "a" * 500, "a": "a"}], generation_kwargs={"max_gen_toks": 13})
    task = tasks.open("long")
    assert np.isnan(all_scores(task, live)).all()
    assert "500 tokens and up to 13 of its answer" in task.failures[task.items[0].id]
    tasks.write("fits", [{"q": "a" * 500, "a": "a"}], generation_kwargs={"max_gen_toks": 12})
    assert all_scores(tasks.open("fits"), live).tolist() == [0.0]


def test_what_is_cut_on_request_is_what_lm_eval_cuts(tasks, live, lm_eval_says):
    docs = [{"q": f"{i}" * (500 + i), "choices": ["aaaaaaaaa", "bb"], "a": i % 2} for i in range(9)]
    tasks.write("long", docs, **CHOICE)
    task = tasks.open("long", too_long="cut", metric="acc_norm")
    scores = all_scores(task, live)
    assert scores.tolist() == lm_eval_says(live, tasks, "long").items("acc_norm", "none")


def test_what_cutting_does_not_help_is_said_without_scoring(tasks, live):
    docs = [{"q": "say a:", "choices": ["a", "b" * n], "a": 0} for n in (9, 600)]
    tasks.write("long", docs, **CHOICE)
    unfit = tasks.open("long", too_long="cut").unfit(live, [0, 1])
    assert [*unfit] == [1]
    assert re.match(r"60\d tokens do not fit the model's window of 512; shorten", unfit[1])
    tasks.write("gen", [{"q": "a", "a": "a"}], generation_kwargs={"max_gen_toks": 512})
    assert [*tasks.open("gen", too_long="cut").unfit(live, [0])] == [0]


# Tasks written out


def test_a_task_can_be_written_out_in_the_study(standard, live, lm_eval_says):
    import yaml

    settings = yaml.safe_load((standard.folder / "choice.yaml").read_text())
    task = standard.open({**settings, "task": "mine"}, num_fewshot=1)
    theirs = lm_eval_says(live, standard, "choice", num_fewshot=1).items("acc", "none")
    assert task.task == "mine"
    assert all_scores(task, live).tolist() == theirs


def test_a_task_written_out_needs_no_folder(standard):
    import yaml

    settings = yaml.safe_load((standard.folder / "choice.yaml").read_text())
    opened = EVALUATOR.open(EVALUATOR.options(task=settings), standard.folder, None)
    assert opened.items == standard.open("choice").items


def test_a_task_written_out_without_a_name_is_refused(standard):
    with pytest.raises(EvaluationError, match=r"needs its name under `task`.*; got keys doc_to_t"):
        standard.open({"doc_to_text": "q"})


# Refusals


def test_unknown_metric_is_answered_with_those_there_are(standard):
    with pytest.raises(
        UnknownNameError, match=r"no metric 'ac_norm', did you mean 'acc_norm'\?; known: acc, acc_"
    ):
        standard.open("choice", metric="ac_norm")


def test_unknown_filter_is_answered_with_those_there_are(standard):
    with pytest.raises(UnknownNameError, match=r"no filter 'strict'; known: first-letter, whole"):
        standard.open("gen", filter="strict")


@pytest.mark.parametrize("name", ["bleu", "median"])
def test_metric_that_is_no_mean_is_refused(name, tasks):
    metric = {"metric": "acc" if name == "median" else name, "aggregation": name}
    tasks.write("corpus", DOCS, metric_list=[metric])
    reason = f"is no mean over items .it aggregates by {name}.*; it has no other metric either"
    with pytest.raises(EvaluationError, match=reason):
        tasks.open("corpus")


def test_metric_that_is_no_mean_is_answered_with_those_that_are(tasks):
    metrics = [{"metric": "bleu"}, {"metric": "chrf"}, exact_match()]
    tasks.write("corpus", DOCS, metric_list=metrics)
    with pytest.raises(EvaluationError, match=r"'bleu'.*; choose exact_match with `metric:`"):
        tasks.open("corpus")
    assert tasks.open("corpus", metric="exact_match").unit == "exact_match"


@pytest.mark.usefixtures("trusted")
def test_task_that_raises_while_scoring_passes_its_cause_on(tasks, live):
    (tasks.folder / "code.py").write_text("def results(doc, answers):\n    return 1 / 0\n")
    write_with_results(tasks)
    with pytest.raises(EvaluationError, match="coded: ZeroDivisionError: division") as got:
        all_scores(tasks.open("coded"), live)
    assert isinstance(got.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    "given", ["{'exact_match': None}", "{'exact_match': 'yes'}", "{'exact_match': (1, 2)}"]
)
@pytest.mark.usefixtures("trusted")
def test_metric_that_is_no_number_is_refused(given, tasks, live):
    (tasks.folder / "code.py").write_text(f"def results(doc, answers):\n    return {given}\n")
    write_with_results(tasks)
    with pytest.raises(EvaluationError, match="'exact_match' should be a number for every item"):
        all_scores(tasks.open("coded"), live)


@pytest.mark.usefixtures("trusted")
def test_metric_that_is_nan_is_refused(tasks, live):
    code = "def results(doc, answers):\n    return {'exact_match': float('nan')}\n"
    (tasks.folder / "code.py").write_text(code)
    write_with_results(tasks)
    with pytest.raises(NonFiniteError, match="metric 'exact_match' of an item is nan"):
        all_scores(tasks.open("coded"), live)


# Manners


def test_nothing_is_printed(tasks, live, capfd):
    tasks.write("quiet", DOCS, generation_kwargs={"until": ["\n"], "max_gen_toks": 2})
    all_scores(tasks.open("quiet", num_fewshot=1), live)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "module",
    [
        "evaluators.protocol",
        "evaluators.registry",
        "evaluators.harness.open",
        "evaluators.engines.vllm.engine",
    ],
)
def test_importing_a_declaration_imports_no_library(module):
    code = (
        f"import sys, {module}; "
        "print({'torch', 'transformers', 'lm_eval', 'datasets'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_options_are_frozen():
    options = EVALUATOR.options(task="x")
    with pytest.raises(ValidationError, match="Instance is frozen"):
        options.task = "y"


# Material

DOCS = [{"q": f"say {c}:", "a": c} for c in "abcdef"]


def exact_match(**more):
    return {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, **more}


def one_filter(name, steps):
    return {
        "metric_list": [exact_match()],
        "filter_list": [{"name": name, "filter": steps}],
    }


def write_with_results(tasks):
    tasks.write(
        "coded",
        DOCS,
        process_results="!function code.results",
        metric_list=[exact_match()],
        generation_kwargs={"until": ["\n"], "max_gen_toks": 2},
    )


STORY = "Once upon a time there was a little girl who"


def test_questions_on_one_text_are_one_cluster_and_a_named_key_is_another(tasks):
    docs = [
        {"q": f"say {c}:", "a": c, "passage": STORY + "ab"[i % 2], "at": {"page": i // 3}}
        for i, c in enumerate("abcdef")
    ]
    tasks.write("reading", docs, **GENERATION)
    found, named, none = (
        tasks.open("reading", **more) for more in ({}, {"cluster": "at.page"}, {"cluster": "none"})
    )
    assert found.clustered_by == "passage"
    assert len({*found.cluster_ids[::2]}) == len({*found.cluster_ids[1::2]}) == 1
    assert len({*found.cluster_ids}) == 2
    assert [len({*named.cluster_ids[i : i + 3]}) for i in (0, 3)] == [1, 1]
    assert (named.clustered_by, len({*named.cluster_ids})) == ("at.page", 2)
    assert (none.clusters, len({*none.cluster_ids})) == (None, 6)
    assert found.fingerprint() == named.fingerprint() == none.fingerprint()
    rule = r"^lm-eval task 'reading': document 0: cluster: no key 'pag', did you mean 'page'"
    with pytest.raises(EvaluationError, match=rule):
        tasks.open("reading", cluster="at.pag")


def test_tasks_without_a_text_that_they_share_have_no_clusters_but_twins(standard):
    for name in ("gen", "choice", "ends", "texts"):
        assert standard.open(name).clusters is None


def test_members_of_a_group_have_the_key_that_the_entry_names(tasks):
    for name in ("one", "two"):
        docs = [{"q": f"{name} {c}:", "a": c, "page": i // 2} for i, c in enumerate("abcd")]
        tasks.write(name, docs, **GENERATION)
    tasks.write_group("both", ["one", "two"])
    suite = tasks.open_any("both", cluster="page")
    assert [member.clustered_by for member, _ in suite.members] == ["page", "page"]
