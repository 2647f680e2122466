"""Baselines of another type than the candidates' are refused before anything of them is stored."""

from __future__ import annotations

import json

import pytest

from merge_core.errors import DocumentError, MergeError
from search.run import check as checks
from search.run.study import run
from search.storage.locate import open_study
from tests.search.real import Quiet

STUDY = """
recipe:
  merge_method: linear
  models:
    - {model: base, parameters: {weight: {low: 0.0, high: 1.0}}}
    - {model: one, parameters: {weight: 1}}
  DTYPE
score:
- {evaluator: exact_match, file: q.jsonl, prompt: '{{ q }}=', max_tokens: 2}
- {evaluator: cost, metric: parameters}
items: {search: 4, select: 3, report: 3}
search: {trials: 1, sampler: random}
engine: {device: cpu, threads: 1}
"""
EXTRA = "merge_method: linear\nmodels: [{model: one, parameters: {weight: 1}}]\n"
REFUSED = (
    "baseline extra: its weights are bfloat16, those of the study's first baseline float32, and "
    "scores of both are not compared: let its recipe, or the study's, have `dtype: float32`"
)


@pytest.fixture
def root(own_family):
    root = own_family("llama", "bfloat16")
    rows = [json.dumps({"q": f"{i}+1", "answer": str(i + 1)}) for i in range(10)]
    (root / "q.jsonl").write_text("\n".join(rows))
    (root / "extra.yaml").write_text(EXTRA)
    return root


def study(root, dtype, more=""):
    file = root / "study.yaml"
    file.write_text(STUDY.replace("DTYPE", dtype) + more)
    return file


def test_check_and_run_refuse_a_baseline_of_another_type_before_a_trial(root):
    file = study(root, "dtype: float32", "baselines: {extra: extra.yaml}\n")
    with pytest.raises(DocumentError) as caught:
        checks.check(file, tasks=True)
    assert str(caught.value).endswith(f"recipe: {REFUSED}")
    with pytest.raises(MergeError) as refused:
        run(file, Quiet(), lambda: False)
    assert str(refused.value) == REFUSED


def test_a_late_one_is_refused_and_not_stored_so_that_it_can_be_mended(root):
    file = study(root, "dtype: float32")
    run(file, Quiet(), lambda: False, force=True)
    study(root, "dtype: float32", "baselines: {extra: extra.yaml}\n")
    with pytest.raises(MergeError, match="baseline extra: its weights are bfloat16"):
        run(file, Quiet(), lambda: False)
    (root / "extra.yaml").write_text(f"dtype: float32\n{EXTRA}")
    assert run(file, Quiet(), lambda: False) is not None
    names = [trial.baseline for trial in open_study(str(file))[1].trials]
    assert names[-1] == "extra"


def test_a_late_one_that_cannot_be_planned_is_not_stored_either(root):
    file = study(root, "dtype: float32")
    run(file, Quiet(), lambda: False, force=True)
    study(root, "dtype: float32", "baselines: {extra: extra.yaml}\n")
    slices = "[{sources: [{model: one, layer_range: [0, 99]}]}]"
    (root / "extra.yaml").write_text(f"merge_method: passthrough\nslices: {slices}\n")
    with pytest.raises(MergeError, match="baseline extra: "):
        run(file, Quiet(), lambda: False)
    (root / "extra.yaml").write_text(f"dtype: float32\n{EXTRA}")
    assert run(file, Quiet(), lambda: False) is not None


def test_one_type_without_a_word_of_it_is_that_of_the_models(root):
    file = study(root, "# as the models are stored", "baselines: {extra: extra.yaml}\n")
    checks.check(file, tasks=True)
    assert run(file, Quiet(), lambda: False, force=True) is not None
