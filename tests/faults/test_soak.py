"""A real study that is killed, filled up and doubled at random ends as an unbroken one."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.soak import Asked, soak, storage


@pytest.mark.slow
def test_a_real_study_that_is_broken_at_random_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    asked = Asked("sqlite", workers=1, kills=4, full=1, seed=1, sampler="auto")
    with storage("sqlite") as url:
        counts = soak(tmp_path, asked, url)
    assert (counts["kills"], counts["full"]) == (4, 1)
