"""Score entries -> named evaluators and the entries of the aggregation."""

from __future__ import annotations

import pytest

from evaluators.protocol import Suite
from merge_core.errors import EvaluationError
from search.scoring.objectives import named, pool_clusters, pool_ids, sharing
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


def test_members_of_a_suite_are_tasks_and_one_entry(tmp_path):
    suite = Suite("group", ((toy.Task("x"), 0.25), (toy.Task("y", chance=0.2), 0.75)))
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
    found = named(spec_of(tmp_path, [", chance: auto"]), [toy.Task("x", chance=0.2)])
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


def prompt(task, first=0):
    """Make one of several prompts for the documents ``first`` to ``first + 19``."""
    return toy.Task(task, 20, documents=tuple(f"doc{i}" for i in range(first, first + 20)))


def pools_of(*tasks):
    evaluators = {task.task: task for task in tasks}
    return sharing(evaluators).split({"search": 12, "select": 12, "report": "rest"}, seed=3)


def test_a_document_is_in_the_same_pool_in_every_task_that_has_it():
    pools = pools_of(prompt("plain"), prompt("loud"))
    for pool in pools.values():
        assert pool.of("plain") == pool.of("loud")
    # guards the line above: by the items' own ids they would be apart
    apart = pools_of(toy.Task("plain", 20), toy.Task("loud", 20))
    assert apart["search"].of("plain") != apart["search"].of("loud")


def test_documents_of_which_tasks_share_some_are_in_one_pool_each():
    pools = pools_of(prompt("plain"), prompt("loud", 10))
    for pool in pools.values():
        plain, loud = {*pool.of("plain")}, {i + 10 for i in pool.of("loud")}
        assert plain & {*range(10, 20)} == loud & {*range(10, 20)}
    assert [len(pool) for pool in pools.values()] == [12, 12, 16]


def test_clusters_are_joined_by_contents_documents_and_what_tasks_say():
    one = toy.Task("one", 4, documents=("a", "b", "c", "d"))
    two = toy.Task("two", 4, documents=("b", "e", "f", "g"), clusters=("p", "p", "q", "r"))
    three = toy.Task("three", 3, clusters=("q", "s", "s"))
    found = pool_clusters({task.task: task for task in (one, two, three)})
    assert len({*found["one"]}) == 4
    assert found["two"][0] == found["two"][1] == found["one"][1]
    assert found["three"][0] == found["two"][2]
    assert found["three"][1] == found["three"][2]
    assert len({x for names in found.values() for x in names}) == 4 + 2 + 1
    again = pool_clusters({task.task: task for task in (three, one, two)})
    assert again == found


def test_clusters_of_tasks_that_share_nothing_are_their_contents():
    tasks = {task.task: task for task in (toy.Task("x", 5), toy.Task("y", 5))}
    assert pool_clusters(tasks) == {name: tuple(pool_ids(tasks)[name]) for name in tasks}


def test_what_is_exact_or_right_or_wrong_is_not_graded():
    kinds = {"a": {}, "b": {"bounds": (0, 1), "binary": True}, "c": {"exact": True}}
    found = sharing({name: toy.Task(name, 5, **more) for name, more in kinds.items()})
    assert found.graded == {"a"}


def test_tasks_that_share_nothing_are_split_by_their_items_as_ever():
    tasks = [prompt("plain"), prompt("other", 50), toy.Task("third", 20)]
    expected = {task.task: [item.id for item in task.items] for task in tasks}
    assert pool_ids({task.task: task for task in tasks}) == expected
