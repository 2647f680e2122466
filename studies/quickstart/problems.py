"""Which problems a model may train on is decided by a hash of the prompt, so none is ever a test.

Four skills on single characters, each with one right answer: ``add 23+58=`` -> ``81``,
``sort dbeac=`` -> ``abcde``, ``rev abcdef=`` -> ``fedcba`` and, only in the base model's
training, ``next cde=`` -> ``f``. A model ends its answer with ``STOP``.
"""

import random
import string
from collections.abc import Callable
from hashlib import blake2b
from typing import Literal, NamedTuple

Skill = Literal["add", "sort", "rev", "next"]
Split = Literal["train", "check", "benchmark"]

SKILLS: tuple[Skill, ...] = ("add", "sort", "rev")  # the ones with an expert and a task
STOP = "."
LONGEST_ANSWER = 6  # characters, without STOP
_SORT_LETTERS, _REV_LETTERS = 5, 6


class Problem(NamedTuple):
    """One question and its only right answer, without ``STOP``."""

    prompt: str
    answer: str


def split_of(prompt: str) -> Split:
    """Return the one split that ``prompt`` belongs to, in every process and for every seed.

    A quarter of all prompts are set aside: an eighth for the benchmark tasks, an eighth to
    check models without touching the benchmark.
    """
    bucket = blake2b(prompt.encode(), digest_size=1).digest()[0] % 8
    return "benchmark" if bucket == 0 else "check" if bucket == 1 else "train"


def draw(skill: Skill, split: Split, stream: random.Random) -> Problem:
    """Draw one problem of ``skill`` that belongs to ``split``."""
    while True:
        problem = _MAKERS[skill](stream)
        if split_of(problem.prompt) == split:
            return problem


def draw_distinct(skill: Skill, split: Split, n: int, seed: int) -> list[Problem]:
    """Return ``n`` distinct problems of one split, the same ones for the same arguments.

    The first ``m`` of ``n`` are what a call with ``m`` returns.
    """
    stream = random.Random(f"{skill} {split} {seed}")
    found: dict[Problem, None] = {}  # a dict keeps the order of drawing, a set does not
    while len(found) < n:
        found.setdefault(draw(skill, split, stream))
    return list(found)


def _add(stream: random.Random) -> Problem:
    a, b = stream.randint(10, 99), stream.randint(10, 99)
    return Problem(f"add {a}+{b}=", str(a + b))


def _sort(stream: random.Random) -> Problem:
    letters = "".join(stream.sample(string.ascii_lowercase, _SORT_LETTERS))
    return Problem(f"sort {letters}=", "".join(sorted(letters)))


def _rev(stream: random.Random) -> Problem:
    letters = "".join(stream.choices(string.ascii_lowercase, k=_REV_LETTERS))
    return Problem(f"rev {letters}=", letters[::-1])


def _next(stream: random.Random) -> Problem:
    length = stream.randint(2, 5)
    start = stream.randrange(26 - length)
    run = string.ascii_lowercase[start : start + length + 1]
    return Problem(f"next {run[:-1]}=", run[-1])


_MAKERS: dict[Skill, Callable[[random.Random], Problem]] = {
    "add": _add,
    "sort": _sort,
    "rev": _rev,
    "next": _next,
}
