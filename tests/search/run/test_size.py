"""How large a study is: counted from its file and headers, and held against what a run does."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.report.select import choose
from search.run.check import check
from search.run.size import Counts, fitting
from search.space.space import Space
from search.spec.study_file import StudySpec
from search.trial.budget import Budget
from tests.search import toy
from tests.search.run.test_check import STUDY, write_model

Study = Callable[..., StudySpec]
DEEP = tuple(
    f"model.layers.{i}.{part}.weight" for i in range(24) for part in ("mlp.up", "self_attn.q")
)


def deep(*knobs: dict[str, Any]) -> Space:
    """Return the space of a model of 24 layers with one range for each of some models."""
    data = yaml.safe_load(toy.STUDY)
    data["recipe"]["models"] = [
        {"model": f"org/m{i}", "parameters": {"weight": {**ends(knob), **knob}}}
        for i, knob in enumerate(knobs)
    ]
    spec = toy.spec_of(yaml.safe_dump(data), Path("study"))
    return Space(spec.template, (*DEEP, "lm_head.weight"))


def ends(knob: dict[str, Any]) -> dict[str, float]:
    return {} if "sum" in knob else {"low": 0.0, "high": 1.0}


@pytest.mark.parametrize("trials", [0, 1, 6])
def test_counts_are_those_of_a_run(study: Study, trials: int) -> None:
    spec = study(trials=max(trials, 1), finalists=3)
    bench = toy.Toy(spec)
    budget = Budget(trials)
    record = toy.in_memory(spec, bench)
    choose(record, bench, toy.Listener())
    found = Counts.of(spec, bench.builder.space, budget)
    assert (found.baselines, found.trials) == (10, trials)
    assert len(toy.measured(record, "select")) <= found.select == 5
    assert len(toy.measured(record, "report")) <= found.report + found.again == 6 + 2


def test_a_space_without_dimensions_is_not_searched(study: Study) -> None:
    text = toy.STUDY.replace("{low: 0.0, high: 1.5, per: 2}", "0.5")
    spec = study(text.replace("{low: 0.0, high: 1.5}", "0.5"), trials=9)
    assert Counts.of(spec, Space(spec.template, toy.TENSORS), Budget(9)).trials == 0


def test_several_objectives_report_a_front_of_finalists_at_most(study: Study) -> None:
    spec = study(toy.STUDY + "aggregate: apart\n", finalists=4)
    assert Counts.of(spec, Space(spec.template, toy.TENSORS), Budget(9)).report == 5 + 4


@pytest.mark.parametrize("most", range(2, 60))
def test_the_finest_bands_that_fit_are_told(most: int) -> None:
    """Two ranges by layer and one without: ``2 ceil(24 / per) + 1`` dimensions."""
    said = fitting(deep({"per": "layer"}, {"per": "tensor"}, {}), (*DEEP, "lm_head.weight"), most)
    fits = [per for per in range(2, 24) if 2 * math.ceil(24 / per) + 1 <= most]
    per = min(fits, default=None)
    count = 3 if per is None else 2 * math.ceil(24 / per) + 1
    shape = "one number" if per is None else f"`per: {per}`"
    assert said == f"{shape} for each range that is finer makes {count}"


def test_a_range_that_is_coarse_already_stays_as_it_is() -> None:
    space = deep({"per": "layer"}, {"gradient": 3}, {"shape": "line"})
    assert fitting(space, DEEP, 12) == "`per: 4` for each range that is finer makes 11"


@pytest.mark.parametrize(
    ("knob", "most", "said"),
    [
        ({"per": "layer", "tied": "both"}, 12, "`per: 2`"),
        ({"per": "layer", "ordered": True}, 12, "`per: 4`"),
        ({"per": "layer", "ordered": True}, 2, "one number"),
        ({"per": "layer", "sum": 1}, 12, "`per: 4`"),
        ({"per": "tensor", "start": 0.5}, 12, "`per: 4`"),
    ],
)
def test_knobs_that_are_tied_ordered_or_summed_are_counted_as_they_are_drawn(
    knob: dict[str, Any], most: int, said: str
) -> None:
    space = deep(knob, knob)
    shape, _, count = fitting(space, DEEP, most).partition(" for each range that is finer makes ")
    assert shape == said
    wanted = {**knob, "ordered": knob.get("ordered", False) and said != "one number"}
    wanted = {key: value for key, value in wanted.items() if key != "per" and value}
    if said != "one number":
        wanted["per"] = int(said.strip("`").removeprefix("per: "))
    assert int(count) == len(deep(wanted, wanted).dimensions) <= most


def test_ranges_that_are_not_spread_have_no_finer_shape() -> None:
    assert fitting(deep({}, {}), DEEP, 1) == ""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("base", "one", "two"):
        write_model(tmp_path / "zoo" / name)
    (tmp_path / "study.yaml").write_text(STUDY.replace("trials: 6", "trials: 9"))
    return tmp_path


def test_dimensions_do_not_count_for_samplers_that_use_gradients(folder: Path) -> None:
    (many,) = check(folder).warnings
    assert many.endswith("or `sampler: auto`, or plan 12 trials")
    text = (folder / "study.yaml").read_text()
    for sampler in ("gradient", "auto"):
        (folder / "study.yaml").write_text(text.replace("sampler: random", f"sampler: {sampler}"))
        assert check(folder).warnings == []


def test_dimensions_count_where_they_have_no_slopes(folder: Path) -> None:
    text = (folder / "study.yaml").read_text().replace("sampler: random", "sampler: auto")
    (folder / "study.yaml").write_text(text.replace("high: 1.5", "high: 1.5, step: 0.1"))
    (many,) = check(folder).warnings
    assert many.endswith("or plan 12 trials")
    assert "sampler" not in many


@pytest.mark.parametrize(
    ("dtype", "width"), [("", 4), ("dtype: bfloat16", 2), ("dtype: float32, out_dtype: float16", 2)]
)
def test_memory_goes_by_the_type_of_candidates_and_by_files_each_once(
    tmp_path: Path, dtype: str, width: int
) -> None:
    for name in ("base", "one"):
        write_model(tmp_path / "zoo" / name, shape=(64, 32))
    (tmp_path / "zoo/two").symlink_to(tmp_path / "zoo/one")
    data = yaml.safe_load(STUDY)
    data["recipe"] |= yaml.safe_load(f"{{{dtype}}}")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(data))
    entries = len(toy.TENSORS) * 64 * 32
    size = (tmp_path / "zoo/one/model.safetensors").stat().st_size
    assert check(tmp_path).facts["memory"] == {
        "model": width * entries,
        "parents": 2 * size,
        "computed once": 0,
    }


def test_an_adapter_is_a_parents_file_beside_its_base(tmp_path: Path) -> None:
    for name in ("base", "one"):
        write_model(tmp_path / "zoo" / name, shape=(64, 32))
    lora = tmp_path / "zoo" / "lora"
    lora.mkdir()
    (lora / "adapter_model.safetensors").write_bytes(b"x" * 999)
    (tmp_path / "study.yaml").write_text(STUDY.replace("zoo/two", "zoo/base+zoo/lora"))
    size = (tmp_path / "zoo/one/model.safetensors").stat().st_size
    assert check(tmp_path).facts["memory"]["parents"] == 2 * size + 999


def test_the_budget_of_a_study_is_told_with_all_its_ends(folder: Path) -> None:
    text = STUDY.replace("trials: 6", "trials: 90, hours: 2, patience: 20, target: 0.8")
    (folder / "study.yaml").write_text(text.replace("report: 20", "report: rest"))
    assert check(folder).facts["budget"] == (
        "10 baselines and 90 trials on 20 items each, or until hours 2 or patience 20 or target "
        "0.8; then at most 5 candidates on 20 others, 6 on the rest, 2 on a part"
    )
