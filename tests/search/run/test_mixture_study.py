"""A small real study of mixtures with trained routers: its trials, their files, its resumption."""

import pytest
from safetensors.torch import load_file

from merge_core import api
from merge_core.errors import MergeError
from merge_core.output.contents import is_whole
from search.report.reproduce import reproduce
from search.run.dry_run import dry_run
from search.run.study import run
from search.spec import study_file
from search.storage.locate import open_study
from search.trial import routers
from search.trial.settle import Wanted
from search.trial.slopes import BACKWARD
from search.trial.worker import Worker
from tests.search import toy
from tests.search.real import QUICKSTART, Quiet, run_whole, without_costs, worker_of
from tests.search.run.test_gradient_study import Told, stop_after

# the first layer's hidden state is the last token's embedding, "=" in all prompts
pytestmark = pytest.mark.filterwarnings("ignore:the routers' rows are nearly alike")
MODELS = QUICKSTART / "models"
STUDY = f"""
name: mixed
recipe:
  merge_method: task_arithmetic
  base_model: {MODELS}/base
  models:
    - {{model: {MODELS}/add, parameters: {{weight: 0.5}}}}
    - {{model: {MODELS}/sort, parameters: {{weight: 0.5}}}}
  parameters: {{lambda: {{low: 0.5, high: 1.0}}}}
  moe:
    gate_mode: {{choices: [trained, hidden]}}
    experts_per_token: {{choices: [1, 2]}}
    experts:
      - {{source_model: {MODELS}/add, positive_prompts: ["add 23+58="]}}
      - {{source_model: {MODELS}/sort, positive_prompts: ["sort dbeac="]}}
  dtype: float32
score:
  - {{evaluator: lm_eval, task: quickstart_add, include_path: {QUICKSTART / "tasks"}}}
  - {{evaluator: lm_eval, task: quickstart_sort, include_path: {QUICKSTART / "tasks"}}}
items: {{search: 16, select: 12, report: 20}}
search: {{sampler: random, seed: 1, trials: 4, finalists: 3}}
engine: {{device: cpu, batch_size: 16, threads: 1}}
"""


