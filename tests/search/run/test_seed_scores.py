"""Scores of several seeds are those of their merges, and their deviation is told from chance."""

from __future__ import annotations

import numpy as np
import pytest

from merge_core import api
from merge_core.merge.nested import plan
from merge_core.merge.seed_spread import seeded
from search.run.seed_scores import seed_scores, task_spread
from search.spec import study_file
from tests.search.real import QUICKSTART, Bench, write_study

RECIPE = f"""
merge_method: dare_linear
base_model: {QUICKSTART / "models" / "base"}
models:
  - {{model: {QUICKSTART / "models" / "add"}, parameters: {{weight: 0.6, density: 0.4}}}}
  - {{model: {QUICKSTART / "models" / "sort"}, parameters: {{weight: 0.6, density: 0.4}}}}
dtype: float32
"""


def test_deviation_over_seeds_is_that_of_their_means() -> None:
    scores = np.array([[1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    found = task_spread("t", scores)
    assert found.each == [0.75, 0.5, 1.0]
    assert (found.mean, found.items) == (0.75, 4)
    assert found.deviation == pytest.approx(0.25)


def test_what_items_alone_make_is_the_rest_of_the_two_way_table() -> None:
    rng = np.random.default_rng(0)
    seeds, items = 40, 500
    level = rng.normal(0, 0.3, (1, items)) + rng.normal(0, 0.1, (seeds, 1))
    found = task_spread("t", level + rng.normal(0, 0.5, (seeds, items)))
    assert found.by_items == pytest.approx(0.5 / np.sqrt(items), rel=0.05)
    assert found.deviation == pytest.approx(np.hypot(0.1, found.by_items), rel=0.25)
    alike = task_spread("t", level[:1] + rng.normal(0, 0.5, (seeds, items)))
    assert alike.deviation == pytest.approx(alike.by_items, rel=0.25)  # seeds do nothing


def test_items_that_all_seeds_score_alike_make_nothing() -> None:
    found = task_spread("t", np.array([[1.0, 0.0]] * 3))
    assert (found.deviation, found.by_items) == (0.0, 0.0)


@pytest.mark.slow
def test_scores_are_those_of_each_seed_s_merge_on_the_select_items(tmp_path) -> None:
    study = write_study(tmp_path / "small")
    made = api.planned(RECIPE, tmp_path)
    plans = [plan(recipe, made.opened) for recipe in seeded(made.recipe, 3)]
    seen: list[tuple[int, int]] = []
    found = seed_scores(study, plans, lambda done, every: seen.append((done, every)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert found.pool == "select"
    spec = study_file.read(study)
    bench = Bench(spec.data, spec.folder)
    values = []
    for one in plans:
        bench.build(one.recipe)
        values.append(bench.tasks.value(bench.score("select"), "select")[0])
    assert found.values == pytest.approx(values)
    assert found.deviation == pytest.approx(np.std(values, ddof=1))
    assert {x.task: x.items for x in found.tasks} == {"quickstart_add": 6, "quickstart_sort": 6}
