"""A search of paths begins without the layers that the entry model misses least."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from search.run.check import check
from search.run.cuts import cuts
from search.run.size import Counts
from search.run.study import run
from search.space.path_space import PathSpace
from search.spec import study_file
from search.storage.locate import open_study
from search.trial.budget import Budget
from search.trial.worker import Worker
from tests.search.real import QUICKSTART, Quiet
from tests.search.run.test_gradient_study import Told
from tests.search.run.test_path_study import write

ONE = "{parents: [MODEL], keep_first: 1, keep_last: 1}"


@pytest.fixture
def idle(tmp_path: Path) -> Path:
    """The sort expert with a layer 1 that adds nothing to the stream."""
    folder = tmp_path / "idle"
    shutil.copytree(QUICKSTART / "models" / "sort", folder)
    tensors = load_file(folder / "model.safetensors")
    for part in ("self_attn.o_proj", "mlp.down_proj"):
        tensors[f"model.layers.1.{part}.weight"].zero_()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def of(folder: Path, path: str, **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    return write(folder, path, **more)


def test_the_layer_that_does_nothing_is_left_out_to_begin_with(idle: Path, tmp_path: Path) -> None:
    study = of(tmp_path / "study", ONE.replace("MODEL", str(idle)), trials=2)
    spec = study_file.read(study)
    _, record = open_study_of(study)
    worker = Worker(spec.data, spec.folder)
    (one,) = cuts(spec, record, worker, Quiet())
    assert one.name == "simple:path=without 1"
    spans = [source.layer_range for part in one.recipe.slices for source in part.sources]
    assert spans == [(0, 1), (2, 4)]
    space = worker.builder.space
    assert isinstance(space, PathSpace)
    assert space.recipe(one.params).slices == one.recipe.slices  # a point, so it steers
    live = worker.builder
    live.build(one.recipe)
    ids = torch.arange(8)[None]
    with torch.no_grad():
        cut = live.live.model(ids).logits
        live.build(space.recipe(space.point(lambda knob, _: knob.choices[0])))
        assert torch.allclose(cut, live.live.model(ids).logits, atol=1e-5)


def open_study_of(study: Path) -> Any:
    """Begin a study and settle nothing of it."""
    run(study, Quiet(), stop=lambda: True)
    return open_study(str(study))


@pytest.mark.slow
def test_a_study_has_it_as_a_baseline_once_also_when_it_goes_on(idle: Path, tmp_path: Path) -> None:
    study = of(tmp_path / "study", ONE.replace("MODEL", str(idle)), trials=2)
    counted = check(study).facts["baselines"]
    assert counted[-1] == "simple:path=without the 1 layers that matter least"
    asked = iter(range(4))
    run(study, Quiet(), stop=lambda: next(asked, None) is None, force=True)
    run(study, Quiet(), stop=lambda: False, force=True)  # the idle layer changes no score
    spec, record = open_study(str(study))
    names = [trial.baseline for trial in record.trials if trial.baseline]
    assert names.count("simple:path=without 1") == 1
    assert len(names) == len({*names}) == len(counted)
    space = Worker(spec.data, spec.folder, record.about).builder.space
    assert Counts.of(spec, space, Budget(2)).baselines == len(counted)
    assert cuts(spec, record, Worker(spec.data, spec.folder, record.about), Quiet()) == []


def test_where_nothing_may_be_left_out_nothing_is(tmp_path: Path) -> None:
    path = "{parents: [@sort], keep_first: 3, keep_last: 1, max_layers: 5, repeats: 2}"
    study = of(tmp_path / "study", path)
    spec, record = open_study_of(study)
    assert cuts(spec, record, Worker(spec.data, spec.folder), Quiet()) == []


def test_tasks_without_prompts_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = of(tmp_path / "study", "{parents: [@sort]}")
    spec, record = open_study_of(study)
    worker = Worker(spec.data, spec.folder)
    only = {name: x for name, x in worker.tasks.evaluators.items() if name == "none"}
    monkeypatch.setattr(worker.tasks, "evaluators", only)
    told = Told()
    assert cuts(spec, record, worker, told) == []
    assert told.notices
    assert told.notices[0].startswith("no layers are left out to begin with: ")
