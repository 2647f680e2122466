"""``--device``: folders that are merged, and recipes that are measured, on a pretended accelerator.

Its bits are a CPU's, so that all that is tested is where things run: see ``pretend``.
"""

from __future__ import annotations

import pytest
import torch
import yaml

from merge_core import api
from merge_core.inspect.forecast import forecast
from merge_core.inspect.task_vector_sums import survey
from merge_core.kernels import run
from merge_core.output.model_folder import Writing, write
from tests.merge_core.mixture.mixtures import mixture
from tests.merge_core.pretend import DEVICE, Away, accelerator
from tests.merge_core.recipes import DARE_TIES, LINEAR, SLERP, TASK_ARITHMETIC, TIES

NESTED = f"""
name: half
{LINEAR.strip()}
---
merge_method: slerp
models: [{{model: half}}]
base_model: three
parameters: {{t: 0.4}}
"""
MIXTURE = yaml.safe_dump(mixture(dtype="float32"))
RECIPES = {
    "linear": LINEAR,
    "slerp": SLERP,
    "task_arithmetic": TASK_ARITHMETIC,
    "ties": TIES,
    "dare_ties": DARE_TIES,
    "nested": NESTED,
    "mixture": MIXTURE,
}


@pytest.fixture
def merged_on(monkeypatch):
    """Where the tensors were that methods got."""
    found: set[type] = set()
    merge = run.merge

    def watched(method, inputs, *more, **named):
        found.update(type(x) for x in (*inputs.models, inputs.base) if x is not None)
        return merge(method, inputs, *more, **named)

    monkeypatch.setattr(run, "merge", watched)
    return found


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_folder_is_merged_there_and_is_the_same(recipe, family, tmp_path, merged_on):
    folder, place = family("llama", "bfloat16"), tmp_path / "recipe.yaml"
    place.write_text(recipe)
    expected = write(api.planned(recipe, folder), tmp_path / "here")
    assert merged_on == {torch.Tensor}
    merged_on.clear()
    with accelerator() as device:
        plan = api.planned(recipe, folder)
        assert write(plan, tmp_path / "there", how=Writing(device=device)) == expected
        digests = {name: parent.digest for name, parent in plan.opened.items()}
    assert merged_on == {Away}
    assert digests == {name: x.digest for name, x in api.planned(recipe, folder).opened.items()}
    files = [x for x in (tmp_path / "here").iterdir() if x.suffix == ".safetensors"]
    assert files
    for file in files:
        assert (tmp_path / "there" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("recipe", [SLERP, TIES, DARE_TIES, NESTED])
def test_task_vectors_are_measured_there_with_the_same_sums(recipe, family):
    folder = family("llama", "bfloat16")
    expected = survey(api.planned(recipe, folder))
    with accelerator() as device:
        assert survey(api.planned(recipe, folder), device) == expected


def test_survey_tells_how_far_it_is(family):
    plan, told = api.planned(TIES, family("llama")), []
    survey(plan, watch=lambda *pair: told.append(pair))
    every = sum(map(plan.bytes_of, plan.steps))
    assert told[-1] == (every, every)
    assert len(told) == len(plan.steps)
    assert told == sorted(told)


def test_forecast_says_what_is_needed_there(family, tmp_path):
    plan = api.planned(TIES, family("llama"))
    here, there = forecast(plan, tmp_path), forecast(plan, tmp_path, Writing(device=DEVICE))
    assert (here.device, here.device_bytes) == ("cpu", 0)
    assert there.device == DEVICE
    assert there.device_bytes > here.memory_bytes - there.memory_bytes > 0