@pytest.fixture(scope="module", autouse=True)
def short():
    """Train for a few steps only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routers, "MOST", 5)
        yield


def write_study(folder, text=STUDY):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(text)
    return folder / "study.yaml"


def record_of(study):
    return open_study(str(study))[1]


def told(study):
    """What may not differ between two runs of a study."""
    return [(t.row(), t.recipe.plain()) for t in record_of(study).trials]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    study = write_study(tmp_path_factory.mktemp("mixed"))
    return study, run_whole(study)


def trained_of(record):
    return [t for t in record.trials if t.recipe.moe and t.recipe.moe.gate_mode == "trained"]


def test_recipe_of_a_trained_trial_names_a_file_with_its_routers(finished):
    study, _ = finished
    trained = trained_of(record_of(study))
    assert {t.baseline for t in trained} > {"defaults"}  # drawn ones, too
    for trial in trained:
        assert trial.recipe.moe.gates.startswith("results/gates/")
        found = load_file(study.parent / trial.recipe.moe.gates)
        assert {x.shape for x in found.values()} == {(2, 128)}
        assert sorted(found) == [f"model.layers.{i}.block_sparse_moe.gate.weight" for i in range(4)]


def test_training_is_counted_in_items_and_in_seconds(finished):
    trial = trained_of(record_of(finished[0]))[0]
    held, learnt = 4, BACKWARD * 12
    assert trial.fitted.items == trial.fitted.steps * learnt + 2 * held
    assert trial.cost == 16 + trial.fitted.items
    assert trial.search.seconds["routers"] > 0
    assert trial.fitted.after <= trial.fitted.before
    assert trial.row()["routers"] == vars(trial.fitted)


def test_trained_trial_is_reproduced_from_its_file_without_training(finished, monkeypatch):
    study, _ = finished
    spec, record = study_file.read(study), record_of(study)
    monkeypatch.setattr(routers, "fit", lambda *_: pytest.fail("trains again"))
    numbers = [t.number for t in trained_of(record)]
    rows = list(reproduce(record, worker_of(spec, record), numbers))
    assert {row["verdict"] for row in rows} == {"identical"}


def test_trial_whose_file_is_gone_is_told_so(finished, tmp_path):
    study = write_study(tmp_path)
    run(study, Quiet(), stop_after(6))
    record, spec = record_of(study), study_file.read(study)
    trial = trained_of(record)[0]
    (tmp_path / trial.recipe.moe.gates).unlink()
    (row,) = reproduce(record, worker_of(spec, record), [trial.number])
    assert row["verdict"] == "weights differ"
    assert f"file {trial.recipe.moe.gates!r}: no such file in" in row["reason"]


def test_winner_and_its_recipe_are_the_same_model(finished, tmp_path):
    study, summary = finished
    record = record_of(study)
    winner = record.trial(summary["winner"]["trial"])
    results = study.parent / "results"
    assert is_whole(results / "best-model", winner.weights_digest)
    assert api.merge(results / "best.yaml", tmp_path / "again") == winner.weights_digest


@pytest.mark.parametrize("after", [5, 7])
def test_run_that_was_stopped_goes_on_to_the_bit(finished, tmp_path, after):
    study = write_study(tmp_path)
    assert run(study, Quiet(), stop_after(after)) is None
    (tmp_path / "results" / "gates" / "0123456789abcdef.safetensors").write_bytes(b"of a kill")
    assert without_costs(run_whole(study)) == without_costs(finished[1])
    assert told(study) == told(finished[0])


def test_mixture_that_was_trained_before_is_not_trained_again(finished, monkeypatch):
    study, _ = finished
    spec, record = study_file.read(study), record_of(study)
    worker = worker_of(spec, record)
    monkeypatch.setattr(routers, "fit", lambda *_: pytest.fail("trains again"))
    first = trained_of(record)[0]
    asked = worker.builder.space.recipe(first.params)
    trial = toy.settle(worker, Wanted(asked, params=first.params), number=99, earlier=record.trials)
    assert (trial.same_as, trial.recipe) == (first.number, first.recipe)
    assert trial.value == first.value
    assert trial.fitted is None


def test_auto_says_why_it_goes_without_gradients_and_gradient_is_refused(tmp_path):
    text = STUDY.replace("trials: 4", "trials: 1")
    said, study = Told(), write_study(tmp_path, text.replace("random", "auto"))
    run(study, said, stop_after(1))
    why = "a mixture's weights have no derivative by the knobs of the merge behind them"
    assert f"searched without gradients: {why}" in said.notices
    plain = text.replace("{choices: [trained, hidden]}", "trained")
    plain = plain.replace("{choices: [1, 2]}", "2").replace("random", "gradient")
    with pytest.raises(MergeError, match=f"'gradient' cannot search here: {why}"):
        run(write_study(tmp_path / "b", plain), Quiet(), lambda: False)


def test_task_without_right_answers_is_refused_before_anything_is_built(tmp_path):
    judge = (
        '  - {evaluator: judge, file: q.jsonl, prompt: "{{ q }}", rubric: "{{ answer }}", '
        'base_url: "http://localhost:1/v1", model: m}\nitems:'
    )
    study = write_study(tmp_path, STUDY.replace("items:", judge, 1))
    (tmp_path / "q.jsonl").write_text("".join(f'{{"q": "add {i}+1="}}\n' for i in range(60)))
    with pytest.raises(MergeError, match=r"recipe\.moe\.gate_mode: 'trained' cannot learn here: q"):
        run(study, Quiet(), lambda: False)
    assert record_of(study).trials == []


def test_dense_layers_of_a_class_that_has_none_are_refused_before_the_first_trial(tmp_path):
    text = STUDY.replace("    experts:", "    dense_layers: {per: layer}\n    experts:")
    with pytest.raises(MergeError, match=r"recipe\.moe\.dense_layers cannot be searched: "):
        run(write_study(tmp_path, text), Quiet(), lambda: False)


def test_dry_run_counts_the_training(tmp_path):
    costs = dry_run(write_study(tmp_path))
    assert costs.build > 0
    spec = study_file.read(tmp_path / "study.yaml")
    assert Worker(spec.data, spec.folder).spec.template.trained
