"""Studies by vLLM on the quickstart's models: scores, failures, restarts; ``make test-vllm``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import yaml

from merge_core.errors import EvaluationError, NonFiniteError
from merge_core.output import model_folder
from merge_core.recipe import read as recipe_reader
from merge_core.recipe.yaml_document import parse_all
from search.report.reproduce import reproduce
from search.space.starting_points import baselines
from search.spec import study_file
from search.storage.open import open_record
from tests.search.real import QUICKSTART, Bench, run_whole, worker_of, write_study

pytestmark = pytest.mark.vllm

COSTS = [{"evaluator": "cost", "metric": metric} for metric in ("parameters", "bytes")]
ENGINES = {"hf": {"name": "hf", "device": "cpu"}, "vllm": {"name": "vllm"}}


def bench_of(engine, more=(), **options):
    data = yaml.safe_load((QUICKSTART / "study.yaml").read_text())
    data["engine"] = {**ENGINES[engine], "batch_size": 64, "threads": 1, **options}
    data["score"] += more
    return Bench(data, QUICKSTART)


SPOILT = {  # more than float32 holds
    "models": [{"model": "models/add", "parameters": {"weight": 1.0e6}}],
    "parameters": {"lambda": 3.0e38},
}


@pytest.fixture(scope="module")
def benches():
    return {engine: bench_of(engine, COSTS) for engine in ENGINES}


def recipe_of(changes):
    """A recipe on the quickstart's models, changed."""
    text = yaml.safe_dump(
        {
            "merge_method": "task_arithmetic",
            "base_model": "models/base",
            "models": [
                {"model": f"models/{name}", "parameters": {"weight": weight}}
                for name, weight in (("add", 0.4), ("sort", [0.2, 0.6]))
            ],
            "dtype": "float32",
            **changes,
        }
    )
    return recipe_reader.of_documents(parse_all(text, "recipe.yaml"))


def test_every_item_of_the_quickstart_scores_as_by_hf(benches):
    ours, theirs = benches["vllm"], benches["hf"]
    for baseline in baselines(theirs.spec, theirs.builder.space)[:5]:  # the parents and their mean
        assert ours.build(baseline.recipe) == theirs.build(baseline.recipe)
        assert ours.score("report") == theirs.score("report")  # costs too; no ties to except


def test_every_item_of_an_exported_folder_scores_as_by_plain_lm_eval(benches, tmp_path):
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    bench, recipe = benches["vllm"], recipe_of({})
    digest = bench.build(recipe)
    assert model_folder.write(bench.builder.plan(recipe), tmp_path / "out") == digest
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = lm_eval.simple_evaluate(
            model=HFLM(pretrained=str(tmp_path / "out"), device="cpu", batch_size=64),
            tasks=["quickstart_add", "quickstart_sort"],
            task_manager=TaskManager(
                include_path=str(QUICKSTART / "tasks"), include_defaults=False
            ),
            bootstrap_iters=0,
        )
    for task, samples in out["samples"].items():
        evaluator, live = bench.tasks.evaluators[task], bench.builder.live
        ours = evaluator.score(live, range(len(evaluator.items))).tolist()
        assert ours == [sample["exact_match"] for sample in samples]
        assert 0 < sum(ours) < len(ours)


STACK = """
merge_method: passthrough
slices:
  - sources: [{model: models/add, layer_range: [0, 3]}]
  - sources: [{model: models/sort, layer_range: [1, 4], parameters: {scale: 0.9}}]
dtype: float32
"""
MIXTURE = """
merge_method: linear
models:
  - {model: models/add, parameters: {weight: 0.5}}
  - {model: models/sort, parameters: {weight: 0.5}}
moe:
  experts:
    - {source_model: models/add, positive_prompts: ["add 12+34="]}
    - {source_model: models/sort, positive_prompts: ["sort tuaod="]}
    - {source_model: models/rev, positive_prompts: ["rev niphoy="]}
  gate_mode: hidden
dtype: float32
"""


