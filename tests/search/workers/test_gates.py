"""Routers that were trained on one machine, for workers on others."""

from types import SimpleNamespace

import pytest

from merge_core.recipe import read as recipe_reader
from merge_core.recipe.yaml_document import parse_all
from search.trial.router_file import with_file
from search.trial.worker import Job, Result
from search.workers import gates

MIXTURE = """
merge_method: linear
models:
  - {model: models/add, parameters: {weight: 1.0}}
moe:
  gate_mode: trained
  experts: [{source_model: models/add}, {source_model: models/sort}]
dtype: float32
"""
NAME = "results/gates/0123.safetensors"


@pytest.fixture
def recipe():
    return recipe_reader.of_documents(parse_all(MIXTURE, "recipe.yaml"))


def test_files_go_with_the_jobs_that_build_from_them(recipe, tmp_path):
    (tmp_path / NAME).parent.mkdir(parents=True)
    (tmp_path / NAME).write_bytes(b"routers")
    trained = with_file(recipe, NAME)
    assert gates.files_of((Job(trained, "select"), 3), tmp_path) == {NAME: b"routers"}
    assert gates.files_of((Job(recipe, "search"),), tmp_path) == {}
    assert gates.files_of([Result(recipe=trained), Result()], tmp_path / "elsewhere") == {}


def test_files_are_written_once_and_no_file_of_another_kind_is_sent(recipe, tmp_path):
    gates.keep({NAME: b"routers"}, tmp_path)
    gates.keep({NAME: b"others of the same name"}, tmp_path)
    assert (tmp_path / NAME).read_bytes() == b"routers"
    for name in ("secret", "results/../gates/secret", "gates/secret"):  # a stranger's study
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"not to be sent")
        assert gates.files_of([Job(with_file(recipe, name), "search")], tmp_path) == {}


def test_an_actor_keeps_what_comes_with_a_job_and_sends_what_it_has_made(recipe, tmp_path):
    on_ray = pytest.importorskip("search.workers.on_ray", reason="install mergetune[ray]")
    made = with_file(recipe, "results/gates/4567.safetensors")

    def run(job):
        assert (tmp_path / NAME).read_bytes() == b"routers"
        gates.keep({made.moe.gates: b"new ones"}, tmp_path)
        return Result(recipe=made)

    desk = on_ray._Desk()
    desk._worker, desk._folder = SimpleNamespace(run=run), tmp_path
    found, files = desk.ask("run", (Job(recipe, "search"),), {NAME: b"routers"}).given()
    assert found.recipe is made
    assert files == {made.moe.gates: b"new ones"}
