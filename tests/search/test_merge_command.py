"""What ``mergetune merge`` and ``moe`` take, say before they merge, and show while they do."""

from __future__ import annotations

import io
import json
import re

import pytest
import torch
import yaml

from merge_core import api
from search.views import writing
from search.views.terminal import PlainConsole
from tests.merge_core.mixture.mixtures import mixture
from tests.merge_core.recipes import DARE_TIES


@pytest.fixture
def recipe(own_family):
    file = own_family("llama") / "recipe.yaml"
    file.write_text(DARE_TIES)
    return file


def test_dry_run_says_what_will_be_written_and_writes_nothing(mergetune, recipe, tmp_path):
    out = tmp_path / "out"
    code, text, _ = mergetune("merge", recipe, out, "--dry-run", "--json")
    assert code == 0
    assert not out.exists()
    found = json.loads(text)
    assert mergetune("merge", recipe, out, "--shard-size", "20KB")[0] == 0
    files = list(out.glob("*.safetensors"))
    headers = sum(8 + int.from_bytes(file.read_bytes()[:8], "little") for file in files)
    assert found["weights_bytes"] == sum(file.stat().st_size for file in files) - headers
    assert found["files"] == 1
    again = mergetune("merge", recipe, tmp_path / "x", "--dry-run", "--json", "--shard-size=20KB")
    assert json.loads(again[1])["files"] == len(files) > 1
    code, text, _ = mergetune("merge", recipe, tmp_path / "x", "--dry-run")
    assert re.search(r"disk .* GB of weights in 1 file; .* free there\nmemory .* about", text)
    assert text.endswith("nothing is written\n")


def test_dry_run_refuses_what_the_merge_would(mergetune, recipe, tmp_path):
    code, _, err = mergetune("merge", recipe, recipe.parent, "--dry-run")
    assert code == 1
    assert "exists; choose another place or pass --overwrite" in err
    code, _, err = mergetune("moe", recipe, tmp_path / "out", "--dry-run")
    assert code == 1
    assert "has no experts and no moe" in err


def test_seed_is_the_one_of_the_recipe_that_is_written(mergetune, recipe, tmp_path):
    digests = {}
    for seed in ("0", "3"):
        code, text, _ = mergetune("merge", recipe, tmp_path / seed, "--seed", seed, "--json")
        assert code == 0
        digests[seed] = json.loads(text)["weights_digest"]
        assert yaml.safe_load((tmp_path / seed / "recipe.yaml").read_text()).get("seed", 0) == int(
            seed
        )
    assert digests["0"] != digests["3"]
    assert api.merge(tmp_path / "3" / "recipe.yaml", tmp_path / "again") == digests["3"]


def test_quiet_prints_nothing_but_errors(mergetune, recipe, tmp_path):
    assert mergetune("merge", recipe, tmp_path / "out", "--quiet") == (0, "", "")
    code, text, err = mergetune("merge", recipe, tmp_path / "out", "--quiet")
    assert (code, text) == (1, "")
    assert "exists" in err


def test_threads_are_those_of_torch(mergetune, recipe, tmp_path):
    before = torch.get_num_threads()
    try:
        assert mergetune("merge", recipe, tmp_path / "out", "--threads", "3")[0] == 0
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("size", ["5 apples", "0", "-1GB", "1PB"])
def test_size_that_is_none_is_refused(mergetune, recipe, tmp_path, size):
    code, _, err = mergetune("merge", recipe, tmp_path / "out", f"--shard-size={size}")
    assert code == 2
    assert "expected a size such as 500MB, 5GB or 2GiB" in " ".join(err.replace("│", " ").split())


def test_mixture_is_written_in_shards_and_foretold(mergetune, own_family, tmp_path):
    file = own_family("llama") / "moe.yml"
    file.write_text(yaml.safe_dump(mixture(dtype="float32")))
    code, text, _ = mergetune("moe", file, tmp_path / "out", "--dry-run", "--json")
    assert code == 0
    assert json.loads(text)["dtype"] == "float32"
    assert mergetune("moe", file, tmp_path / "out", "--shard-size", "50KB", "--quiet")[1] == ""
    assert (tmp_path / "out" / "model.safetensors.index.json").is_file()


def test_bytes_are_told_after_every_tensor_up_to_all(recipe, tmp_path):
    told = []
    api.merge(recipe, tmp_path / "out", watch=lambda *pair: told.append(pair))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert {every for _, every in told} == {told[-1][0]}


def test_off_a_terminal_lines_come_at_times_with_what_is_left(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(writing.time, "monotonic", lambda: now[0])
    with writing.written_bytes() as watch:
        for second, done in ((5, 1e9), (20, 2e9), (25, 3e9), (40, 4e9)):
            now[0] = second
            watch(int(done), 4 * 10**9)
    assert capsys.readouterr().err == "merged 2.00 of 4.00 GB  0m20s left\n"


def test_on_a_terminal_there_is_a_bar_with_bytes_and_time_left(monkeypatch):
    screen = io.StringIO()
    console = PlainConsole(file=screen, force_terminal=True, width=100)
    monkeypatch.setattr(writing, "ERR", console)
    with writing.written_bytes() as watch:
        watch(10**9, 4 * 10**9)
        watch(2 * 10**9, 4 * 10**9)
    assert re.search(r"merging .*(1|2)\.0/4\.0 GB", screen.getvalue())
