"""A file of --plugin brings samplers: declarations, functions, classes of Optuna's kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution

from evaluators import plugin_file
from evaluators.registry import EVALUATORS
from merge_core.errors import MergeError
from search.samplers.ask import ask
from search.samplers.plugin_file import samplers_in
from search.samplers.registry import SAMPLERS, find
from tests.search import toy

Load = Callable[[str], list[str]]
SPACE = {"x": FloatDistribution(0.0, 1.0)}
ALL = """
import optuna
from search.samplers.registry import SAMPLERS as registry, SamplerPlugin

class Halves(optuna.samplers.RandomSampler):
    def __init__(self, seed=None):
        super().__init__(seed)
    def sample_independent(self, study, trial, name, distribution):
        return super().sample_independent(study, trial, name, distribution) / 2

def wide(space, start, seed):
    return optuna.samplers.RandomSampler(seed)

SAMPLER = SamplerPlugin("one", wide, "x", choices=False, several=False)
SAMPLERS = {"halves": Halves, "wide": wide, "tpe2": optuna.samplers.TPESampler}
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load a file with this text; the registries are left as they were."""
    monkeypatch.setattr(SAMPLERS, "_added", {})
    monkeypatch.setattr(EVALUATORS, "_added", {})
    monkeypatch.setattr(plugin_file, "_loaded", {})

    def write(text: str) -> list[str]:
        (tmp_path / "mine.py").write_text(text)
        return plugin_file.load(tmp_path / "mine.py", {"SAMPLER, SAMPLERS": samplers_in})

    return write


def test_a_file_declares_samplers_by_declaration_by_function_and_by_class(load: Load) -> None:
    assert load(ALL) == ["one", "halves", "wide", "tpe2"]
    study = optuna.create_study()
    for number in range(40):
        ask(study, SPACE, find("halves"), None, study_seed=0, settled=number)
    assert 0.3 < max(t.params["x"] for t in study.trials) <= 0.5
    assert len({t.params["x"] for t in study.trials}) == 40  # another seed at every ask
    assert (find("one").choices, find("wide").choices) == (False, True)


def test_a_study_is_searched_by_a_sampler_of_a_plugin_file(load: Load, tmp_path: Path) -> None:
    load(ALL)
    trials = toy.in_memory(toy.spec_of(toy.STUDY, tmp_path, sampler="tpe2", trials=3)).trials
    assert sum(trial.baseline is None for trial in trials) == 3


def test_what_a_declaration_says_it_cannot_do_is_refused_with_the_study_file(
    load: Load, tmp_path: Path
) -> None:
    load(ALL)
    text = toy.STUDY + "aggregate: apart\n"
    with pytest.raises(MergeError, match="'one' has one objective, `aggregate: apart` several"):
        toy.spec_of(text, tmp_path, sampler="one")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("SAMPLER = 5", "SAMPLER must be a SamplerPlugin, and SAMPLERS a list of them .* got 5"),
        ("SAMPLERS = [5]", "SAMPLER must be .* got 5"),
        ("SAMPLERS = 5", "SAMPLER must be .* got 5"),
        ("SAMPLERS = {'x': 5}", "sampler 'x': expected a SamplerPlugin, a function .* got 5"),
        (
            "import optuna\nSAMPLERS = {'x': optuna.samplers.PartialFixedSampler}",
            "sampler 'x': PartialFixedSampler takes no seed, so its trials would not come again",
        ),
        (
            "import optuna\nSAMPLERS = {'tpe': optuna.samplers.TPESampler}",
            "two samplers are named 'tpe'",
        ),
        ("x = 1", "declares nothing: expected EVALUATOR, EVALUATORS, SAMPLER, SAMPLERS or a func"),
    ],
)
def test_what_is_no_sampler_is_refused_with_the_file(text: str, rule: str, load: Load) -> None:
    with pytest.raises(MergeError, match=f"plugin file .*mine.py:? {rule}"):
        load(text)
    assert SAMPLERS._added == {}


def test_the_registry_imported_into_a_file_is_no_declaration(load: Load) -> None:
    with pytest.raises(MergeError, match="declares nothing"):
        load("from search.samplers.registry import SAMPLERS\n")
