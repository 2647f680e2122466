"""A database without a study, and a study in it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from search.storage.open import open_record
from search.storage.study_record import Record


@pytest.fixture
def url(tmp_path: Path, empty_database: Path) -> str:
    shutil.copy(empty_database, tmp_path / "study.db")
    return f"sqlite:///{tmp_path / 'study.db'}"


@pytest.fixture
def record(url: str) -> Record:
    return open_record(url, "toy", create=True)
