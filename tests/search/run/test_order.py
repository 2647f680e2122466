"""A run opens its tasks before it fetches the weights of a model from the hub."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from merge_core.errors import MergeError
from search.run.study import run
from search.spec.study_file import read
from search.trial.worker import Worker
from tests.search.real import QUICKSTART, Quiet, write_study


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """What a fake hub is asked for: model, and whether its weights are among it."""
    calls: list[tuple[str, bool]] = []

    def snapshot_download(path: str, *, allow_patterns: Any, **_: Any) -> str:
        weights = any(fnmatch.fnmatch("model.safetensors", x) for x in allow_patterns)
        calls.append((path.rpartition("/")[2], weights))
        return str(QUICKSTART / "models" / path.rpartition("/")[2])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


def study(folder: Path, change: Callable[[str], str] = str) -> Path:
    """Write a study of models on the hub."""
    file = write_study(folder, models="nobody")
    file.write_text(change(file.read_text()))
    return file


def test_a_task_that_is_wrong_ends_a_run_before_any_weights_are_fetched(
    tmp_path: Path, asked: list[tuple[str, bool]]
) -> None:
    file = study(tmp_path, lambda text: text.replace("quickstart_sort", "quickstart_gone"))
    with pytest.raises(MergeError, match="quickstart_gone"):
        run(file, Quiet(), lambda: False)
    assert {*asked} == {("base", False)}


def test_weights_are_fetched_when_the_tasks_are_open(
    tmp_path: Path, asked: list[tuple[str, bool]]
) -> None:
    spec = read(study(tmp_path))
    worker = Worker(spec.data, spec.folder)
    assert {*asked} == {("base", False)}
    assert {*worker.tasks.evaluators} == {"quickstart_add", "quickstart_sort"}
    assert worker.builder.parents
    assert {name for name, weights in asked if weights} == {"base", "add", "sort"}
