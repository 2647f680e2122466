from __future__ import annotations

import sys

import pytest

from evaluators import plugin_file
from evaluators.jsonl.python_function import SCORERS
from evaluators.registry import EVALUATORS
from merge_core.errors import EvaluationError

SCORER = """
from evaluators.jsonl.python_function import scorer

@scorer(name={name!r})
def words(answer, item):
    return len(answer.split())
"""
EVALUATOR = """
from pydantic import Field
from evaluators.registry import EvaluatorPlugin
from merge_core.validation import File, StrictModel

class Options(StrictModel):
    file: File = Field(description="what to read")

def plugin(name):
    return EvaluatorPlugin(name=name, meaning="x", options=Options, open=lambda *a: None)
"""


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """Leave the registries as they were."""
    monkeypatch.setattr(EVALUATORS, "_added", {})
    monkeypatch.setattr(SCORERS, "_added", {})
    monkeypatch.setattr(plugin_file, "_loaded", {})
    for name in private_modules():  # of other tests' plugins
        monkeypatch.delitem(sys.modules, name)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("_mergetune_plugin_"):
            del sys.modules[name]


@pytest.fixture
def written(tmp_path):
    def make(text, name="mine.py"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return make


def private_modules():
    return [name for name in sys.modules if name.startswith("_mergetune_plugin_")]


def test_a_scorer_is_found_by_its_name(written):
    assert plugin_file.load(written(SCORER.format(name="words"))) == ["words"]
    assert SCORERS.get("words")("a b c", {}) == 3


def test_an_evaluator_is_found_by_its_name(written):
    file = written(EVALUATOR + "EVALUATOR = plugin('mine')\n")
    assert plugin_file.load(file) == ["mine"]
    assert EVALUATORS.get("mine").problems({})[0].rule == "required by evaluator 'mine'"


def test_a_file_may_declare_many_things(written):
    text = EVALUATOR + "EVALUATORS = [plugin('one'), plugin('two')]\n" + SCORER.format(name="w")
    assert plugin_file.load(written(text)) == ["one", "two", "w"]


def test_the_registry_itself_is_no_declaration(written):
    text = "from evaluators.registry import EVALUATORS\n" + SCORER.format(name="w")
    assert plugin_file.load(written(text)) == ["w"]


def test_models_and_names_of_standard_modules_work_in_a_plugin_file(written):
    text = "from __future__ import annotations\n" + EVALUATOR + "EVALUATOR = plugin('mine')\n"
    plugin_file.load(written(text, "json.py"))
    import json

    assert json.loads("[1]") == [1]


def test_the_same_file_may_be_loaded_twice(written):
    file = written(SCORER.format(name="words"))
    assert plugin_file.load(file) == plugin_file.load(file) == ["words"]


def test_a_changed_file_is_a_clash(written):
    plugin_file.load(written(SCORER.format(name="words")))
    with pytest.raises(EvaluationError, match=r"mine.py: two scorers are named 'words'"):
        plugin_file.load(written(SCORER.format(name="words") + "# changed\n"))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("import gone_for_good", "cannot be imported: ModuleNotFoundError: No module named"),
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("def", "cannot be imported: SyntaxError"),
        ("import sys; sys.exit(3)", "cannot be imported: SystemExit: 3"),
        ("x = 1", "declares nothing: expected EVALUATOR, EVALUATORS or a function under @scorer"),
        ("EVALUATOR = 5", "EVALUATOR must be an EvaluatorPlugin, .* got 5"),
        ("EVALUATORS = [5]", ".* EVALUATORS a list of them, got 5"),
        ("EVALUATORS = 5", ".* EVALUATORS a list of them, got 5"),
        (EVALUATOR + "EVALUATOR = plugin('lm_eval')", "two evaluators are named 'lm_eval'"),
        (EVALUATOR + "EVALUATORS = [plugin('x')] * 2", "two evaluators are named 'x'"),
    ],
)
def test_a_file_that_does_not_do_is_refused_and_leaves_nothing(text, rule, written):
    with pytest.raises(EvaluationError, match=f"plugin file .*mine.py:? {rule}"):
        plugin_file.load(written(text))
    assert private_modules() == []
    assert EVALUATORS._added == SCORERS._added == {}


def test_one_name_that_is_taken_keeps_all_others_out(written):
    text = EVALUATOR + "EVALUATORS = [plugin('mine'), plugin('cost')]\n"
    with pytest.raises(EvaluationError, match="two evaluators are named 'cost'"):
        plugin_file.load(written(text))
    assert EVALUATORS._added == {}


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(EvaluationError, match=r"gone.py cannot be read: No such file"):
        plugin_file.load(tmp_path / "gone.py")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(EvaluationError, match="cannot be read: Is a directory"):
        plugin_file.load(tmp_path)
