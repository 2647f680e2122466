"""What is computed once of parents, kept in a folder for other processes."""

import errno
import io
import os
import re
from pathlib import Path

import pytest
import torch

from merge_core.contract import Cut
from merge_core.errors import MergeWarning
from merge_core.merge import cache_folder, statistics_cache_disk
from merge_core.merge.cache_folder import CacheFolder
from merge_core.merge.statistics_cache import Known
from merge_core.merge.statistics_cache_disk import Saved
from merge_core.output.live_model import Candidate
from merge_core.plan.steps import Operand
from tests.merge_core import recipes
from tests.merge_core.conftest import change

OF = (None, Operand("m", "w"))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "kept"


class Parent:
    def __init__(self, digest):
        self.digest = digest


def known_of(folder):
    return Known(saved=Saved(folder)).of({"m": Parent("a")})


def files(folder):
    return {file: file.read_bytes() for file in folder.glob("*")}


def refused():
    pytest.fail("computed again")


@pytest.mark.parametrize(
    "value",
    [1.5, [1.0, [2.0]], {3: Cut(0.5, 7), 4: Cut(0.25, 0)}, (Cut(0.5, 7), 1.0)],
    ids=["number", "lists", "cuts", "tuple"],
)
def test_value_comes_back_as_it_was(folder, value):
    assert known_of(folder).of_tensors("x", OF, lambda: value) == value
    assert known_of(folder).of_tensors("x", OF, refused) == value


def test_tensors_come_back_to_the_bit(folder):
    value = [torch.tensor([float("nan"), -0.0, 1e-45]), torch.ones(2, 3, dtype=torch.float16)]
    known_of(folder).of_tensors("x", OF, lambda: value)
    back = known_of(folder).of_tensors("x", OF, refused)
    assert [x.dtype for x in back] == [torch.float32, torch.float16]
    assert back[0].view(torch.int32).equal(value[0].view(torch.int32))
    assert back[1].equal(value[1])


def test_other_weights_tensors_names_code_and_devices_have_other_names(folder, monkeypatch):
    parents, here = {"m": Parent("a")}, Saved(folder)
    found = {
        here.name("x", OF, parents),
        here.name("y", OF, parents),
        here.name("x", OF[1:], parents),
        here.name("x", (None, Operand("m", "v")), parents),
        here.name("x", OF, {"m": Parent("b")}),
        Saved(folder, "cuda:0").name("x", OF, parents),
    }
    monkeypatch.setattr(statistics_cache_disk, "_source", lambda: "other code")
    found.add(here.name("x", OF, parents))
    assert len(found) == 7


def test_same_weights_under_another_name_have_the_same_name(folder):
    here = Saved(folder)
    one = here.name("x", OF, {"m": Parent("a")})
    assert one == here.name("x", (None, Operand("n", "w")), {"n": Parent("a")})


def test_what_depends_on_knobs_is_not_kept(folder):
    known = known_of(folder)
    known.of_tensors(("cut", 0.37), OF, lambda: 1.0)
    known.of_tensors("direction", OF, lambda: 1.0, version=(0.1, 0.2))
    assert files(folder) == {}


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:40],
        lambda whole: whole[:-1],
        lambda whole: whole + b"x",
        lambda whole: b"no value at all",
        lambda whole: whole[: len(whole) // 2] + b"\x55" + whole[len(whole) // 2 + 1 :],
        lambda whole: cache_folder._head("0" * 64, b"x") + b"x",
    ],
    ids=["empty", "head", "cut", "longer", "other", "flipped", "of another name"],
)
def test_damaged_file_is_made_anew(folder, damage):
    value = torch.arange(100)
    known_of(folder).of_tensors("x", OF, lambda: value)
    ((file, whole),) = files(folder).items()
    file.write_bytes(damage(whole))
    calls = []
    assert known_of(folder).of_tensors("x", OF, lambda: calls.append(1) or value).equal(value)
    assert calls == [1]
    assert files(folder) == {file: whole}
    assert known_of(folder).of_tensors("x", OF, refused).equal(value)


