"""Task files that lm-eval passes over, or would read for ever."""

from __future__ import annotations

import os

import pytest

from evaluators.harness import index
from merge_core.errors import EvaluationError, UnknownNameError

DOCS = [{"q": f"say {c}:", "a": c} for c in "abcdef"]
ALIASES = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]\n" for i in range(9)
)
UNREAD = {
    "no YAML": (
        "task: sums\n  filter_list: [\n",
        r"sums.yaml:2: the task file is no YAML: mapping",
    ),
    "a list": ("- task: sums\n", r"sums.yaml: lm-eval cannot .*: ValueError: Expected YAML dict"),
    "no task": ("tasks: sums\n", r"sums.yaml: lm-eval cannot .* Unknown config shape: keys="),
    "names": ("task: [sums]\n", r"sums.yaml: lm-eval cannot read this task file: TypeError"),
    "include": ("include: gone\ntask: sums\n", r"gone: cannot be read: No such file"),
    "circle": ("include: sums.yaml\ntask: sums\n", r"sums.yaml: lm-eval .*: Include cycle at"),
    "depth": ("task: sums\nx: " + "[" * 200_000, r"sums.yaml:2: .* 50000 values.* in 64 levels"),
    "aliases": ("task: sums\n" + ALIASES, r"sums.yaml:6: a task file has at most 50000 values"),
    "alias in itself": ("task: sums\nx: &x [*x]\n", r"sums.yaml:2: a task file has at most 50000"),
    "size": ("task: sums\n#" + "x" * 2**20, r"sums.yaml: cannot be read: expected at most 1048576"),
    "bytes": (b"task: sums \xff\n", r"sums.yaml: cannot be read: not UTF-8, byte 11 is 0xff"),
}


@pytest.fixture
def only_local(monkeypatch, tasks):
    """lm-eval's own 14,000 tasks take seconds to read."""
    from lm_eval.tasks import TaskManager

    own = TaskManager(include_path=str(tasks.folder), include_defaults=False)
    monkeypatch.setattr(index, "_own_tasks", lambda: own)


def write(folder, name, text):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize("kind", UNREAD)
@pytest.mark.usefixtures("only_local")
def test_a_task_file_that_is_not_read_is_named_with_what_is_wrong(kind, tasks):
    text, rule = UNREAD[kind]
    write(tasks.folder, "sums.yaml", text)
    with pytest.raises(EvaluationError, match=rule) as got:
        tasks.open("sums")
    assert not isinstance(got.value, UnknownNameError)


def test_a_task_file_that_is_not_read_does_not_make_way_for_lm_evals_own(tasks, monkeypatch):
    monkeypatch.setattr(index, "_own_tasks", lambda: pytest.fail("looked among lm-eval's own"))
    write(tasks.folder, "mine.yaml", "task: gsm8k\n\tdescription: x\n")
    with pytest.raises(EvaluationError, match=r"mine.yaml:2: the task file is no YAML"):
        tasks.open("gsm8k")


def test_a_pipe_among_task_files_holds_nothing_up(tasks):
    os.mkfifo(tasks.folder / "a.yaml")
    tasks.write("sums", DOCS)
    assert tasks.open("sums").task == "sums"


def test_the_member_of_a_group_is_looked_for_too(tasks, only_local):
    write(tasks.folder, "sums.yaml", "task: sums\n  filter_list: [\n")
    tasks.write_group("all", ["sums"])
    with pytest.raises(EvaluationError, match=r"sums.yaml:2: the task file is no YAML"):
        tasks.open("all")


def test_a_file_of_another_suffix_is_named(tasks, only_local):
    tasks.write("sums", DOCS)
    (tasks.folder / "sums.yaml").rename(tasks.folder / "sums.yml")
    with pytest.raises(EvaluationError, match=r"sums.yml: lm-eval reads only files .* \.yaml"):
        tasks.open("sums")


def test_a_broken_file_of_another_task_is_passed_over(tasks, only_local):
    write(tasks.folder, "other.yaml", "task: other\n  x: [\n")
    tasks.write("sums", DOCS)
    assert tasks.open("sums").task == "sums"
    with pytest.raises(
        UnknownNameError, match="no lm-eval task is named 'sum', did you mean 'sums'"
    ):
        tasks.open("sum")


def test_aliases_in_bounds_are_read(tasks):
    tasks.write("sums", DOCS)
    with (tasks.folder / "sums.yaml").open("a") as file:
        file.write("metadata: {version: &v 1.0, other: *v}\n")
    assert tasks.open("sums").task == "sums"
