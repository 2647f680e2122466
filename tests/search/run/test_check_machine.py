"""`check` looks for the study's device and storage, and compares its items with the window."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from search.run import check_machine
from search.run.check import check
from search.storage.open import open_record
from tests.search.run.test_check_tasks import (  # noqa: F401
    ASK,
    CONFIG,
    folder,
    problems,
    study,
)
from tests.servers import free_port


def test_nothing_is_stored_yet_and_nothing_is_made_for_that(folder: Path) -> None:  # noqa: F811
    facts = check(study(folder, ASK), tasks=True).facts
    assert (facts["device"], facts["stored"]) == ("cpu", "nothing yet")
    assert not (folder / "results").exists()


def test_a_device_that_is_not_here_is_wrong(folder: Path) -> None:  # noqa: F811
    found = problems(study(folder, ASK, engine={"device": "cuda:77"}))
    assert found["engine.device"].startswith("'cuda:77' cannot be used on this machine: ")


def test_an_engine_that_is_not_installed_is_wrong(
    folder: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("evaluators.engines.vllm.process.find_spec", lambda _: None)
    found = problems(study(folder, ASK, engine={"name": "vllm"}))
    assert "vLLM is not installed" in found["engine.device"]


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_a_server_that_does_not_answer_is_wrong_and_no_password_is_shown(
    folder: Path,  # noqa: F811
    kind: str,
) -> None:
    url = f"{kind}://me:se-cret@127.0.0.1:{free_port()}/studies"
    rule = problems(study(folder, ASK, storage=url))["storage"]
    assert "does the server run there, at that port?" in rule
    assert "se-cret" not in rule


def test_a_driver_that_is_not_here_is_wrong(folder: Path) -> None:  # noqa: F811
    rule = problems(study(folder, ASK, storage="oracle+cx_oracle://me@127.0.0.1:9/x"))["storage"]
    assert "the package of its driver is not here, no module 'cx_Oracle'" in rule


def test_a_storage_that_says_nothing_is_not_waited_for(
    folder: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(check_machine, "PATIENCE", 0.1)
    monkeypatch.setattr(check_machine, "_stored", lambda _: time.sleep(2) or "too late")
    rule = problems(study(folder, ASK))["storage"]
    assert rule == "no answer within 0 s; is the server there, and free?"


def test_a_file_that_cannot_be_made_or_is_no_database_is_wrong(folder: Path) -> None:  # noqa: F811
    (folder / "file").write_text("no database, but a text of some length\n" * 99)
    inside = problems(study(folder, ASK, storage="sqlite:///file/study.db"))["storage"]
    assert "cannot be made" in inside
    itself = problems(study(folder, ASK, storage="sqlite:///file"))["storage"]
    assert "not a database" in itself


def test_a_database_without_this_study_answers(folder: Path) -> None:  # noqa: F811
    open_record(f"sqlite:///{folder}/other.db", "another", create=True)
    file = study(folder, ASK, storage="sqlite:///other.db")
    assert check(file, tasks=True).facts["stored"] == "nothing of this study yet"


def test_a_study_that_began_with_another_file_is_a_warning(folder: Path) -> None:  # noqa: F811
    file = study(folder, ASK, storage="sqlite:///study.db")
    record = open_record(f"sqlite:///{folder}/study.db", "x", create=True)
    was = {"name": "x", "recipe": {}, "score": [], "items": {}, "search": {"seed": 9}}
    empty: dict[str, dict[str, str]] = {k: {} for k in ("baselines", "parents", "tasks", "pools")}
    record.begin({"format": 2, "study": was, "threads": 1, "folder": ".", **empty}, {})
    warnings = check(file, tasks=True).warnings
    assert any("began with another study file; changed: " in line for line in warnings)


def test_items_that_do_not_fit_the_models_window_are_wrong(folder: Path) -> None:  # noqa: F811
    for name in ("one", "two"):
        (folder / name / "config.json").write_text(
            json.dumps(CONFIG | {"max_position_embeddings": 32})
        )
    short = study(folder, ASK | {"max_tokens": 8})
    fits = "every item fits into the 32 tokens of the model"
    assert check(short, tasks=True).facts["window"] == fits
    rule = problems(study(folder, ASK | {"max_tokens": 28}))["score"]
    assert rule.startswith("q: 10 of 10 items of the search pool cannot be scored; ")
    assert "28 of its answer do not fit the model's window of 32" in rule


def test_vllm_may_have_a_smaller_window(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("search.run.check_machine.check_installed", lambda: None)
    engine = {"name": "vllm", "max_model_len": 24}
    facts = check(study(folder, ASK | {"max_tokens": 8}, engine=engine), tasks=True).facts
    assert facts["window"] == "every item fits into the 24 tokens of the model"
