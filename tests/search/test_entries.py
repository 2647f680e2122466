"""Score entries -> named evaluators and the entries of the aggregation."""

from __future__ import annotations

import pytest

from evaluators.protocol import Suite
from merge_core.errors import EvaluationError
from search.entries import named
from tests.search import toy

SCORE = """score:
  - {evaluator: lm_eval, task: gain}
  - {evaluator: lm_eval, task: loss, weight: 0.5}
"""


def spec_of(tmp_path, entries, aggregate="mean"):
    written = "score:\n" + "".join(
        f"  - {{evaluator: lm_eval, task: t{i}{more}}}\n" for i, more in enumerate(entries)
    )
    assert SCORE in toy.STUDY
    text = toy.STUDY.replace(SCORE, f"aggregate: {aggregate}\n{written}")
    return toy.spec_of(text, tmp_path)


class Guessed(toy.Task):
    chance = 0.2


def test_members_of_a_suite_are_tasks_and_one_entry(tmp_path):
    suite = Suite("group", ((toy.Task("x"), 0.25), (Guessed("y"), 0.75)))
    found = named(spec_of(tmp_path, ["", ", weight: 2, chance: 0.1"]), [toy.Task("z"), suite])
    assert list(found.evaluators) == ["z", "x", "y"]
    alone, group = found.entries
    assert (alone.name, alone.shares, alone.chances, alone.group) == ("z", {"z": 1.0}, {}, False)
    assert (group.name, group.weight, group.group) == ("group", 2.0, True)
    assert group.shares == {"x": 0.25, "y": 0.75}
    assert group.chances == {"x": 0.1, "y": 0.1}


def test_a_task_that_is_there_twice_gets_a_name_of_its_own(tmp_path):
    tasks = [toy.Task("x") for _ in range(3)]
    found = named(spec_of(tmp_path, ["", "", ""]), tasks)
    assert list(found.evaluators) == ["x", "x:points", "x:points#2"]
    assert [entry.name for entry in found.entries] == ["x", "x:points", "x:points#2"]


def test_chance_is_what_the_task_says_where_that_is_asked_for(tmp_path):
    found = named(spec_of(tmp_path, [", chance: auto"]), [Guessed("x")])
    assert found.entries[0].chances == {"x": 0.2}


def test_chance_that_no_task_says_is_refused(tmp_path):
    with pytest.raises(EvaluationError, match=r"x: the score of guessing is not known for points"):
        named(spec_of(tmp_path, [", chance: auto"]), [toy.Task("x")])


def test_chance_of_a_loss_is_refused(tmp_path):
    with pytest.raises(EvaluationError, match=r"loss: `chance` needs .* lower is better"):
        named(spec_of(tmp_path, [", chance: 0.5"]), [toy.Task("loss")])


@pytest.mark.parametrize("aggregate", ["min", "geometric_mean"])
def test_tasks_of_both_directions_are_not_compared(tmp_path, aggregate):
    spec = spec_of(tmp_path, ["", ""], aggregate)
    with pytest.raises(EvaluationError, match=rf"aggregate '{aggregate}' .*loss \(lower is better"):
        named(spec, [toy.Task("gain"), toy.Task("loss")])


def test_min_of_losses_alone_is_allowed(tmp_path):
    found = named(spec_of(tmp_path, [""], "min"), [toy.Task("loss")])
    assert [*found.evaluators] == ["loss"]


def test_a_group_of_both_directions_has_no_mean(tmp_path):
    suite = Suite("both", ((toy.Task("gain"), 0.5), (toy.Task("loss"), 0.5)))
    with pytest.raises(EvaluationError, match=r"both: a higher score is better in some"):
        named(spec_of(tmp_path, [""]), [suite])
