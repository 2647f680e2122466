from __future__ import annotations

from search.scoring.pools import Pool
from search.scoring.told import clustered, fewer
from tests.search import toy


def pool(count: int) -> Pool:
    return Pool(("t",), (tuple(range(count)),))


def test_clusters_are_counted_for_tasks_that_have_some():
    tasks = [
        toy.Task("plain", 4),
        toy.Task("drop", 4, clusters=("p", "p", "q", "q"), clustered_by="passage"),
        toy.Task("own", 4, clusters=("a", "a", "a", "b")),
        toy.Task("each", 4, clusters=("a", "b", "c", "d"), clustered_by="id"),
    ]
    assert clustered({task.task: task for task in tasks}) == (
        "Items of one cluster are not independent and stay in one pool. "
        "drop: 2 clusters of 4 items by `passage`; own: 2 clusters of 4 items."
    )
    assert clustered({"plain": tasks[0]}) == ""


def test_pools_with_fewer_items_than_asked_for_are_named():
    pools = {"search": pool(8), "select": pool(10), "report": pool(7)}
    assert fewer({"search": 10, "select": 10, "report": "rest"}, pools) == (
        "Since clusters of items stay together, there are 8 instead of 10 for search."
    )
    assert fewer({"search": 8, "select": 12, "report": 8}, pools).endswith(
        "10 instead of 12 for select, 7 instead of 8 for report."
    )
    assert fewer({"search": 8, "select": 10, "report": 7}, pools) == ""
