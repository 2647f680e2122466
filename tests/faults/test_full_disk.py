"""A disk that is full: one line, what is settled stays, and with room the study goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from merge_core.errors import MergeError, MergeWarning
from merge_core.merge.cache_folder import CacheFolder
from search.report import files
from search.run import unforeseen
from search.spec.study_file import StudySpec
from search.storage.locate import open_study, winner
from search.storage.open import open_record
from search.trial.builder import Builder
from tests.faults.children import REFUSED, child, ended
from tests.faults.same import End, assert_same, assert_settled, end_of
from tests.faults.whole import TEXT, Toy, run
from tests.search.real import run_whole, without_costs, write_study

Study = Callable[..., StudySpec]
Disk = Callable[[int], Path]
KB, MB = 1 << 10, 1 << 20


def fill(folder: Path, left: int) -> Path:
    """Fill a folder's disk but for so many bytes; return the file to remove."""
    ballast = folder / "ballast"
    found = os.statvfs(folder)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - left)
    return ballast


@pytest.mark.slow
def test_commits_that_meet_a_full_disk_end_runs_and_lose_nothing_until_one_has_room(
    study: Study, unbroken: End
) -> None:
    spec = study(TEXT)
    refused = 0
    for limit in count((spec.results / "study.db").stat().st_size, 8 * KB):
        code = ended(child(lambda: run(spec), limit))
        if code == 0:
            break
        assert code == REFUSED
        refused += 1
        assert_settled(end_of(open_record(spec.storage, spec.name)), unbroken)
    assert refused >= 3
    assert_same(spec.storage, unbroken)


@pytest.mark.slow
def test_results_that_meet_a_full_disk_are_whole_or_absent_and_there_when_it_has_room(
    finished: Path, disk: Disk
) -> None:
    room = disk(16 * MB)
    folder = Path(shutil.copytree(finished, room / "small"))
    results, study = folder / "results", folder / "study.yaml"
    before = {file.name: file.read_bytes() for file in results.iterdir() if file.is_file()}
    end, names = end_of(str(study)), ("report.html", "report.md", "summary.json", "best.yaml")
    there: list[int] = []
    for left in (0, 40 * KB, 300 * KB, MB):
        for name in names:
            (results / name).unlink(missing_ok=True)
        shutil.rmtree(results / "best-model", ignore_errors=True)
        ballast = fill(room, left)
        with pytest.raises(MergeError, match=r"No space left|disk is full|disk I/O") as told:
            run_whole(study)
        assert "\n" not in str(told.value)
        ballast.unlink()
        assert_same(str(study), end)
        assert not (results / "best-model").exists()
        written = [name for name in names if (results / name).exists()]
        for name in written[:3]:  # the recipe names models from where it lies
            assert (results / name).read_bytes() == (finished / "results" / name).read_bytes()
        assert not list(results.glob(".*.part"))
        there.append(len(written))
    assert there[0] == 0
    assert there[-1] == 4
    assert run_whole(study)
    assert {file.name for file in results.iterdir() if file.is_file()} >= {*before}
    model = "best-model/model.safetensors"
    assert (results / model).read_bytes() == (finished / "results" / model).read_bytes()


@pytest.mark.slow
def test_an_export_that_meets_a_full_disk_leaves_what_was_there(finished: Path, disk: Disk) -> None:
    room = disk(4 * MB)
    spec, record = open_study(str(finished))
    trial, builder = winner(record)[0], Builder(spec, record.about)
    files.export(builder, trial, room / "out")
    before = {file.name: file.read_bytes() for file in (room / "out").iterdir()}
    for left in (0, 64 * KB):
        ballast = fill(room, left)
        with pytest.raises(MergeError, match=r"out: cannot be written: No space left"):
            files.export(builder, trial, room / "out", overwrite=True)
        ballast.unlink()
        assert [path.name for path in room.iterdir()] == ["out"]
        assert {file.name: file.read_bytes() for file in (room / "out").iterdir()} == before


@pytest.mark.slow
def test_a_cache_whose_disk_becomes_full_is_told_once_and_changes_nothing(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, more = disk(MB), ", density: {low: 0.3, high: 1.0, step: 0.1}"
    how = {"method": "ties", "sampler": "random", "trials": 1, "more": more}
    plain, cached = (write_study(tmp_path / name, **how) for name in ("plain", "cached"))
    cached.write_text(cached.read_text().replace("{device: cpu", f"{{device: cpu, cache: {room}"))
    write, written = CacheFolder.write, count(1)

    def meets_a_full_disk(folder: CacheFolder, name: str, payload: bytes) -> None:
        if next(written) == 5:
            fill(room, 0)
        write(folder, name, payload)

    monkeypatch.setattr(CacheFolder, "write", meets_a_full_disk)
    with pytest.warns(MergeWarning, match="kept there: No space left.*the study goes on") as told:
        found = run_whole(cached)
    assert len(told) == 1
    kept = [path.name for path in room.iterdir() if path.name != "ballast"]
    assert (len(kept), any(name.startswith(".") for name in kept)) == (4, False)
    assert without_costs(found) == without_costs(run_whole(plain))


def test_a_traceback_that_finds_no_room_is_told_in_the_line_that_names_what_broke(
    study: Study, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(pool: str) -> None:
        raise ZeroDivisionError("a bug of a plugin")

    def meets_a_full_disk(*said: Any) -> Path:
        fill(spec.results, 0)
        return kept(*said)

    kept = unforeseen._kept
    monkeypatch.setattr(unforeseen, "_kept", meets_a_full_disk)
    spec = study(TEXT, folder=str(disk(MB)))
    with pytest.raises(MergeError) as told:
        run(spec, Toy(spec, broken))
    assert "a bug of a plugin" in str(told.value)
    assert "its traceback could not be kept: No space left on device" in str(told.value)
