"""The instrument itself: what must not happen is seen, and ends no run."""

from __future__ import annotations

import json
import os
import signal
import time
from random import Random

import pytest

from merge_core.errors import CheckpointError, DocumentError, Problem
from tests.fuzz import spoil
from tests.fuzz.kinds import KINDS
from tests.fuzz.worker import Outcome, Worker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # all libraries are read first


@pytest.fixture(scope="module")
def worker(world):
    with Worker(world) as made:
        yield made


def reads(folder):
    assert (folder / "note").read_text() == "here"
    assert (folder / "recipe.yaml").is_file()


def refuses(folder):
    raise CheckpointError(f"{folder}: no model: expected one, got none; give one")


def breaks(folder):
    raise KeyError("weight_map")


class Unbounded(CheckpointError):
    """An error that shows what others wrote as it is."""

    def __str__(self):
        return str(self.args[0])


def prints_two_lines(folder):
    raise Unbounded("a name: a\nb")


def says_two_things(folder):
    raise DocumentError("f.yaml", [Problem("a", "required"), Problem("b", "required")])


def says_too_much(folder):
    raise Unbounded("x" * 10_000)


def takes_memory(folder):
    bytearray(2**31)


def takes_memory_and_blames_the_file(folder):
    try:
        bytearray(2**31)
    except MemoryError as error:
        raise CheckpointError("damaged") from error


def works_for_ever(folder):
    while True:
        pass


def waits_for_ever(folder):
    (folder / "pipe").read_text()


def dies(folder):
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (reads, "data"),
        (refuses, "clear error"),
        (says_two_things, "clear error"),
        (breaks, "EXCEPTION"),
        (prints_two_lines, "EXCEPTION"),
        (says_too_much, "EXCEPTION"),
        (takes_memory, "over 1 GB"),
        (takes_memory_and_blames_the_file, "over 1 GB"),
        (dies, "EXCEPTION"),
    ],
)
def test_what_becomes_of_an_input_is_told_apart(worker, call, what):
    assert worker.run(call, {"note": b"here"}).what == what
    assert worker.run(reads, {"note": b"here"}) == Outcome("data")


@pytest.mark.parametrize("call", [works_for_ever, waits_for_ever])
def test_input_that_does_not_end_is_ended(worker, call, monkeypatch):
    monkeypatch.setattr("tests.fuzz.worker.WAIT", 3.0)
    monkeypatch.setattr("tests.fuzz.worker.DEADLINE", 2.0)
    started = time.monotonic()
    outcome = worker.run(call, {"pipe": spoil.Special("fifo")})
    assert outcome.what == "over 5 s"
    assert "test_worker.py" in outcome.detail  # where it was
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_what_is_not_spoilt_is_data(worker, kind):
    outcome = worker.run(kind.call, {})
    assert outcome.what == "data", outcome.detail


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_numbered_input_is_the_same_each_time_and_others_differ(world, kind):
    made = [kind.spoilt(Random(f"x {i}"), world) for i in (0, 0, *range(1, 20))]
    assert made[0] == made[1]
    assert len({repr(files) for files in made}) > 15


def test_spoilt_structure_stays_what_it_is_in_most_places():
    kept = 0
    for i in range(200):
        text = spoil.json_file(Random(i), json.dumps({"a": [1, "x"], "b": {"c": True}}).encode())
        try:
            kept += isinstance(json.loads(text), dict)
        except (ValueError, RecursionError):
            continue
    assert 80 < kept < 200
