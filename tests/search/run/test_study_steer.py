"""A real study steered by graded metrics, against the evaluators on the models themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from evaluators.registry import EVALUATORS
from merge_core.errors import EvaluationError
from search.report.reproduce import reproduce
from search.spec import study_file
from search.storage.locate import open_study
from search.trial.worker import Worker
from tests.search.real import QUICKSTART, run_whole, worker_of, write_study

pytestmark = pytest.mark.slow

ASK = {"prompt": "{{ prompt }}", "delimiter": ""}
SCORE = [
    {"evaluator": "lm_eval", "task": "picks", "include_path": "../tasks", "chance": "auto"},
    {"evaluator": "lm_eval", "task": "ends", "include_path": "../tasks", "weight": 0.5},
    {"evaluator": "exact_match", "file": "../sums.jsonl", "max_tokens": 7, "stop": ".", **ASK},
]
CHOICES = {"choices": "choices", "gold": "gold"}
SCORE += [{"evaluator": "multiple_choice", "file": "../quiz.jsonl", **ASK, **CHOICES}]
STEER = ["margin", "perplexity", "f1", "probability"]
UNITS = {"pick_add": ("acc", "margin"), "pick_sort": ("acc", "margin")}
UNITS |= {
    "ends": ("acc", "perplexity"),
    "sums": ("exact_match", "f1"),
    "quiz": ("acc", "probability"),
}
ROUNDING = 1e-4  # nats; an item is padded otherwise among other neighbours


def problems(name, places):
    lines = (QUICKSTART / "tasks" / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(lines[i]) for i in places]


def with_choices(rows):
    """Three choices for each row: the right answer, it reversed, and the next row's."""
    found = []
    for i, row in enumerate(rows):
        others = [f"{row['answer'][::-1]}0", rows[(i + 1) % len(rows)]["answer"]]
        choices = [*others[: i % 3], row["answer"], *others[i % 3 :]]
        found.append({"prompt": row["prompt"], "choices": choices, "gold": i % 3})
    return found


