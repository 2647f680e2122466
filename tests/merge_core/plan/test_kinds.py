"""Parents of unlike architectures are refused, unless the user says that they may be merged."""

import json
import shutil

import pytest
from typer.testing import CliRunner

import mergetune
from merge_core import consent
from merge_core.errors import CheckpointError
from merge_core.plan.kinds import refuse_unlike
from search.cli import app
from search.workers.permissions import Permissions

LINEAR = """
merge_method: linear
models: [{model: base, parameters: {weight: 1}}, {model: one, parameters: {weight: 1}}]
"""
STACKED = """
merge_method: passthrough
slices:
  - sources: [{model: base, layer_range: [0, 2]}]
  - sources: [{model: one, layer_range: [2, 4]}]
"""
STUDY = """
recipe:
  merge_method: linear
  models:
    - {model: base, parameters: {weight: 1.0}}
    - {model: one, parameters: {weight: {low: 0.0, high: 1.0}}}
score: [{evaluator: cost, metric: parameters}]
"""
REFUSED = (
    "one: its architecture is mistral, that of base is llama; expected one for all parents of a "
    "merge; where their tensors mean the same, merge with --allow-crimes"
)


@pytest.fixture
def mixed(family, tmp_path):
    """A Llama, and a Mistral of the same names and shapes."""
    for name in ("base", "one"):
        shutil.copytree(family("llama-tied") / name, tmp_path / name)
    file = tmp_path / "one" / "config.json"
    other = {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
    file.write_text(json.dumps(json.loads(file.read_text()) | other))
    yield tmp_path
    assert consent.given() == ()


@pytest.fixture
def run(mixed, monkeypatch):
    monkeypatch.chdir(mixed)
    (mixed / "linear.yaml").write_text(LINEAR)
    (mixed / "stacked.yaml").write_text(STACKED)
    (mixed / "study.yaml").write_text(STUDY)

    def invoke(*words):
        with consent.allowed():  # what a command allows is for its process
            return CliRunner().invoke(app, words)

    return invoke


@pytest.mark.parametrize("recipe", ["linear.yaml", "stacked.yaml"])
@pytest.mark.parametrize("command", ["merge", "inspect", "check"])
def test_they_are_refused_and_merged_where_the_command_line_says_so(run, recipe, command):
    words = [command, recipe, *(["out"] if command == "merge" else [])]
    refused = run(*words)
    assert isinstance(refused.exception, CheckpointError)
    assert str(refused.exception) == REFUSED
    allowed = run(*words, "--allow-crimes")
    assert allowed.exit_code == 0, allowed.output


def test_a_study_of_them_is_refused_by_check(run):
    refused = run("check", "study.yaml", "--no-tasks")
    assert str(refused.exception) == REFUSED
    assert run("check", "study.yaml", "--no-tasks", "--allow-crimes").exit_code == 0


def test_consent_from_python_lasts_as_long_as_its_block(mixed):
    with pytest.raises(CheckpointError, match="--allow-crimes"):
        mergetune.merge(LINEAR, mixed / "out", folder=mixed)
    with mergetune.consent(allow_crimes=True):
        mergetune.merge(LINEAR, mixed / "out", folder=mixed)
        assert Permissions.here().given == (consent.CRIMES,)
    assert not consent.crimes()


def test_a_worker_process_may_do_what_the_command_line_allows():
    with consent.allowed(consent.CRIMES):
        here = Permissions.here()
    with consent.allowed():
        here.give()
        assert consent.crimes()


def test_a_config_that_names_no_architecture_fits_all():
    refuse_unlike({"a": {"model_type": "llama"}, "b": {}, "c": {"model_type": "llama"}})
    with pytest.raises(CheckpointError, match="c: its architecture is LlamaForCausalLM"):
        refuse_unlike({"a": {"model_type": "x"}, "c": {"architectures": ["LlamaForCausalLM"]}})
