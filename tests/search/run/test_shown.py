"""A check says which difference the report pool can show, by the items that are independent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from search.run.shown import shown
from search.scoring.intervals import paired_difference
from search.spec.study_file import StudySpec
from tests.search import toy

Study = Callable[..., StudySpec]


def said(study: Study, items: int, text: str = toy.SHORT, **facts: Any) -> str | None:
    """Return what is said of a study whose report pool has so many items."""
    spec = study(text.replace("report: 5", f"report: {items}"), folder=f"{len(facts)}-{items}")
    tasks = [toy.Task(score.options.task, 5000, **facts) for score in spec.scores]
    return shown(toy.Toy(spec, tasks=tasks).tasks)


def points(text: str | None) -> float:
    assert text is not None
    return float(text.split()[4 - 1])


def test_the_difference_is_that_of_the_plain_formula_in_points_and_items(study: Study) -> None:
    text = said(study, 627, bounds=(0.0, 1.0))
    assert text == (
        "a difference of 5.0 points is likely to be shown by the 627 report items, if two models "
        "answer 20 % of them otherwise"
    )


def test_a_difference_of_that_size_is_shown_by_four_studies_of_five(study: Study) -> None:
    least = points(said(study, 300, bounds=(0.0, 1.0))) / 100
    random, seen = np.random.default_rng(0), 0
    for _ in range(1000):
        drawn = random.random(300)  # 20 % are answered otherwise, and the difference is as said
        only_a = drawn < (0.2 + least) / 2
        only_b = (drawn >= (0.2 + least) / 2) & (drawn < 0.2)
        both = (drawn >= 0.6).astype(float)
        found = paired_difference([both + only_a], [both + only_b], [1.0])
        seen += found.low > 0
    assert seen / 1000 == pytest.approx(0.8, abs=0.05)


def test_items_of_one_cluster_count_once(study: Study) -> None:
    clusters = tuple(f"c{i // 4}" for i in range(5000))
    alone = points(said(study, 300, bounds=(0.0, 1.0)))
    several = toy.SHORT.replace("search: 5, select: 5", "search: 80, select: 80")
    together = points(said(study, 1200, several, bounds=(0.0, 1.0), clusters=clusters))
    assert together == pytest.approx(alone, abs=0.3)


def test_scores_without_bounds_have_no_points(study: Study) -> None:
    text = said(study, 784)
    assert text is not None
    assert text.startswith("a difference of 0.10 standard deviations of an item's difference")


def test_exact_scores_need_no_items(study: Study) -> None:
    assert said(study, 50, exact=True) is None


def test_for_a_minimum_the_entry_with_the_fewest_items_counts(study: Study) -> None:
    text = toy.STUDY.replace("report: 20", "report: 200") + "aggregate: min\n"
    text = text.replace(", weight: 0.5", "").replace("task: loss", "task: more")
    spec = study(text)
    sizes = {"gain": 4000, "more": 1000}
    tasks = [toy.Task(task, count, bounds=(0.0, 1.0)) for task, count in sizes.items()]
    alone = points(said(study, 40, bounds=(0.0, 1.0)))
    assert points(shown(toy.Toy(spec, tasks=tasks).tasks)) == pytest.approx(alone, abs=0.1)
