import json

import pytest

from merge_core.errors import DocumentError, MergeError
from search.run import check as checks
from search.run.study import run
from search.trial.worker import Worker
from tests.merge_core import stacks
from tests.search.real import Quiet

STUDY = """recipe:
{recipe}score:
- {{evaluator: exact_match, file: q.jsonl, prompt: '{{{{ q }}}}=', max_tokens: 2}}
items: {{search: 4, select: 2, report: 2}}
search: {{trials: 2, sampler: random}}
engine: {{device: cpu, threads: 1}}
"""


@pytest.fixture
def root(family, own_family):
    root = stacks.models(family, own_family)
    rows = [json.dumps({"q": f"{i}+1", "answer": str(i + 1)}) for i in range(8)]
    (root / "q.jsonl").write_text("\n".join(rows))
    return root


@pytest.fixture
def unbuilt(monkeypatch):
    """Fail where a candidate is built or scored."""

    def job(*_):
        raise AssertionError("a trial began")

    monkeypatch.setattr(Worker, "run", job)


def study(root, slices):
    file = root / "study.yaml"
    file.write_text(STUDY.format(recipe=stacks.recipe_of(slices, "  ")))
    return file


def recipe(root, slices):
    file = root / "recipe.yaml"
    file.write_text(stacks.recipe_of(slices))
    return file


@pytest.mark.parametrize("name", stacks.WRONG)
def test_check_of_a_recipe_names_a_stack_that_cannot_be(root, name):
    slices, (line, path, rule) = stacks.WRONG[name]
    file = recipe(root, slices)
    with pytest.raises(DocumentError) as caught:
        checks.check(file)
    assert str(caught.value) == f"{file}:{line}: {path}: {rule}"


@pytest.mark.parametrize("tasks", [True, False], ids=["tasks", "no tasks"])
@pytest.mark.parametrize("name", stacks.WRONG)
def test_check_of_a_study_names_a_stack_that_cannot_be(root, name, tasks):
    slices, (line, path, rule) = stacks.WRONG[name]
    file = study(root, slices)
    with pytest.raises(DocumentError) as caught:
        checks.check(file, tasks=tasks)
    assert str(caught.value) == f"{file}:{line + 1}: recipe.{path}: {rule}"


@pytest.mark.parametrize("name", stacks.WRONG)
def test_run_names_a_stack_that_cannot_be_before_the_first_trial(root, unbuilt, name):
    slices, (_, _, rule) = stacks.WRONG[name]
    with pytest.raises(MergeError) as caught:
        run(study(root, slices), Quiet(), lambda: False)
    assert rule.partition(" beside")[0] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_head_of_another_vocabulary_is_named_by_check_and_before_the_first_trial(root, unbuilt):
    slices, rule = stacks.VOCABULARY
    file = study(root, slices)
    with pytest.raises(DocumentError, match=r"study.yaml:1: recipe: baseline defaults: ") as caught:
        checks.check(file, tasks=True)
    assert str(caught.value).endswith(rule)
    with pytest.raises(MergeError) as caught:
        run(file, Quiet(), lambda: False)
    assert str(caught.value) == f"baseline defaults: {rule}"


def test_uniform_merge_of_other_vocabularies_is_left_out_with_a_word(root):
    class Heard(Quiet):
        def __init__(self):
            self.notices = []

        def notice(self, text):
            self.notices.append(text)

    file, heard = study(root, [("one", 0, 2), ("more", 1, 2), ("one", 2, 4)]), Heard()
    warnings = checks.check(file, tasks=True).warnings
    assert [line[:20] for line in warnings if "uniform" in line] == ["no baseline uniform:"]
    report = run(file, heard, lambda: False, force=True)
    assert any(line.startswith("no baseline uniform: model.embed") for line in heard.notices)
    assert "uniform" not in [row.name for row in report.candidates]


def test_models_that_are_not_here_are_not_planned(root):
    file = study(root, [("one", 0, 2), ("elsewhere/model", 2, 5)])
    warnings = checks.check(file, tasks=True).warnings
    assert any("elsewhere/model: no folder of that name" in line for line in warnings)
