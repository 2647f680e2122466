"""A real study, bundled, taken elsewhere, and run on there."""

from __future__ import annotations

import gzip
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mergetune as face
from merge_core.errors import MergeError
from search.bundle.write import write
from search.storage.locate import open_study
from tests.search.real import QUICKSTART, run_whole, write_study

pytestmark = pytest.mark.slow
Command = Callable[..., tuple[Any, str, str]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of models that are named by absolute paths, bundled beside them."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(QUICKSTART / "models", home / "study" / "models")
    study = write_study(home / "study", trials=1, models=home / "study" / "models")
    run_whole(study)
    write(str(study), home / "small.zip")
    return home / "small.zip"


@pytest.fixture
def moved(bundle: Path, tmp_path: Path) -> Path:
    """The bundle on another machine: the models lie where they lay, seen from it."""
    (tmp_path / "there").mkdir()
    shutil.copytree(bundle.parent / "study" / "models", tmp_path / "there" / "models")
    shutil.copy(bundle, tmp_path / "there" / "small.zip")
    return tmp_path / "there" / "small.zip"


def test_own_questions_are_in_a_bundle_as_files_and_item_by_item(bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        names = archive.namelist()
        rows = [json.loads(x) for x in gzip.decompress(archive.read("items.jsonl.gz")).splitlines()]
        manifest = json.loads(archive.read("manifest.json"))
        study = archive.read("study.yaml").decode()
    tasks = {Path(name).name for name in names if name.startswith("files/")}
    assert tasks == {"add.yaml", "add.jsonl", "sort.yaml", "sort.jsonl"}
    assert "include_path: files/1/tasks" in study
    assert "model: ./models/add" in study
    _, record = open_study(str(bundle))
    assert record.about is not None
    assert len(rows) == 48
    assert all(row["text"].endswith("=") for row in rows if row["task"] == "quickstart_add")
    assert manifest["texts"]["quickstart_add"]["why"] == "files of the study's owner"
    assert {*manifest["parents"]} == {"./models/base", "./models/add", "./models/sort"}
    assert {"recipes/best.yaml", "report.html", "report.md", "summary.json"} <= {*names}
    assert not [name for name in names if name.endswith(".safetensors")]


def test_a_bundle_is_read_as_it_is_and_reproduced_and_run_where_it_lies(
    mergetune: Command, moved: Path
) -> None:
    code, out, _ = mergetune("best", moved, "--json")
    assert code == 0
    assert json.loads(out)["trial"] == face.open_study(moved).report.trial["winner"]
    assert mergetune("trials", moved)[0] == 0
    assert mergetune("report", moved)[0] == 1
    assert mergetune("report", moved, "--out", moved.parent / "report")[0] == 0
    assert {x.name for x in moved.parent.iterdir()} == {"models", "small.zip", "report"}
    code, out, err = mergetune("reproduce", moved, "--trial", "best")
    assert (code, out.splitlines()[0].split(": ")[1]) == (0, "identical")
    assert "is unpacked in" in err
    code, _, err = mergetune("run", moved, "--more", 1)
    assert code == 0
    assert "was unpacked before" in err
    folder = moved.with_suffix("")
    assert len(open_study(str(folder))[1].trials) == len(open_study(str(moved))[1].trials) + 1
    assert (folder / "results" / "best-model" / "model.safetensors").is_file()
    assert mergetune("export", moved, moved.parent / "model", "--trial", 1)[0] == 0


def test_a_bundle_without_its_models_says_where_they_are_looked_for(
    mergetune: Command, bundle: Path, tmp_path: Path
) -> None:
    shutil.copy(bundle, tmp_path / "small.zip")
    code, _, err = mergetune("reproduce", tmp_path / "small.zip")
    assert code == 1
    assert f"no such folder in {tmp_path / 'small'} or {tmp_path}" in err


def test_a_bundle_without_texts_has_no_question_and_no_answer(bundle: Path, tmp_path: Path) -> None:
    study, out = bundle.parent / "study", tmp_path / "bare.zip"
    write(str(study), out, texts=False)
    with zipfile.ZipFile(out) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        assert not [name for name in archive.namelist() if name.endswith("add.jsonl")]
    assert {*manifest["left_out"]} == {"files/1/tasks/add.jsonl", "files/1/tasks/sort.jsonl"}
    for file, texts in ((out, False), (bundle, True)):
        record = open_study(str(file))[1]
        assert bool(record.samples) == texts
        assert any(record.said.answers(t.number, "report") for t in record.trials) == texts


def test_a_task_file_with_an_absolute_path_is_named(tmp_path: Path) -> None:
    shutil.copytree(QUICKSTART / "tasks", tasks := tmp_path / "study" / "tasks")
    study = write_study(tmp_path / "study", trials=1)
    study.write_text(study.read_text().replace(str(QUICKSTART / "tasks"), "tasks"))
    file = tasks / "add.yaml"
    run_whole(study)
    file.write_text(file.read_text().replace("add.jsonl", str(tasks / "add.jsonl")))
    with pytest.raises(MergeError, match=r"add\.yaml:\d+: names a file by an absolute path"):
        write(str(study), tmp_path / "small.zip")


def test_a_bundle_is_compared_with_the_study_that_went_on(
    mergetune: Command, moved: Path, bundle: Path
) -> None:
    code, out, _ = mergetune("compare", bundle, bundle.parent / "study", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["items"] == 20
    assert found["difference"]["estimate"] == 0
    assert found["sentences"][0] == "Both winners have the same weights."
    code, out, _ = mergetune("compare", bundle, bundle.parent / "study")
    assert code == 0
    assert "better by" in out
    assert "No difference between the winners" in out


def test_a_bundle_whose_models_lie_elsewhere_is_told_where(
    mergetune: Command, bundle: Path, tmp_path: Path
) -> None:
    shutil.copy(bundle, tmp_path / "small.zip")
    models = bundle.parent / "study" / "models"
    said = [f"./models/{name}={models / name}" for name in ("base", "add", "sort")]
    options = [part for pair in said for part in ("--model", pair)]
    code, out, err = mergetune("reproduce", tmp_path / "small.zip", "--trial", "best", *options)
    assert (code, "identical" in out) == (0, True), err
