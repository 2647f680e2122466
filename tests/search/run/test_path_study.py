"""Small real studies of layer paths: run to the report, reproduced, exported, resumed, refused."""

import json
import math

import pytest
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from merge_core.errors import DocumentError
from search.cli import app
from search.report.reproduce import reproduce
from search.run.check import check
from search.scoring.pareto import front
from search.storage.locate import open_study
from tests.search.real import QUICKSTART, run_whole, worker_of

STUDY = """
name: paths
recipe:
  slices:
    path: {path}
  dtype: float32
score:
  - {{evaluator: lm_eval, task: quickstart_sort, include_path: {tasks}}}
{more}
items: {{search: 12, select: 12, report: 12}}
search: {{sampler: {sampler}, seed: 3, trials: {trials}, finalists: 3}}
engine: {{device: cpu, batch_size: 16, threads: 1}}
"""
TWO = "{parents: [@sort, @rev], max_layers: 5"
COST = "  - {evaluator: cost, metric: bytes, repeats: 36}\naggregate: apart"


def write(folder, path, sampler="auto", trials=6, more=""):
    text = STUDY.format(
        path=path.replace("@", f"{QUICKSTART / 'models'}/"),
        tasks=QUICKSTART / "tasks",
        sampler=sampler,
        trials=trials,
        more=more,
    )
    file = folder / "study.yaml"
    file.write_text(text)
    return file


def depth(recipe):
    ranges = [source.layer_range for one in recipe.slices for source in one.sources]
    return sum(end - first for first, end in ranges)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "sampler"),
    [
        (f"{TWO}}}", "auto"),
        (f"{TWO}, input_scale: {{low: 0.5, high: 1.5}}}}", "moves"),
        (f"{TWO}, repeats: 2, encoding: signs}}", "cma-es"),
        (f"{TWO}, max_bytes: 8MB, encoding: flags}}", "catcma"),
    ],
    ids=["hops", "scaled", "signs", "flags"],
)
def test_paths_are_searched_reproduced_and_exported(tmp_path, path, sampler):
    study = write(tmp_path, path, sampler)
    summary = run_whole(study)
    spec, record = open_study(str(study))
    assert summary["winner"]["report"]
    assert [t.state for t in record.trials].count("failed") == 0
    names = [t.baseline.replace(f"{QUICKSTART / 'models'}/", "") for t in record.trials[:5]]
    assert names == ["parent:sort", "parent:rev", "uniform", "defaults", "simple:path=rev"]
    own, defaults = record.trial(0), record.trial(3)
    assert own.weights_digest == defaults.weights_digest
    rows = list(reproduce(record, worker_of(spec, record), range(len(record.trials))))
    assert {row["verdict"] for row in rows} == {"identical"}
    last = len(record.trials) - 1
    if "input_scale" in path:  # a factor that is no weight's is in no plain folder
        scaled = [t for t in record.trials if any(s.input_scale != 1 for s in t.recipe.slices)]
        assert len(scaled) >= 3
        return
    out = tmp_path / "exported"
    said = CliRunner().invoke(app, ["export", str(study), str(out), "--trial", str(last)])
    assert said.exit_code == 0, said.output
    trial = record.trial(last)
    assert (
        json.loads((out / "mergetune.json").read_text())["weights_digest"] == trial.weights_digest
    )
    model = AutoModelForCausalLM.from_pretrained(out)
    assert len(model.model.layers) == depth(trial.recipe) <= 5


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["moves", "nsga2", "auto"])
def test_pruning_finds_a_front_of_quality_against_bytes(tmp_path, sampler):
    path = "{parents: [@sort], encoding: flags}"
    study = write(tmp_path, path, sampler, trials=16, more=COST)
    run_whole(study)
    _, record = open_study(str(study))
    found = [t for t in record.trials if t.params]
    assert {depth(t.recipe) for t in found} <= {2, 3, 4}
    by_depth = {}
    for t in found:
        by_depth.setdefault(depth(t.recipe), set()).add(t.values[1])
    assert all(len(costs) == 1 for costs in by_depth.values())  # bytes are those of the layers
    costs = [min(by_depth[n]) for n in sorted(by_depth)]
    assert costs == sorted(costs, reverse=True)
    best = front({t.number: t.values for t in record.trials if t.values})
    depths = {depth(record.trial(n).recipe) for n in best if record.trial(n).params}
    assert 2 in depths  # the smallest
    assert len({tuple(record.trial(n).values) for n in best}) >= 2


@pytest.mark.slow
def test_auto_takes_moves_for_hops_also_with_several_objectives(tmp_path):
    path = "{parents: [@sort], repeats: 2}"
    drawn = []
    for name in ("auto", "moves"):
        folder = tmp_path / name
        folder.mkdir()
        study = write(folder, path, name, trials=3, more=COST)
        run_whole(study)
        drawn.append([t.params for t in open_study(str(study))[1].trials])
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("{parents: [@sort], keep_first: 4}", "recipe.slices.path.keep_first: with keep_last they"),
        ("{parents: [@sort], max_bytes: 1kB}", "recipe.slices.path.max_bytes: 2 layers, the fewes"),
        ("{parents: [@sort], keep_last: 0}", "recipe.slices.path.keep_last: a path ends with the"),
    ],
)
def test_check_names_what_does_not_fit_with_its_line(tmp_path, path, rule):
    with pytest.raises(DocumentError) as told:
        check(write(tmp_path, path))
    assert f"study.yaml:5: {rule}" in str(told.value)


def test_check_names_a_sampler_that_draws_no_choices(tmp_path):
    with pytest.raises(DocumentError, match="'cma-es' cannot draw from choices"):
        check(write(tmp_path, f"{TWO}}}", "cma-es"))
    found = check(write(tmp_path, f"{TWO}, encoding: signs}}", "cma-es"))
    assert found.facts["knobs"] == 1
    assert found.facts["dimension_names"][:3] == ["path/1/sort:1", "path/1/sort:2", "path/1/rev:0"]


def test_check_of_models_that_are_not_here_counts_nothing(tmp_path):
    found = check(write(tmp_path, "{parents: [@sort, org/elsewhere]}"))
    assert "dimensions are not counted: the model's files are not here" in found.warnings


@pytest.mark.slow
def test_a_cost_by_its_default_has_no_error_and_leaves_intervals_finite(tmp_path):
    """One item of it is in each pool."""
    cost = "  - {evaluator: cost, metric: bytes, weight: 1.0e-9}"
    study = write(tmp_path, f"{TWO}}}", more=cost)
    report = run_whole(study)["winner"]["report"]
    found = report["tasks"]["cost_bytes"]
    assert found["low"] == found["mean"] == found["high"] > 0
    assert -math.inf < report["low"] < report["mean"] <= report["high"] < math.inf
    text = (tmp_path / "results" / "summary.json").read_text()
    json.loads(text, parse_constant=pytest.fail)
