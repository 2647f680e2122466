from __future__ import annotations

from search.scoring.pools import Pool
from search.scoring.told import clustered, fewer, notices
from tests.search import toy

POOLS = {
    name: Pool(("t",), (tuple(range(count)),))
    for name, count in {"search": 3, "select": 4, "report": 5}.items()
}


def test_clusters_are_counted_for_tasks_that_have_some():
    tasks = [
        toy.Task("plain", 4),
        toy.Task("drop", 4, clusters=("p", "p", "q", "q"), clustered_by="passage"),
        toy.Task("own", 4, clusters=("a", "a", "a", "b")),
        toy.Task("each", 4, clusters=("a", "b", "c", "d"), clustered_by="id"),
    ]
    evaluators = {task.task: task for task in tasks}
    assert clustered(evaluators) == [
        "drop: 2 clusters of 4 items by `passage`",
        "own: 2 clusters of 4 items",
    ]
    assert notices(evaluators, {"search": 4, "select": 4, "report": "rest"}, POOLS) == [
        (
            "Items of one cluster are not independent and stay in one pool. "
            "drop: 2 clusters of 4 items by `passage`; own: 2 clusters of 4 items."
        ),
        "Since clusters of items stay together, there are 3 instead of 4 for search.",
    ]
    assert notices({"plain": tasks[0]}, {"search": 3, "select": 4, "report": 5}, POOLS) == []


def test_pools_with_fewer_items_than_asked_for_are_named():
    assert fewer({"search": 5, "select": 4, "report": "rest"}, POOLS) == [
        "3 instead of 5 for search"
    ]
    assert fewer({"search": 3, "select": 6, "report": 6}, POOLS) == [
        "4 instead of 6 for select",
        "5 instead of 6 for report",
    ]
    assert fewer({"search": 3, "select": 4, "report": 5}, POOLS) == []
