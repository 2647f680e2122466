import os
from pathlib import Path

import pytest

from merge_core.atomic_write import fill_whole, write_whole
from merge_core.errors import OutputExistsError


class Interrupted(Exception):
    pass


def fill(folder):
    (folder / "new").write_text("new")


def fail(folder):
    fill(folder)
    raise Interrupted("the power went")


def contents(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def taken(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    return tmp_path / "out"


def test_text_file_is_written_with_the_folders_above_it(tmp_path):
    write_whole(tmp_path / "a" / "b.txt", "\u00e4\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "\u00e4\n".encode()
    assert contents(tmp_path) == ["a", "a/b.txt"]


def test_crash_while_writing_a_text_file_leaves_the_old_one_and_no_litter(tmp_path, monkeypatch):
    write_whole(tmp_path / "x", "old")

    def write_text(path, text, **options):
        path.write_bytes(b"ne")
        raise Interrupted("the power went")

    monkeypatch.setattr(Path, "write_text", write_text)
    with pytest.raises(Interrupted, match="the power went"):
        write_whole(tmp_path / "x", "new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert contents(tmp_path) == ["x"]


def test_folder_is_filled_with_the_folders_above_it(tmp_path):
    fill_whole(tmp_path / "a" / "out", fill)
    assert contents(tmp_path) == ["a", "a/out", "a/out/new"]


def test_folder_stands_under_a_hidden_name_until_it_is_complete(tmp_path):
    def look(folder):
        assert folder.parent == tmp_path
        assert folder.name.startswith(".out.")
        assert not (tmp_path / "out").exists()
        fill(folder)

    fill_whole(tmp_path / "out", look)
    assert contents(tmp_path) == ["out", "out/new"]


def test_crash_while_filling_leaves_nothing(tmp_path):
    with pytest.raises(Interrupted, match="the power went"):
        fill_whole(tmp_path / "out", fail)
    assert contents(tmp_path) == []


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_taken_place_is_refused_before_anything_is_filled(taken, tmp_path, kind):
    target = taken if kind == "folder" else taken / "old"
    with pytest.raises(OutputExistsError, match=rf"{target}: exists; choose another place or pass"):
        fill_whole(target, fail)
    assert contents(tmp_path) == ["out", "out/old"]


def test_empty_folder_is_not_taken(tmp_path):
    (tmp_path / "out").mkdir()
    fill_whole(tmp_path / "out", fill)
    assert contents(tmp_path) == ["out", "out/new"]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_overwriting_replaces_all_that_was_there(taken, tmp_path, kind):
    target = taken if kind == "folder" else taken / "old"
    fill_whole(target, fill, overwrite=True)
    assert contents(target) == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_crash_while_overwriting_keeps_the_old(taken, tmp_path):
    with pytest.raises(Interrupted, match="the power went"):
        fill_whole(taken, fail, overwrite=True)
    assert contents(tmp_path) == ["out", "out/old"]


def test_crash_between_the_two_renames_keeps_the_old(taken, tmp_path, monkeypatch):
    replace = Path.replace

    def once(path, target):
        if path.name.endswith(".part"):
            raise Interrupted("the power went")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", once)
    with pytest.raises(Interrupted, match="the power went"):
        fill_whole(taken, fill, overwrite=True)
    assert contents(tmp_path) == ["out", "out/old"]


def test_hidden_folder_that_a_killed_process_left_is_no_obstacle(tmp_path):
    litter = tmp_path / f".out.{os.getpid()}.part"
    litter.mkdir()
    (litter / "half").touch()
    fill_whole(tmp_path / "out", fill)
    assert contents(tmp_path) == ["out", "out/new"]


def test_working_directory_can_be_filled_by_its_short_name(tmp_path, monkeypatch):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    fill_whole(Path("."), fill)
    assert contents(tmp_path) == ["cwd", "cwd/new"]
