"""Which files of the user's an entry reads, found without running any code of theirs."""

import pytest

from evaluators.harness.inputs import inputs_of
from evaluators.harness.options import LmEvalOptions
from evaluators.registry import EVALUATORS
from merge_core.errors import EvaluationError

BASE = """
dataset_path: json
dataset_kwargs: {data_files: {test: data/own.jsonl, train: "https://host/more.jsonl"}}
doc_to_text: !function utils.text
doc_to_target: "{{ answer }}"
"""


@pytest.fixture
def tasks(tmp_path):
    """A folder of task files, of which a study may need some."""
    folder = tmp_path / "tasks"
    (folder / "data").mkdir(parents=True)
    (folder / "base.yaml").write_text(BASE)
    (folder / "one.yaml").write_text("include: base.yaml\ntask: mine_one\ntag: mine_tag\n")
    (folder / "two.yaml").write_text("include: base.yaml\ntask: mine_two\n")
    (folder / "both.yaml").write_text("group: mine\ntask: [mine_one, mine_two]\n")
    (folder / "utils.py").write_text("raise SystemExit('this is run')\n")
    (folder / "secret.yaml").write_text("task: another\nmetadata: {key: hunter2}\n")
    (folder / "data" / "own.jsonl").write_text('{"q": "1", "answer": "1"}\n')
    return folder


def found(tasks, task):
    options = LmEvalOptions(task=task, include_path="tasks")
    inputs = inputs_of(options, tasks.parent)
    assert {one.key for one in inputs} == {"include_path"}
    return {str(one.file.relative_to(tasks.resolve())): one.data for one in inputs}


def test_a_task_needs_its_file_what_that_includes_its_code_and_its_data(tasks):
    expected = {"one.yaml": False, "base.yaml": False, "utils.py": False, "data/own.jsonl": True}
    assert found(tasks, "mine_one") == found(tasks, "mine_tag") == expected


def test_a_group_needs_the_files_of_its_members_and_of_nobody_else(tasks):
    assert found(tasks, "mine").keys() == {
        *("both.yaml", "one.yaml", "two.yaml", "base.yaml", "utils.py", "data/own.jsonl")
    }
    assert found(tasks, {"group": "here", "task": ["mine_two"]}).keys() == {
        *("two.yaml", "base.yaml", "utils.py", "data/own.jsonl")
    }


def test_data_of_lm_evals_own_tasks_and_without_a_folder_are_nobodys_files(tasks):
    assert inputs_of(LmEvalOptions(task="mine_one"), tasks.parent) == []


def test_an_absolute_path_in_a_task_file_is_named_with_its_line(tasks):
    (tasks / "base.yaml").write_text(BASE.replace("data/own", str(tasks / "data" / "own")))
    with pytest.raises(EvaluationError, match=r"base\.yaml:3: names a file by an absolute path"):
        found(tasks, "mine_one")


@pytest.mark.parametrize(
    ("name", "more"),
    [("exact_match", {"prompt": "{{ q }}"}), ("bits_per_byte", {})],
)
def test_of_other_evaluators_the_files_that_options_name_are_read(tmp_path, name, more):
    plugin = EVALUATORS.get(name)
    (tmp_path / "q.jsonl").write_text("{}")
    options = plugin.options(file="q.jsonl", **more)
    (one,) = plugin.inputs(options, tmp_path)
    assert (one.key, one.file, one.data) == ("file", tmp_path / "q.jsonl", True)
    with pytest.raises(EvaluationError, match="no such file"):
        plugin.inputs(options, tmp_path / "elsewhere")


def test_options_that_name_files_are_known_by_their_kind():
    assert EVALUATORS.get("lm_eval").paths == {"include_path": "a folder"}
    assert EVALUATORS.get("judge").paths == {"file": "a file", "fewshot_file": "a file"}
    assert EVALUATORS.get("cost").paths == {}
