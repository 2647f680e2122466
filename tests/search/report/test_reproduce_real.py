"""`mergetune reproduce` of a real study in small: moved and changed models, an edited task."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from search.storage.locate import open_study
from search.trial import builder
from tests.search.real import QUICKSTART, run_whole, write_study

pytestmark = pytest.mark.slow
Call = Callable[..., tuple[Any, str, str]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models, tasks, and a finished study that names them by relative paths."""
    folder = tmp_path_factory.mktemp("zoo")
    for part in ("models", "tasks"):
        shutil.copytree(QUICKSTART / part, folder / part)
    study = write_study(folder / "small", models="../models", trials=2)
    study.write_text(study.read_text().replace(str(QUICKSTART / "tasks"), "../tasks"))
    run_whole(study)
    return folder


@pytest.fixture
def zoo(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "zoo")
    return tmp_path / "zoo"


def rows(call: Call, *arguments: object) -> tuple[Any, list[dict[str, Any]]]:
    code, out, err = call("reproduce", *arguments, "--json")
    assert out, err
    return code, json.loads(out)


def scaled(model: Path, tensor: str) -> None:
    weights = load_file(model / "model.safetensors")
    weights[tensor] = weights[tensor] * 2
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def test_models_that_moved_are_named_and_known_by_their_digest(mergetune: Call, zoo: Path) -> None:
    (zoo / "models" / "sort").rename(zoo / "elsewhere")
    study = zoo / "small"
    code, _, err = mergetune("reproduce", study, "--trial", "best")
    assert (code, "models/sort" in err) == (1, True)
    here = f"../models/sort={zoo / 'elsewhere'}"
    code, found = rows(mergetune, study, "--trial", "sample:3", "--model", here)
    assert (code, [row["verdict"] for row in found]) == (0, ["identical"] * 3)
    winner = open_study(str(study))[1].summary["winner"]["trial"]
    assert winner in [row["number"] for row in found]
    wrong = f"../models/sort={zoo / 'models' / 'add'}"
    code, _, err = mergetune("reproduce", study, "--model", wrong)
    assert code == 1
    assert f"--model {wrong}: holds other weights than the study saw: SHA-256 " in err
    code, _, err = mergetune("reproduce", study, "--model", f"../models/sorts={zoo}")
    assert "--model: the study has no model '../models/sorts'; it has " in err
    assert "did you mean '../models/sort'?" in err
    code, _, err = mergetune("reproduce", study, "--model", "../models/sort")
    assert "--model: expected NAME=PATH, got '../models/sort'" in err


def test_a_changed_parent_and_the_tensors_that_it_changes_are_named(
    mergetune: Call, zoo: Path
) -> None:
    scaled(zoo / "models" / "sort", "model.norm.weight")
    code, found = rows(mergetune, zoo / "small", "--trial", "best")
    assert (code, found[0]["verdict"]) == (1, "weights differ")
    assert found[0]["changed_parents"] == ["../models/sort"]
    assert found[0]["changed_tensors"] == {"../models/sort": ["model.norm.weight"]}
    assert found[0]["tensors"] == ["model.norm.weight"], "the winner's model of then is kept"
    shutil.rmtree(zoo / "small" / "results" / "best-model")
    code, found = rows(mergetune, zoo / "small", "--trial", "best")
    assert (code, found[0]["tensors"]) == (1, None)


def test_an_edited_task_is_named_and_how_far_it_moves_the_value(mergetune: Call, zoo: Path) -> None:
    (file,) = (zoo / "tasks").glob("*add*.yaml")
    file.write_text(file.read_text().replace("{{prompt}}", "{{prompt}} 1"))
    code, out, _ = mergetune("reproduce", zoo / "small", "--trial", "1")
    assert code == 1
    assert "scores differ: quickstart_add: " in out
    assert "changed tasks: quickstart_add" in out
    assert out.endswith("0 of 1 trials identical\n")


def test_a_real_search_done_again_has_the_same_trials(mergetune: Call, zoo: Path) -> None:
    code, out, _ = mergetune("reproduce", zoo / "small", "--search", "--json")
    found = json.loads(out)
    assert (code, found["verdict"], found["first"]) == (0, "identical", None)
    assert found["same"] == found["trials"] == len(open_study(str(zoo / "small"))[1].trials)
    scaled(zoo / "models" / "sort", "model.norm.weight")
    code, out, _ = mergetune("reproduce", zoo / "small", "--search")
    assert code == 1
    assert "2 of " in out
    assert "trial 2: weights differ: digest is " in out
    code, _, err = mergetune("reproduce", zoo / "small", "--search", "--trial", "1")
    assert (code, "cannot go with --trial" in err) == (2, True)


def test_a_run_with_another_torch_stops_in_one_line_until_it_is_accepted(
    mergetune: Call, zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builder.version
    monkeypatch.setattr(builder, "version", lambda name: "9" if name == "torch" else real(name))
    code, _, err = mergetune("run", zoo / "small", "--more", 1)
    assert (code, err.count("ran in another environment: torch was ")) == (1, 1)
    assert err.endswith("is 9. Scores of both are not mixed unasked: go on where it ran, or take "
                        "what is here with --accept-environment\n")  # fmt: skip
    code, _, err = mergetune("run", zoo / "small", "--more", 1, "--accept-environment")
    assert (code, "is 9: --accept-environment takes it" in err) == (0, True)
    _, record = open_study(str(zoo / "small"))
    assert [run["environment"]["torch"] == "9" for run in record.runs] == [False, True]