@pytest.mark.filterwarnings("ignore:the routers' rows are nearly alike")  # "=" ends all prompts
@pytest.mark.parametrize("text", [STACK, MIXTURE], ids=["stacked layers", "mixture"])
def test_stacks_and_mixtures_are_served_and_score_as_by_hf(benches, text):
    recipe = recipe_reader.of_documents(parse_all(text, "recipe.yaml"))
    ours, theirs = benches["vllm"], benches["hf"]
    assert ours.build(recipe) == theirs.build(recipe)
    found, wanted = ours.score("report"), theirs.score("report")
    assert found == wanted
    assert len({*found["quickstart_sort"]}) > 1


def test_a_candidate_that_is_not_finite_fails_and_the_next_is_right(benches):
    bench, usual = benches["vllm"], recipe_of({})
    digest = bench.build(usual)
    scores = bench.score("search")
    with pytest.raises(NonFiniteError, match="'task_arithmetic' is not finite in float32"):
        bench.build(recipe_of(SPOILT))
    with pytest.raises(AssertionError, match="build first"):
        bench.score("search")
    assert (bench.build(usual), bench.score("search")) == (digest, scores)


def test_a_study_runs_to_its_end_and_every_trial_is_reproduced(tmp_path):
    file = write_study(tmp_path / "study", trials=2)
    text = file.read_text().replace("{device: cpu,", "{name: vllm,")
    file.write_text(text)
    summary = run_whole(file)
    assert summary["trials"]["failed"] == 0
    spec = study_file.read(file)
    record = open_record(spec.storage, spec.name)
    assert record.about["versions"]["vllm"]
    rows = list(reproduce(record, worker_of(spec, record), range(len(record.trials))))
    assert {row["verdict"] for row in rows} == {"identical"}
    ways = [pair for found in record.samples.values() for pair in found.items()]
    told = [(way, x) for way, some in ways for x in some]
    assert told
    for way, x in told:
        right = {name: x[name].strip() == x["right"] for name in ("winner", "parent")}
        assert right == {"winner": way == "gained", "parent": way == "lost"}


def by_two(script=Path(__file__)):
    """Run this file as a program, with two workers, each on a core or both on one."""
    cores = sorted(os.sched_getaffinity(0))
    more = {"VLLM_CPU_OMP_THREADS_BIND": f"{cores[0]}|{cores[-1]}", "PYTHONWARNINGS": "ignore"}
    root = str(Path(__file__).parents[3])
    return subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, **more, "PYTHONPATH": root},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def test_two_workers_that_share_the_model_give_the_scores_of_hf(benches):
    done = by_two()
    assert done.returncode == 0, done.stderr[-2000:]
    digest, scores, refusal = json.loads(done.stdout.splitlines()[-1])
    assert digest == benches["hf"].build(recipe_of({}))
    assert scores == benches["hf"].score("search")
    assert "not finite in float32" in refusal


def program():
    """What ``by_two`` runs: a candidate, one that is refused, and the first again."""
    bench = bench_of("vllm", COSTS, tensor_parallel_size=2)
    first = bench.build(recipe_of({})), bench.score("search")
    bench.build(recipe_of({"dtype": "float32", "parameters": {"lambda": 0.5}}))
    try:
        bench.build(recipe_of(SPOILT))
    except NonFiniteError as error:
        refusal = str(error)
    assert (bench.build(recipe_of({})), bench.score("search")) == first
    print(json.dumps([*first, refusal]))


def test_a_vllm_that_failed_is_started_anew(monkeypatch):
    """Last, since it ends an engine, and with it what all engines of a process share."""
    bench, recipe = bench_of("vllm"), recipe_of({})
    digest, scores = bench.build(recipe), bench.score("search")
    engine = bench.builder.live.engine

    def fail(*args, **more):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(engine._vllm._llm, "generate", fail)
    with pytest.raises(EvaluationError, match="vLLM could not answer: RuntimeError: out of luck"):
        bench.score("search")
    assert (bench.build(recipe), bench.score("search")) == (digest, scores)
    assert bench.builder.live.engine is not engine
    other = recipe_of({"dtype": "bfloat16"})
    assert bench.build(other) != digest
    assert json.loads(bench.builder.live.engine.fingerprint())["dtype"] == "bfloat16"


if __name__ == "__main__":
    program()
