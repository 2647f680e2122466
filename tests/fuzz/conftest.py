"""One valid world for all tests of a process."""

from __future__ import annotations

import pytest

from tests.fuzz import template


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """The folder in which everything is valid; do not write into it."""
    folder = tmp_path_factory.mktemp("fuzz") / "world"
    template.make(folder)
    return folder