@pytest.mark.parametrize("payload", [b"", b"no value", b"PK\x05\x06" + bytes(18)])
def test_whole_file_without_a_value_is_made_anew(folder, payload):
    name = Saved(folder).name("x", OF, {"m": Parent("a")})
    CacheFolder(folder).write(name, payload)
    assert known_of(folder).of_tensors("x", OF, lambda: 1.5) == 1.5
    assert known_of(folder).of_tensors("x", OF, refused) == 1.5


def test_file_that_holds_code_is_made_anew_and_its_code_does_not_run(folder, tmp_path):
    class Runs:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    buffer = io.BytesIO()
    torch.save(Runs(), buffer)
    name = Saved(folder).name("x", OF, {"m": Parent("a")})
    CacheFolder(folder).write(name, buffer.getvalue())
    assert known_of(folder).of_tensors("x", OF, lambda: 1.0) == 1.0
    assert known_of(folder).of_tensors("x", OF, refused) == 1.0
    assert not (tmp_path / "ran").exists()


def unusable(kind, folder, monkeypatch):
    """Make a folder that cannot be written to."""
    if kind == "file":
        folder.write_text("here")
    else:
        code = {"full": errno.ENOSPC, "read-only": errno.EROFS}[kind]

        def fail(*_):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(CacheFolder, "write", fail)


@pytest.mark.parametrize("kind", ["file", "full", "read-only"])
@pytest.mark.slow
def test_folder_that_cannot_be_used_is_told_once_and_fails_nothing(
    folder, planned, monkeypatch, kind
):
    unusable(kind, folder, monkeypatch)
    plan = planned(recipes.TIES).plan
    with pytest.warns(MergeWarning, match=f"^{re.escape(str(folder))}: .* the study goes on") as w:
        digest = Candidate(saved=Saved(folder)).build(plan)
    assert len(w) == 1
    assert digest == Candidate().build(plan)


def test_entry_that_is_no_file_is_passed_over(folder):
    name = Saved(folder).name("x", OF, {"m": Parent("a")})
    os.makedirs(folder)
    os.mkfifo(folder / f"{name}.pt")
    assert known_of(folder).of_tensors("x", OF, lambda: 1.0) == 1.0
    assert known_of(folder).of_tensors("x", OF, refused) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("name", recipes.RECIPES)
def test_another_process_builds_the_same_candidate_from_the_folder(folder, planned, name):
    usual = planned(recipes.RECIPES[name])
    digest = Candidate().build(usual.plan)
    assert Candidate(saved=Saved(folder)).build(usual.plan) == digest
    kept = files(folder)
    assert Candidate(saved=Saved(folder)).build(planned(recipes.RECIPES[name]).plan) == digest
    assert files(folder) == kept


@pytest.mark.slow
def test_candidate_of_changed_parents_does_not_take_what_was_kept(folder, planned, own_family):
    first = Candidate(saved=Saved(folder)).build(planned(recipes.TIES).plan)
    before, root = files(folder), own_family()
    change(root / "one", model__norm__weight=torch.linspace(-1, 1, 16))
    other = planned(recipes.TIES, root=root)
    found = Candidate(saved=Saved(folder)).build(other.plan)
    assert found == other.build()[0]
    assert found != first
    assert before.keys() < files(folder).keys()


def test_kept_ranks_are_not_computed_again(folder, planned, monkeypatch):
    text = """
merge_method: della
base_model: base
models:
  - {model: one, parameters: {density: 0.5, weight: 0.4}}
  - {model: two, parameters: {density: 0.6, weight: 0.7}}
"""
    digest = Candidate(saved=Saved(folder)).build(planned(text).plan)
    again, usual = (
        planned(text.replace("0.4", "0.45")),
        planned(text.replace("0.4", "0.45")).build(),
    )
    monkeypatch.setattr(torch.Tensor, "sort", lambda *a, **k: refused())
    found = Candidate(saved=Saved(folder)).build(again.plan)
    assert found == usual[0]
    assert found != digest
