"""What ``mergetune merge`` and ``moe`` take, say before they merge, and show while they do."""

from __future__ import annotations

import io
import json
import re

import pytest
import torch
import yaml
from torch import Tensor

from merge_core import api
from merge_core.output.model_folder import Writing
from search import options
from search.views import share_done
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
    how = Writing(watch=lambda *pair: told.append(pair))
    api.merge(recipe, tmp_path / "out", how=how)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert {every for _, every in told} == {told[-1][0]}


def test_off_a_terminal_lines_come_at_times_with_what_is_left(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(share_done.time, "monotonic", lambda: now[0])
    with share_done.share_done("merging", in_bytes=True) as watch:
        for second, done in ((5, 1e9), (20, 2e9), (25, 3e9), (40, 4e9)):
            now[0] = second
            watch(int(done), 4 * 10**9)
    assert capsys.readouterr().err == "merging: 2.00 of 4.00 GB, 0m20s left\n"


def test_on_a_terminal_there_is_a_bar_with_bytes_and_time_left(monkeypatch):
    screen = io.StringIO()
    console = PlainConsole(file=screen, force_terminal=True, width=100)
    monkeypatch.setattr(share_done, "ERR", console)
    with share_done.share_done("merging", in_bytes=True) as watch:
        watch(10**9, 4 * 10**9)
        watch(2 * 10**9, 4 * 10**9)
    assert re.search(r"merging .*(1|2)\.0/4\.0 GB", screen.getvalue())


def test_a_device_that_is_not_there_is_one_line(mergetune, recipe, tmp_path):
    for command in (["merge", recipe, tmp_path / "out"], ["inspect", recipe]):
        code, _, err = mergetune(*command, "--device", "cuda:77")
        assert code == 1
        assert err.startswith("mergetune: --device: 'cuda:77' cannot be used on this machine: ")
        assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cpu:0", ""])
def test_what_names_no_device_is_refused(mergetune, recipe, tmp_path, device):
    code, _, err = mergetune("merge", recipe, tmp_path / "out", "--device", device)
    assert code == 2
    assert "expected cpu, cuda or cuda:N, got" in err


def test_device_reaches_the_merge_and_the_measuring(mergetune, recipe, tmp_path, monkeypatch):
    """The CPU is named, and a device that is pretended to be there."""
    assert mergetune("merge", recipe, tmp_path / "cpu", "--device", "cpu")[0] == 0
    monkeypatch.setattr(options, "check_device", lambda device, where: None)
    monkeypatch.setattr(Tensor, "to", lambda x, *there: went.append(there) or x)
    for command in (["merge", recipe, tmp_path / "out"], ["inspect", recipe]):
        went: list[object] = []
        assert mergetune(*command, "--device", "cuda:1")[0] == 0
        assert ("cuda:1",) in went


def test_inspection_is_quiet_and_writes_its_page(mergetune, recipe, tmp_path):
    page = tmp_path / "page.html"
    assert mergetune("inspect", recipe, "--quiet", "--threads", 1, "--html", page) == (0, "", "")
    assert "<html" in page.read_text()
    assert json.loads(mergetune("inspect", recipe, "--quiet", "--json")[1])["parameters"] > 0
