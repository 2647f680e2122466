"""Workers that are served from one queue: deaths, places that are gone, and the end."""

import threading

import pytest

from merge_core.errors import MergeError
from search.workers import pool
from search.workers.pool import Died, NoRoom
from search.workers.protocol import MOST_DEATHS, WorkerDiedError


class Fake:
    """A worker that does what the test says of its number and its start."""

    def __init__(self, number, opens=None, does=None):
        self.number, self.opens, self.does = number, opens, does
        self.ended = threading.Event()

    def wait_until_open(self):
        if self.opens is not None:
            self.opens(self)

    def ask(self, method, arguments):
        return (method, *arguments) if self.does is None else self.does(self, *arguments)

    def end(self):
        self.ended.set()


@pytest.fixture
def pools():
    made = []

    def make(count, start):
        made.append(pool.Pool(count, start))
        return made[-1]

    yield make
    for one in made:
        one.close()
        one.join(5)


def test_calls_are_answered_whoever_does_them(pools):
    workers = pools(3, Fake)
    found = [workers.call("run", i) for i in range(20)]
    assert [answer.result(5) for answer in found] == [("run", i) for i in range(20)]
    assert workers.busy > 0


def test_a_worker_that_dies_is_replaced_and_its_call_done_again(pools):
    started = []

    def die_once(worker, i):
        if len(started) == 1:
            raise Died("by SIGKILL")
        return i

    workers = pools(1, lambda n: started.append(n) or Fake(n, does=die_once))
    assert [workers.call("run", i).result(5) for i in (1, 2)] == [1, 2]
    assert started == [0, 0]


def test_a_call_that_kills_every_worker_fails_alone(pools):
    def die(worker, i):
        if i == 1:
            raise Died("by SIGKILL")
        return i

    workers = pools(1, lambda n: Fake(n, does=die))
    bad, good = workers.call("run", 1), workers.call("run", 2)
    words = f"{MOST_DEATHS} workers ended one after the other at the same job: by SIGKILL"
    with pytest.raises(WorkerDiedError, match=words):
        bad.result(5)
    assert good.result(5) == 2


def test_workers_that_end_while_they_open_the_study_blame_no_candidate(pools):
    def die(worker):
        raise Died("by SIGKILL", opening=True)

    workers = pools(2, lambda n: Fake(n, opens=die))
    error = workers.call("run").exception(5)
    assert (
        str(error) == "3 workers ended one after the other while they opened the study: by SIGKILL"
    )
    assert not isinstance(error, WorkerDiedError)


def test_a_call_whose_worker_died_is_done_by_another_before_that_one_is_back(pools):
    back = threading.Event()

    def open_late(worker):
        if worker.number in died:
            back.wait(5)

    def die_first(worker, i):
        if not died:
            died.append(worker.number)
            raise Died("by SIGKILL")
        return worker.number

    died = []
    workers = pools(2, lambda n: Fake(n, open_late, die_first))
    assert workers.call("run", 1).result(5) not in died
    back.set()


def test_what_keeps_a_worker_from_opening_is_what_the_call_raises(pools):
    ended = []

    def refuse(worker):
        ended.append(worker)
        raise MergeError("models/x: no such folder")

    workers = pools(1, lambda n: Fake(n, opens=refuse))
    with pytest.raises(MergeError, match="models/x"):
        workers.call("run").result(5)
    assert ended[0].ended.is_set()


def test_calls_of_a_worker_without_a_place_are_done_by_the_others_until_it_has_one(pools):
    place, asked = threading.Event(), threading.Event()

    def open_later(worker):
        if worker.number == 0 and not place.wait(0.01):
            asked.set()
            raise NoRoom("it takes 1 GPUs")

    doers = set()

    def note(worker, i):
        doers.add(worker.number)
        threading.Event().wait(0.002)
        return i

    workers = pools(2, lambda n: Fake(n, open_later, note))
    found = [workers.call("run", i) for i in range(20)]
    assert [answer.result(5) for answer in found] == list(range(20))
    assert asked.wait(5)
    assert doers == {1}
    place.set()
    while doers == {1}:
        workers.call("run", 0).result(5)


def test_workers_that_have_no_place_at_all_are_an_end(pools):
    def none(worker):
        threading.Event().wait(0.01)
        raise NoRoom("it takes 1 GPUs, which no machine of the cluster has free")

    workers = pools(2, lambda n: Fake(n, opens=none))
    for answer in [workers.call("run") for _ in range(3)]:
        error = answer.exception(5)
        assert str(error).startswith("there is no place for a worker: it takes 1 GPUs, which no")
        assert not isinstance(error, WorkerDiedError)  # no candidate is to blame


def test_the_end_is_the_end_of_workers_and_of_calls_that_wait(pools):
    started, hold = [], threading.Event()

    def wait(worker):
        worker.ended.wait(5)
        raise Died("by its end")

    def start(number):
        started.append(Fake(number, does=wait))
        hold.set()
        return started[-1]

    workers = pools(1, start)
    first, second = workers.call("run"), workers.call("run")
    assert hold.wait(5)
    workers.close()
    workers.join(5)
    assert started[0].ended.is_set()
    assert not first.done()
    assert not second.done()
