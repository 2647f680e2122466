"""A real study on a group and on texts, against plain lm-eval on the folder that it exports."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import yaml

from search.storage.locate import open_study
from tests.search.real import QUICKSTART, run_whole, worker_of, write_study

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two of the quickstart's tasks and a group of them; texts made of their problems."""
    tasks = tmp_path_factory.mktemp("study") / "tasks"
    tasks.mkdir()
    for name in ("add", "sort"):
        for kind in ("yaml", "jsonl"):
            shutil.copy(QUICKSTART / "tasks" / f"{name}.{kind}", tasks)
    rule = [{"metric": "exact_match", "weight_by_size": True}]
    group = {"group": "both", "task": ["quickstart_add", "quickstart_sort"]}
    (tasks / "both.yaml").write_text(yaml.safe_dump({**group, "aggregate_metric_list": rule}))
    rows = [json.loads(line) for line in (tasks / "add.jsonl").read_text().splitlines()[:400]]
    solved = [row["prompt"] + row["answer"] for row in rows]
    texts = [" ".join(solved[i : i + 1 + i % 7]) for i in range(0, 300, 7)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (tasks / "texts.jsonl").write_text(lines)
    task = {
        "task": "texts",
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(tasks / "texts.jsonl")},
            "cache_dir": str(tasks / "cache"),
        },
        "test_split": "test",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "byte_perplexity"}],
    }
    (tasks / "texts.yaml").write_text(yaml.safe_dump(task))
    return tasks.parent


@pytest.fixture(scope="module")
def finished(folder):
    study = write_study(folder / "small", trials=1)
    data = yaml.safe_load(study.read_text())
    data["score"] = [
        {"evaluator": "lm_eval", "task": "both", "include_path": "../tasks"},
        {"evaluator": "lm_eval", "task": "texts", "include_path": "../tasks", "weight": 0.1},
    ]
    study.write_text(yaml.safe_dump(data))
    return study, run_whole(study)


@pytest.fixture(scope="module")
def theirs(folder, finished):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    study, _ = finished
    model = str(study.parent / "results" / "best-model")
    return simple_evaluate(
        model=HFLM(pretrained=model, dtype="float32", batch_size=16, device="cpu"),
        tasks=["both", "texts"],
        task_manager=TaskManager(include_path=str(folder / "tasks"), include_defaults=False),
        bootstrap_iters=0,
    )


def items(theirs, task, metric):
    """Return lm-eval's values, by the place of the document."""
    samples = sorted(theirs["samples"][task], key=lambda s: s["doc_id"])
    return [sample[metric] for sample in samples]


def test_every_item_of_every_pool_is_plain_lm_evals_on_the_exported_folder(finished, theirs):
    study, summary = finished
    spec, record = open_study(str(study))
    bench = worker_of(spec, record)
    number = summary["winner"]["trial"]
    pools = {"search": record.trial(number).search.scores}
    pools |= {p: record.trial(number).measured[p].scores for p in ("select", "report")}
    for pool, scores in pools.items():
        for task in ("quickstart_add", "quickstart_sort"):
            right = items(theirs, task, "exact_match")
            assert scores[task] == [right[i] for i in bench.tasks.pools[pool].of(task)]
        nats = [-x / size for x, size in items(theirs, "texts", "byte_perplexity")]
        expected = [nats[i] for i in bench.tasks.pools[pool].of("texts")]
        assert scores["texts"] == pytest.approx(expected, rel=5e-7, abs=4e-5)


def test_reported_numbers_are_lm_evals_aggregation_of_the_report_items(finished, theirs):
    study, summary = finished
    spec, record = open_study(str(study))
    report = worker_of(spec, record).tasks.pools["report"]
    found = summary["winner"]["report"]
    pairs = [items(theirs, "texts", "byte_perplexity")[i] for i in report.of("texts")]
    nats, sizes = np.array(pairs).T
    perplexity = math.exp(-nats.sum() / sizes.sum())
    assert found["tasks"]["texts"]["mean"] == pytest.approx(perplexity, rel=1e-6)
    low, high = (found["tasks"]["texts"][end] for end in ("low", "high"))
    assert low < perplexity < (math.inf if high is None else high)  # JSON has no infinity
    right = [
        np.mean([items(theirs, task, "exact_match")[i] for i in report.of(task)])
        for task in ("quickstart_add", "quickstart_sort")
    ]
    group = sum(right) / 2  # the two have as many items
    assert found["groups"]["both"]["mean"] == pytest.approx(group)
    assert found["mean"] == pytest.approx((group - 0.1 * math.log(perplexity)) / 1.1, rel=1e-6)


def test_the_whole_tasks_have_lm_evals_numbers(finished, theirs):
    study, _ = finished
    spec, record = open_study(str(study))
    bench = worker_of(spec, record)
    texts = bench.tasks.evaluators["texts"]
    pairs = np.array(items(theirs, "texts", "byte_perplexity"))
    mean = -pairs[:, 0].sum() / np.sum(texts.sizes)
    assert texts.reported(mean) == pytest.approx(theirs["results"]["texts"]["byte_perplexity,none"])
    (group, _) = bench.tasks.aggregate.entries
    means = {t: np.mean(items(theirs, t, "exact_match")) for t in group.shares}
    expected = theirs["groups"]["both"]["exact_match,none"]
    assert sum(r * means[t] for t, r in group.shares.items()) == pytest.approx(expected, rel=1e-12)
