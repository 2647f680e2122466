"""A study that is killed, filled up and doubled at random ends as an unbroken one; see soak."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak import soak


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("sampler", ["cma-es", "auto"])
def test_a_study_that_is_broken_at_random_ends_as_an_unbroken_one(
    tmp_path: Path, sampler: str
) -> None:
    counts = soak(tmp_path, kills=1, full=1, seed=1, sampler=sampler)
    assert counts["killed"] >= 1
    assert counts["full"] >= 1
    assert counts["ended"]
