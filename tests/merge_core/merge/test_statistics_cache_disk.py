"""What is computed once of parents, kept in a folder for other processes."""

import re

import pytest
import torch

from merge_core.contract import Cut
from merge_core.errors import CheckpointError
from merge_core.merge import statistics_cache_disk
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


def test_other_weights_tensors_names_code_and_devices_have_other_files(folder, monkeypatch):
    parents, here = {"m": Parent("a")}, Saved(folder)
    found = {
        here.file("x", OF, parents),
        here.file("y", OF, parents),
        here.file("x", OF[1:], parents),
        here.file("x", (None, Operand("m", "v")), parents),
        here.file("x", OF, {"m": Parent("b")}),
        Saved(folder, "cuda:0").file("x", OF, parents),
    }
    monkeypatch.setattr(statistics_cache_disk, "_source", lambda: "other code")
    found.add(here.file("x", OF, parents))
    assert len(found) == 7


def test_same_weights_under_another_name_have_the_same_file(folder):
    here = Saved(folder)
    one = here.file("x", OF, {"m": Parent("a")})
    assert one == here.file("x", (None, Operand("n", "w")), {"n": Parent("a")})


def test_what_depends_on_knobs_is_not_kept(folder):
    known = known_of(folder)
    known.of_tensors(("cut", 0.37), OF, lambda: 1.0)
    known.of_tensors("direction", OF, lambda: 1.0, version=(0.1, 0.2))
    assert files(folder) == {}


def test_damaged_file_is_named(folder):
    known_of(folder).of_tensors("x", OF, lambda: [1.0, 2.0])
    ((file, whole),) = files(folder).items()
    for content in (b"", whole[:40], b"no value at all"):
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match=f"^{re.escape(str(file))}: .*delete the file$"):
            known_of(folder).of_tensors("x", OF, refused)


def test_file_that_holds_code_is_refused(folder):
    known_of(folder).of_tensors("x", OF, lambda: 1.0)
    (file,) = files(folder)
    torch.save(re.compile("x"), file)
    with pytest.raises(CheckpointError, match="delete the file"):
        known_of(folder).of_tensors("x", OF, refused)


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
