from __future__ import annotations

import pytest

from evaluators.harness.public_data import notice_of, public_source


@pytest.fixture
def loaded(standard):
    """A task of files, whose config a test may change."""
    return standard.open("choice")._prepared.task


def test_a_task_of_ones_own_files_owes_nobody_a_word(standard):
    task = standard.open("choice")
    assert (task.notice, task.source) == ("", "")


def test_a_data_set_of_the_hub_is_named_with_its_split(loaded):
    loaded.config.dataset_path = "org/quiz"
    said = notice_of(loaded)
    assert "all of the test split of the public benchmark org/quiz: the winner's score" in said
    assert said.count(".") == 1  # one sentence
    assert public_source(loaded) == "org/quiz"


def test_without_a_test_split_the_validation_split_is_named(loaded, monkeypatch):
    loaded.config.dataset_path = "org/quiz"
    loaded.config.validation_split = "validation"
    monkeypatch.setattr(loaded, "has_test_docs", lambda: False)
    assert "all of the validation split of" in notice_of(loaded)


def test_files_at_an_address_are_public(loaded):
    files = {"data_files": {"test": ["https://example.org/quiz.jsonl"]}}
    loaded.config.dataset_kwargs = files
    assert "the public benchmark https://example.org/quiz.jsonl" in notice_of(loaded)


def test_a_folder_and_code_of_ones_own_are_not_public(loaded, tmp_path):
    loaded.config.dataset_path = str(tmp_path)
    assert notice_of(loaded) == ""
    loaded.config.dataset_path, loaded.config.custom_dataset = "org/quiz", lambda **_: None
    assert notice_of(loaded) == ""
