"""Small real studies whose candidates are stacked: run to the report, reproduced, exported."""

import json

import pytest
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from search.cli import app
from search.report.reproduce import reproduce
from search.storage.locate import open_study
from tests.search.real import QUICKSTART, run_whole, worker_of

STUDY = """
name: stacked
recipe:
  merge_method: {method}
  slices:
{slices}
  dtype: float32
score:
  - {{evaluator: lm_eval, task: quickstart_add, include_path: {tasks}}}
  - {{evaluator: lm_eval, task: quickstart_sort, include_path: {tasks}}}
items: {{search: 16, select: 12, report: 20}}
search: {{sampler: {sampler}, seed: 3, trials: {trials}, finalists: 3}}
engine: {{device: cpu, batch_size: 16, threads: 1}}
"""
MERGED = """
    - sources:
        - model: @add
          layer_range: [0, 3]
          parameters: {weight: {low: 0.1, high: 1.5, per: layer}}
        - {model: @sort, layer_range: [0, 3], parameters: {weight: {low: 0.1, high: 1.5}}}
    - sources:
        - {model: @add, layer_range: [2, 4], parameters: {weight: 1.0}}
"""
CUT = """
    - sources: [{model: @add, layer_range: [0, {low: 1, high: 4, tied: cut}]}]
    - sources:
        - model: @sort
          layer_range: [{low: 1, high: 4, tied: cut}, 4]
          parameters: {scale: [{filter: down_proj, value: {low: 0.5, high: 1.5}}, {value: 1.0}]}
"""
USUAL = """
    - sources:
        - {model: @add, layer_range: [0, 4]}
        - {model: @sort, layer_range: [0, 4]}
  base_model: @add
  parameters:
    t:
      - {filter: self_attn, value: {low: 0.0, high: 1.0, gradient: 3}}
      - {filter: mlp, value: {low: 0.0, high: 1.0, per: layer}}
      - value: {low: 0.0, high: 1.0}
"""


def write(folder, slices, method, sampler, trials):
    text = STUDY.format(
        slices=slices.replace("@", f"{QUICKSTART / 'models'}/"),
        tasks=QUICKSTART / "tasks",
        method=method,
        sampler=sampler,
        trials=trials,
    )
    file = folder / "study.yaml"
    file.write_text(text)
    return file


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slices", "method", "sampler"),
    [
        (MERGED, "linear", "cma-es"),
        (MERGED, "linear", "gradient"),
        (CUT, "passthrough", "tpe"),
        (USUAL, "slerp", "gradient"),
    ],
    ids=["merged slices, drawn", "merged slices, by gradient", "a cut that moves", "all layers"],
)
def test_stacked_candidates_are_searched_reproduced_and_exported(tmp_path, slices, method, sampler):
    study = write(tmp_path, slices, method, sampler, 5)
    summary = run_whole(study)
    spec, record = open_study(str(study))
    assert summary["winner"]["report"]
    assert [t.state for t in record.trials].count("failed") == 0
    names = [t.baseline for t in record.trials if t.baseline]
    first = "base" if method == "slerp" else "add"
    assert [n.rpartition("/")[2] for n in names][:2] == [first, "sort"]
    assert "uniform" in names
    rows = list(reproduce(record, worker_of(spec, record), range(len(record.trials))))
    assert {row["verdict"] for row in rows} == {"identical"}
    out = tmp_path / "exported"
    said = CliRunner().invoke(app, ["export", str(study), str(out), "--trial", "6"])
    assert said.exit_code == 0, said.output
    trial = record.trial(6)
    assert (
        json.loads((out / "mergetune.json").read_text())["weights_digest"] == trial.weights_digest
    )
    slices_of = trial.recipe.slices
    depth = sum(s.sources[0].layer_range[1] - s.sources[0].layer_range[0] for s in slices_of)
    model = AutoModelForCausalLM.from_pretrained(out)
    assert len(model.model.layers) == depth
