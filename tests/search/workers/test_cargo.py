"""What a worker of a study reads, and that it works the same where only copies of that are."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from search.space.starting_points import baselines
from search.spec import study_file
from search.trial.worker import Job, Worker
from search.workers.cargo import RESULTS, Cargo, opening_at
from search.workers.ferry import Ferry, Shore
from search.workers.opening import Opening
from search.workers.permissions import Permissions
from search.workers.sameness import deciding
from tests.search.real import QUICKSTART


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MERGETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


STUDY = """
name: away
recipe:
  merge_method: linear
  models:
    - {{model: models/add, parameters: {{weight: {{low: 0.0, high: 1.0}}}}}}
    - {{model: {outside}, parameters: {{weight: 0.5}}}}
  dtype: float32
score:
  - {{evaluator: lm_eval, task: quickstart_add, include_path: {tasks}}}
  - evaluator: exact_match
    file: ../questions.jsonl
    prompt: "{{{{ q }}}}"
    answer: a
    max_tokens: 4
items: {{search: 6, select: 4, report: 6}}
baselines: {{mine: mine.yaml}}
engine: {{device: cpu, threads: 1}}
"""
MINE = """
merge_method: linear
models:
  - {model: models/sort, parameters: {weight: 1.0}}
dtype: float32
"""


@pytest.fixture
def there(tmp_path):
    """A study with files within its folder, beside it, and elsewhere."""
    folder = tmp_path / "there" / "study"
    for name in ("add", "sort"):
        shutil.copytree(QUICKSTART / "models" / name, folder / "models" / name)
    shutil.copytree(QUICKSTART / "models" / "base", tmp_path / "far" / "base")
    shutil.copytree(QUICKSTART / "tasks", tmp_path / "far" / "tasks")
    rows = [{"q": f"add 1+{i}=", "a": str(i + 1)} for i in range(12)]
    (folder.parent / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    far = tmp_path / "far"
    (folder / "study.yaml").write_text(STUDY.format(outside=far / "base", tasks=far / "tasks"))
    (folder / "mine.yaml").write_text(MINE)
    (folder / RESULTS).mkdir()
    (folder / RESULTS / "study.db").write_bytes(b"not to be sent")
    return folder


def opening_of(folder):
    spec = study_file.read(folder)
    return Opening(spec.data, str(spec.folder), None, Permissions(), directory=os.getcwd())


def test_all_files_of_a_study_are_found_and_no_others(there):
    cargo = Cargo.of(opening_of(there))
    names = {Path(file.name).name for file in cargo.study.files}
    assert {"questions.jsonl", "mine.yaml", "add.jsonl", "add.yaml"} <= names
    assert not {"study.db", "model.safetensors"} & names
    assert set(cargo.models) == {"models/add", "models/sort", str(there.parents[1] / "far/base")}
    files = {file.name for file in cargo.models["models/add"].files}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files


def test_a_folder_of_tasks_that_is_the_studys_own_goes_without_models_and_results(there):
    text = (there / "study.yaml").read_text()
    shutil.copytree(QUICKSTART / "tasks", there / "deeper")
    far = there.parents[1] / "far" / "tasks"
    (there / "study.yaml").write_text(text.replace(f"include_path: {far}", "include_path: ."))
    names = {file.name.rpartition("study/")[2] for file in Cargo.of(opening_of(there)).study.files}
    assert {"study.yaml", "mine.yaml", "deeper/add.jsonl"} <= names
    assert not any(name.startswith((RESULTS, "models")) for name in names)


class Machine(Shore):
    """Another machine, from which all that the coordinator has is hidden."""

    received = 0

    def receive(self, sealed, pieces):
        self.begin(sealed)
        for number, piece in pieces:
            self.take(number, piece)
        self.finish()
        self.received += 1

    def lacks(self, parcels):
        return list(range(len(parcels)))


@pytest.fixture
def brought(there, monkeypatch):
    """The study's opening on a machine that has got all, where nothing else is any more."""
    opening = opening_of(there)
    home = Worker(opening.study, Path(opening.folder))
    jobs = [Job(x.recipe, "search") for x in baselines(home.spec, home.builder.space)[:3]]
    wanted = [home.run(job) for job in jobs], deciding(home)
    ferry, machine = Ferry(Cargo.of(opening)), Machine()
    kept = "search.workers.parcels.Sealed.is_equal"
    monkeypatch.setattr(kept, lambda self: False)
    places = ferry.places("one", machine)
    assert ferry.places("one", machine) is places
    for folder in (there.parent, there.parents[1] / "far"):
        shutil.rmtree(folder)
    return opening_at(opening, ferry.cargo, places), jobs, wanted, machine


@pytest.mark.slow
def test_a_machine_without_any_of_the_files_gives_the_same_results(brought):
    opening, jobs, (results, decided), machine = brought
    assert machine.received == 4  # the study's files and three models, once
    worker = opening.open()
    assert deciding(worker) == decided
    for job, wanted in zip(jobs, results, strict=True):
        found = worker.run(job)
        assert found.failure is None
        assert (found.weights_digest, found.scores) == (wanted.weights_digest, wanted.scores)


def test_what_is_where_the_coordinator_has_it_is_opened_there(there):
    opening = opening_of(there)
    ferry = Ferry(Cargo.of(opening))
    assert ferry.places("here", Shore()) == {}
    assert opening_at(opening, ferry.cargo, {}) == opening


def test_references_stay_as_they_are_written(there):
    opening = opening_of(there)
    cargo = Cargo.of(opening)
    place = Path("/cache/x")
    moved = opening_at(opening, cargo, dict.fromkeys(cargo.parcels, place))
    assert moved.study["recipe"] == opening.study["recipe"]
    assert moved.places == dict.fromkeys(cargo.models, str(place))
    mirrored = f"/cache/x{there.parents[1]}"
    assert moved.study["score"][0]["include_path"] == f"{mirrored}/far/tasks"
    assert moved.study["score"][1] == opening.study["score"][1]
    assert moved.folder == f"{mirrored}/there/study"
    assert yaml.safe_dump(moved.study)  # plain, still
