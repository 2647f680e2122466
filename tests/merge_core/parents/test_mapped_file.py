"""Pages of a mapped file are in this process while they are read, and no longer."""

from __future__ import annotations

import pytest
import torch

from merge_core.parents.mapped_file import MappedFile
from tests.merge_core.places import mapped_bytes

SIZE = 2**22
DATA = torch.arange(SIZE, dtype=torch.int64).to(torch.uint8)


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "some.bin"
    file.write_bytes(DATA.numpy().tobytes())
    return file


def test_pages_leave_the_process_when_they_are_let_go_and_views_stay_valid(path):
    file = MappedFile(path)
    view = file.view(1, SIZE - 3)
    assert torch.equal(view, DATA[1:-3])
    assert mapped_bytes(path) == SIZE
    file.let_go()
    assert mapped_bytes(path) == 0
    assert torch.equal(view, DATA[1:-3])


def test_what_is_written_to_a_view_does_not_reach_the_file(path):
    MappedFile(path).view(0, SIZE).zero_()
    assert path.read_bytes() == DATA.numpy().tobytes()


def test_no_bytes_are_an_empty_view(path):
    assert MappedFile(path).view(5, 5).shape == (0,)
