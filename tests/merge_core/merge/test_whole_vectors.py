"""What ``trim: global`` costs: looks at whole task vectors are counted, not timed."""

import pytest
import yaml

from merge_core.errors import ParameterError
from merge_core.merge.execute import Execution
from merge_core.merge.nested import plan
from merge_core.merge.statistics_cache_disk import Saved
from merge_core.numerics import order_statistics
from merge_core.output.live_model import Candidate
from merge_core.plan.steps import Operand
from tests.merge_core.conftest import read_recipe

MODELS = ("one", "two", "three")


def recipe(*densities):
    models = [
        {"model": name, "parameters": {"weight": 0.4, "density": density}}
        for name, density in zip(MODELS, densities, strict=False)
    ]
    return yaml.safe_dump(
        {
            "merge_method": "ties",
            "base_model": "base",
            "models": models,
            "parameters": {"trim": "global"},
        }
    )


def planned_on(made, text):
    return plan(read_recipe(text), made.parents)


@pytest.fixture
def surveys(monkeypatch):
    """How many places each look at a whole task vector was for."""
    found, ranked = [], order_statistics.ranked

    def noted(parts, places, **how):
        found.append(len(places))
        return ranked(parts, places, **how)

    monkeypatch.setattr(order_statistics, "ranked", noted)
    return found


def test_merge_looks_once_at_each_task_vector(planned, surveys):
    made = planned(recipe(0.3, 0.3, 0.7))
    execution = Execution(made.plan)
    for step in made.plan.steps:
        execution.carry_out(step)
    assert surveys == [1, 1, 1]


def test_study_looks_once_at_each_task_vector_whatever_densities_are_tried(planned, surveys):
    candidate, made = Candidate(), planned(recipe(0.3, 0.5))
    for densities in [(0.3, 0.5), (0.31, 0.5), (0.9, 0.01), (0.3, 0.99)]:
        digest = candidate.build(planned_on(made, recipe(*densities)))
        assert digest == planned(recipe(*densities)).build()[0]
    # of these four candidates, and of the four that were made to compare
    assert len(surveys) == 2 + 4 * 2
    assert set(surveys) == {99}


def test_density_between_hundredths_is_found_by_a_look_of_its_own(planned, surveys):
    text = recipe(0.305, 0.3)
    assert planned(text).build()[0] == planned(recipe(0.305, 0.3)).build()[0]
    assert sorted(surveys) == [1, 1, 99, 99]


@pytest.mark.parametrize("densities", [(1.0, 1.0), (0.0, 1.0)])
def test_models_that_are_kept_whole_or_not_at_all_are_not_looked_at(planned, surveys, densities):
    digest = planned(recipe(*densities)).build()[0]
    assert surveys == []
    assert digest == planned(recipe(*densities).replace("global", "tensor")).build()[0]


def test_looks_are_kept_on_disk(planned, surveys, tmp_path):
    digest = Candidate(saved=Saved(tmp_path)).build(planned(recipe(0.3, 0.5)).plan)
    surveys.clear()
    assert Candidate(saved=Saved(tmp_path)).build(planned(recipe(0.3, 0.5)).plan) == digest
    assert surveys == []


def test_telling_what_changed_compares_each_tensor_a_few_times(planned, monkeypatch):
    candidate, made = Candidate(), planned(recipe(0.3, 0.5, 0.5))
    candidate.build(made.plan)
    again, compared = planned_on(made, recipe(0.3, 0.5, 0.5)), []
    equal = Operand.__eq__
    monkeypatch.setattr(Operand, "__eq__", lambda a, b: compared.append(1) or equal(a, b))
    candidate.build(again)
    assert 0 < len(compared) <= 8 * len(made.plan.steps)


def test_several_densities_of_one_parent_are_refused(planned):
    made = planned(recipe([0.3, 0.9], 0.5))
    with pytest.raises(ParameterError, match=r"^one: trim: global takes one density for all"):
        Execution(made.plan).carry_out(made.plan.steps[0])
