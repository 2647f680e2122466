"""Where a study keeps its parents, and that it says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from merge_core.errors import ParameterError
from merge_core.numerics import order_statistics
from merge_core.parents.residency import Memory
from search.spec import study_file
from search.trial import builder
from search.trial.builder import Builder
from tests.search.real import write_study

GIB = 2**30
BEGUN = {"threads": 1}


def bench_of(
    folder: Path,
    about: dict[str, Any] | None = None,
    method: str = "task_arithmetic",
    more: str = "",
    **engine: Any,
) -> Builder:
    study = write_study(folder, method=method, more=more)
    data = yaml.safe_load(study.read_text())
    data["engine"] |= engine
    study.write_text(yaml.safe_dump(data))
    return Builder(study_file.read(study), about)


def memories(monkeypatch: pytest.MonkeyPatch, device: int, host: int) -> None:
    """Take the CPU for an accelerator of so many GiB."""
    found = Memory(device * GIB, device * GIB), Memory(host * GIB, host * GIB)
    monkeypatch.setattr(builder, "memories", lambda device: found)


def test_parents_on_the_device_of_a_study_without_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"^engine.parents: .*on cpu.*, got 'device'"):
        _ = bench_of(tmp_path, parents="device").placement


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "host", "where"), [(8, 8, "device"), (0, 8, "pinned"), (0, 0, "mapped")]
)
def test_candidate_is_the_same_wherever_a_study_keeps_its_parents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: int, host: int, where: str
) -> None:
    mapped = bench_of(tmp_path)
    recipe = mapped.space.recipe({d.name: 0.4 for d in mapped.space.dimensions})
    assert mapped.placement.where == "mapped"
    memories(monkeypatch, device, host)
    bench = bench_of(tmp_path)
    assert bench.placement.where == where
    assert bench.build(recipe) == mapped.build(recipe)
    both = bench.about(), mapped.about()
    merges = [about.pop("environment")["merges_on"] for about in both]
    assert merges == ["cpu" if where == "mapped" else "device", "cpu"]
    assert both[0] == both[1] | {"placement": where}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("about", "asked", "where"),
    [
        (None, "auto", "device"),
        (BEGUN | {"placement": "device"}, "auto", "device"),
        (BEGUN | {"placement": "mapped"}, "auto", "mapped"),
        (BEGUN | {"placement": "mapped"}, "pinned", "pinned"),
        (BEGUN, "auto", "mapped"),
    ],
)
def test_a_study_that_began_with_mapped_parents_goes_on_so(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    about: dict[str, Any] | None,
    asked: str,
    where: str,
) -> None:
    memories(monkeypatch, 8, 8)
    assert bench_of(tmp_path, about, parents=asked).placement.where == where


@pytest.mark.slow
def test_what_is_computed_once_is_kept_in_the_folder_that_the_study_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def built(**engine: Any) -> str:
        more = ", density: 0.37"
        bench = bench_of(tmp_path / "study", method="ties", more=more, **engine)
        return bench.build(bench.space.recipe({d.name: 0.4 for d in bench.space.dimensions}))

    plain = built()
    assert built(cache="../kept") == plain
    assert any((tmp_path / "kept").iterdir())
    monkeypatch.setattr(order_statistics, "ranked", lambda *a, **k: pytest.fail("computed again"))
    assert built(cache="../kept") == plain
