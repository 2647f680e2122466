import shutil
from pathlib import Path

import pytest

from tests.search.real import run_whole

QUICKSTART = Path(__file__).resolve().parents[2] / "studies" / "quickstart"


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a minute each on two quiet cores
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_winner_beats_best_parent_and_uniform_merge_with_the_whole_interval(tmp_path, seed):
    for name in ("models", "tasks"):
        shutil.copytree(QUICKSTART / name, tmp_path / name)
    text = (QUICKSTART / "study.yaml").read_text()
    assert text.count("seed: 0") == 1
    (tmp_path / "study.yaml").write_text(text.replace("seed: 0", f"seed: {seed}"))
    summary = run_whole(tmp_path)
    winner = summary["winner"]
    assert winner["minus_best_parent"]["low"] > 0
    assert winner["minus_uniform"]["low"] > 0
    (best,) = (c for c in summary["candidates"] if c["name"] == "winner")
    assert best["report"]["mean"] > 0.75  # no sampler without gradients was seen to reach that