def write_lines(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_task(folder, name, rows, **settings):
    write_lines(folder / f"{name}.jsonl", rows)
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(folder / f"{name}.jsonl")},
            "cache_dir": str(folder / "cache"),
        },
        "test_split": "test",
        "doc_to_text": "prompt",
        "target_delimiter": "",
        **settings,
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A group of two tasks of different sizes, a task of endings, and two files of questions."""
    folder = tmp_path_factory.mktemp("study")
    tasks = folder / "tasks"
    tasks.mkdir()
    choice = {"output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "gold"}
    choice["metric_list"] = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
    write_task(tasks, "pick_add", with_choices(problems("add", range(40))), **choice)
    write_task(tasks, "pick_sort", with_choices(problems("sort", range(20))), **choice)
    rule = [{"metric": "acc", "weight_by_size": True}]
    group = {"group": "picks", "task": ["pick_add", "pick_sort"], "aggregate_metric_list": rule}
    (tasks / "picks.yaml").write_text(yaml.safe_dump(group))
    ends = {"output_type": "loglikelihood", "doc_to_target": "answer"}
    ends["metric_list"] = [{"metric": "acc"}, {"metric": "perplexity"}]
    write_task(tasks, "ends", problems("add", range(100, 140)), **ends)
    sums = problems("add", range(200, 240))
    for row in sums[::2]:  # of these a right sum is a third of the words
        row["answer"] += " or so"
    write_lines(folder / "sums.jsonl", sums)
    write_lines(folder / "quiz.jsonl", with_choices(problems("add", range(300, 330))))
    return folder


def write(folder, name, score, **more):
    study = write_study(folder / name, trials=2, sampler="tpe")
    data = yaml.safe_load(study.read_text())
    data |= {"score": score, "items": {"search": 40, "select": 30, "report": 40}, **more}
    study.write_text(yaml.safe_dump(data))
    return study


@pytest.fixture(scope="module")
def finished(folder):
    score = [{**entry, "steer": steer} for entry, steer in zip(SCORE, STEER, strict=True)]
    study = write(folder, "small", score)
    return study, run_whole(study)


def evaluators_of(study, tokenizer):
    """Open every task by both metrics, without ``steer``: task -> (standard, graded)."""
    pairs = []
    for entry, steer in zip(SCORE, STEER, strict=True):
        plugin = EVALUATORS.get(entry["evaluator"])
        bare = {k: v for k, v in entry.items() if k not in ("evaluator", "weight", "chance")}
        for options in (bare, {**bare, "metric": steer}):
            pairs.append(plugin.open(plugin.options(**options), study.parent, tokenizer))
    members = [[m for m, _ in getattr(e, "members", ((e, 1.0),))] for e in pairs]
    found = {}
    for standard, graded in zip(members[::2], members[1::2], strict=True):
        found |= {a.task: (a, b) for a, b in zip(standard, graded, strict=True)}
    return found


def live(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from evaluators.engines.hf.engine import live_model

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    return live_model(model, AutoTokenizer.from_pretrained(folder), batch_size=16)


@pytest.mark.parametrize("name", ["parent", "winner"])
def test_every_pool_has_the_scores_of_its_metric(finished, name):
    study, summary = finished
    spec, record = open_study(str(study))
    bench = worker_of(spec, record)
    winner = summary["winner"]["trial"]
    number = winner if name == "winner" else 1
    results = study.parent / "results" / "best-model"
    model = live(results if name == "winner" else QUICKSTART / "models" / "add")
    evaluators = evaluators_of(study, model.tokenizer)
    assert {t: tuple(e.unit for e in pair) for t, pair in evaluators.items()} == UNITS
    pools = {"search": record.trial(number).search.scores}
    pools |= {p: record.trial(number).measured[p].scores for p in ("select", "report")}
    told_apart = set()
    for pool, scores in pools.items():
        assert list(scores) == list(UNITS)
        for task, pair in evaluators.items():
            which = bench.tasks.pools[pool].of(task)
            which = which[: len(scores[task])]  # a winner that was stopped has seen the first
            right = pair[pool == "search"].score(model, which)
            assert scores[task] == pytest.approx(right.tolist(), abs=ROUNDING)
            wrong = pair[pool != "search"].score(model, which)
            told_apart |= {task} if np.abs(wrong - right).max() > 0.1 else set()
    assert told_apart == set(UNITS)  # guards the line above


def test_the_search_value_is_the_mean_of_the_graded_entries(finished):
    study, _ = finished
    _, record = open_study(str(study))
    for trial in record.trials:
        mean = {task: np.mean(scores) for task, scores in trial.search.scores.items()}
        # the group's sizes, no score of guessing, and a lower perplexity is better
        group = (40 * mean["pick_add"] + 20 * mean["pick_sort"]) / 60
        value = (group - 0.5 * mean["ends"] + mean["sums"] + mean["quiz"]) / 3.5
        assert trial.value == pytest.approx(value)


def test_the_summary_is_by_the_standard_metrics(finished):
    study, summary = finished
    _, record = open_study(str(study))
    winner = summary["winner"]
    for pool in ("select", "report"):
        scores = record.trial(winner["trial"]).measured[pool].scores
        mean = {task: np.mean(x) for task, x in scores.items()}
        group = (40 * mean["pick_add"] + 20 * mean["pick_sort"]) / 60
        above = (group - 1 / 3) / (2 / 3)
        value = (above + 0.5 * mean["ends"] + mean["sums"] + mean["quiz"]) / 3.5
        assert winner[pool]["mean"] == pytest.approx(value)
        assert {t: x["mean"] for t, x in winner[pool]["tasks"].items()} == pytest.approx(mean)
        assert winner[pool]["groups"]["picks"]["mean"] == pytest.approx(group)
    steered = dict(zip(["picks", "ends", "sums", "quiz"], STEER, strict=True))
    assert winner["search"]["steered_by"] == steered
    assert winner["search"]["mean"] == record.trial(winner["trial"]).value


def test_every_trial_reproduces_and_a_second_run_changes_nothing(finished):
    study, summary = finished
    spec, record = open_study(str(study))
    found = list(reproduce(record, worker_of(spec, record), range(len(record.trials))))
    assert {row["verdict"] for row in found} == {"identical"}
    assert run_whole(study) == summary


@pytest.mark.parametrize(
    ("place", "more", "rule"),
    [
        (0, {"steer": "margn"}, r"score\[0\].steer: lm-eval task .* did you mean 'margin'"),
        (1, {"steer": "margin"}, r"score\[1\].steer: lm-eval task 'ends' has no metric 'margin'"),
        (0, {"steer": "acc"}, r"score\[0\].steer: by 'acc' picks is scored anyhow"),
        (2, {"steer": "f1", "numeric": True}, r"score\[2\].steer: .*`metric` must be exact"),
    ],
)
def test_a_metric_that_the_task_does_not_have_is_named_with_its_entry(folder, place, more, rule):
    write_lines(folder / "numbers.jsonl", problems("add", range(200, 240)))
    score = [*SCORE[:2], {**SCORE[2], "file": "../numbers.jsonl"}, SCORE[3]]
    score[place] = {**score[place], **more}
    spec = study_file.read(write(folder, "refused", score))
    with pytest.raises(EvaluationError, match=rule):
        Worker(spec.data, spec.folder)
