"""Model files that change or go while a study runs: their scores are nobody's, and it goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from merge_core.errors import MergeError
from search.run.study import run
from tests.faults.same import assert_same, assert_settled, end_of
from tests.search.real import QUICKSTART, Quiet, run_whole, write_study


class Meddler(Quiet):  # type: ignore[no-untyped-call]
    """Does something when so many trials of this run are settled."""

    def __init__(self, work: Callable[[], object], after: int) -> None:
        self._work, self._left = work, after

    def settled(self, trial: Any) -> None:
        self._left -= 1
        if self._left == 0:
            self._work()


def study_with_models(folder: Path) -> Path:
    shutil.copytree(QUICKSTART / "models", folder / "models")
    return write_study(folder, models="models")


def changed_in_place(file: Path) -> None:
    """Write other weights of the same size, and put the time back."""
    state = file.stat()
    with file.open("r+b") as stream:
        stream.seek(-4096, os.SEEK_END)
        stream.write(bytes(4096))
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.slow
def test_a_study_whose_models_change_and_go_is_the_unbroken_one_once_they_are_back(
    tmp_path: Path,
) -> None:
    unbroken, broken = (study_with_models(tmp_path / name) for name in ("unbroken", "broken"))
    run_whole(unbroken)
    end = end_of(str(unbroken))
    weights = broken.parent / "models" / "sort" / "model.safetensors"
    for change, after in ((changed_in_place, 5), (Path.unlink, 3)):
        with pytest.raises(MergeError, match="was changed while the study ran"):
            run(broken, Meddler(lambda c=change: c(weights), after), lambda: False)
        assert_settled(end_of(str(broken)), end)
        with pytest.raises(MergeError, match="sort"):
            run_whole(broken)  # nor does the next run take it
        shutil.copy(QUICKSTART / "models" / "sort" / weights.name, weights)
    run_whole(broken)
    assert_same(str(broken), end)
