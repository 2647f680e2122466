import errno
import os
import signal
import socket
from pathlib import Path

import pytest

from merge_core import atomic_write
from merge_core.atomic_write import fill_whole, write_whole
from merge_core.errors import OutputError, OutputExistsError


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
    without_exchange(monkeypatch)
    replace = Path.replace

    def once(path, target):
        if path.name.endswith(".part"):
            raise PermissionError(errno.EACCES, "the power went", str(path))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", once)
    with pytest.raises(OutputError, match="the power went"):
        fill_whole(taken, fill, overwrite=True)
    assert contents(tmp_path) == ["out", "out/old"]


def test_hidden_folder_that_a_killed_process_left_is_no_obstacle(tmp_path):
    litter = tmp_path / f".out.mergetune-{socket.gethostname()}-{os.getpid()}.part"
    litter.mkdir()
    (litter / "half").touch()
    fill_whole(tmp_path / "out", fill)
    assert contents(tmp_path) == ["out", "out/new"]


def test_working_directory_can_be_filled_by_its_short_name(tmp_path, monkeypatch):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    fill_whole(Path("."), fill)
    assert contents(tmp_path) == ["cwd", "cwd/new"]


def killed_by(work):
    """Run ``work`` in a copy of this process that dies as by kill -9; return its number."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    return child


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def without_exchange(monkeypatch):
    """Pretend a disk that cannot exchange two names."""
    monkeypatch.setattr(atomic_write, "_EXCHANGE", 1 << 30)  # no flag that Linux knows: EINVAL


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("moment", ["_synced_all", "_exchange", "_remove"])
def test_a_kill_while_replacing_leaves_a_whole_folder_and_what_the_next_sweeps(
    taken, tmp_path, monkeypatch, moment, exchange
):
    if not exchange:
        without_exchange(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(atomic_write, moment, die)
        killed_by(lambda: fill_whole(taken, fill, overwrite=True))
    assert contents(taken) == (["new"] if moment == "_remove" else ["old"])
    assert len(list(tmp_path.iterdir())) == 2
    write_whole(tmp_path / "another", "text")
    assert sorted(x.name for x in tmp_path.iterdir()) == ["another", "out"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_what_was_moved_away_by_one_that_died_between_two_renames_comes_back(
    taken, tmp_path, monkeypatch
):
    without_exchange(monkeypatch)
    replace = Path.replace

    def once(path, target):
        return die() if path.name.endswith(".part") else replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", once)
        killed_by(lambda: fill_whole(taken, fill, overwrite=True))
    assert not taken.exists()
    with pytest.raises(OutputExistsError):
        fill_whole(taken, fill)
    assert contents(tmp_path) == ["out", "out/old"]


def test_what_a_living_process_or_another_host_writes_is_not_swept(tmp_path):
    host = socket.gethostname()
    for name in (f".x.mergetune-{host}-{os.getppid()}.part", ".x.mergetune-other-1.part", ".x.y"):
        (tmp_path / name).mkdir()
    write_whole(tmp_path / "a", "text")
    assert len(contents(tmp_path)) == 4


def test_all_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync

    def heard(handle):
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        synced.append((path.name, (tmp_path / "out").exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", heard)
    fill_whole(tmp_path / "out", fill)
    part = f".out.mergetune-{socket.gethostname()}-{os.getpid()}.part"
    assert synced == [("new", False), (part, False), (tmp_path.name, True)]


@pytest.mark.parametrize("write", [lambda x: write_whole(x, "new"), lambda x: fill_whole(x, fill)])
def test_place_below_a_file_is_one_error_that_names_it(taken, write):
    with pytest.raises(OutputError, match=r"old/out: cannot be written: (Not a dir|File exists)"):
        write(taken / "old" / "out")


def test_full_disk_is_one_error_and_leaves_what_was_there(taken, tmp_path):
    def full(folder):
        fill(folder)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "new"))

    with pytest.raises(OutputError, match=r"out: cannot be written: No space left on device \("):
        fill_whole(taken, full, overwrite=True)
    assert contents(tmp_path) == ["out", "out/old"]


def test_a_link_is_followed_to_its_file(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "far")
    write_whole(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far").read_text() == "text"
