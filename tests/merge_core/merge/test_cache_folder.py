import os

import pytest

from merge_core.errors import ParameterError
from merge_core.merge import cache_folder
from merge_core.merge.cache_folder import BOUND, HEAD, PAGE, CacheFolder, Held, clear, held

NAMES = [f"{i:064x}" for i in range(20)]
SIZE = 2 * PAGE  # bytes of a file, its head included


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "kept"


@pytest.fixture
def bounded(monkeypatch):
    """Let a folder hold so many files."""

    def files(count):
        monkeypatch.setattr(cache_folder, "bound", lambda: count * SIZE)

    return files


def fill(folder, names, age=0.0):
    """Write files as a process of its own that ended so many seconds ago."""
    cache = CacheFolder(folder)
    for i, name in enumerate(names):
        cache.write(name, bytes(SIZE - HEAD))
        file = folder / f"{name}.pt"
        if file.exists():
            os.utime(file, (0, file.stat().st_mtime - age + i))


def there(folder):
    return [name for name in NAMES if (folder / f"{name}.pt").exists()]


def test_bytes_come_back(folder):
    CacheFolder(folder).write(NAMES[0], b"some")
    assert CacheFolder(folder).read(NAMES[0]) == b"some"
    assert CacheFolder(folder).read(NAMES[1]) is None


def test_oldest_go_when_the_folder_is_full(folder, bounded):
    bounded(5)
    fill(folder, NAMES[:5], age=1000)
    assert there(folder) == NAMES[:5]
    fill(folder, NAMES[5:7])
    assert there(folder) == NAMES[2:7]
    assert held(folder) == Held(5, 5 * SIZE)


def test_file_that_was_read_is_not_the_oldest(folder, bounded):
    bounded(3)
    fill(folder, NAMES[:3], age=1000)
    CacheFolder(folder).read(NAMES[0])
    fill(folder, NAMES[3:4])
    assert there(folder) == [NAMES[0], NAMES[2], NAMES[3]]


def test_process_that_asks_for_more_than_there_is_room_for_keeps_what_fits(folder, bounded):
    bounded(10)
    for _ in range(3):
        cache, found = CacheFolder(folder), 0
        for name in NAMES[:11]:
            if cache.read(name) is None:
                cache.write(name, bytes(SIZE - HEAD))
            else:
                found += 1
    assert found == 10
    assert held(folder).bytes == 10 * SIZE


def test_larger_than_the_folder_is_not_written(folder, bounded):
    bounded(1)
    CacheFolder(folder).write(NAMES[0], bytes(SIZE))
    assert held(folder) == Held(0, 0)


def test_cache_leaves_half_of_what_is_free_on_its_disk(folder, monkeypatch):
    class Usage:
        free = 6 * SIZE

    monkeypatch.setattr(cache_folder.shutil, "disk_usage", lambda _: Usage)
    fill(folder, NAMES[:8])
    assert len(there(folder)) == 3


def test_write_that_fails_leaves_nothing(folder, monkeypatch):
    cache = CacheFolder(folder)
    monkeypatch.setattr(cache_folder, "_head", lambda *_: "no bytes")
    with pytest.raises(TypeError):
        cache.write(NAMES[0], b"some")
    assert list(folder.iterdir()) == []


def test_clearing_removes_our_files_and_no_other(folder):
    fill(folder, NAMES[:3])
    (folder / f".{NAMES[4]}.pt.123.part").write_bytes(b"left by a kill")
    (folder / "model.safetensors").write_bytes(b"a user's")
    (folder / f"{NAMES[5]}.pt").symlink_to(folder / "model.safetensors")
    assert clear(folder) == Held(4, 3 * SIZE + PAGE)
    assert held(folder) == Held(0, 0)
    assert sorted(x.name for x in folder.iterdir()) == [f"{NAMES[5]}.pt", "model.safetensors"]
    assert clear(folder / "none") == Held(0, 0)


@pytest.mark.parametrize(("text", "found"), [("", 50 * 2**30), ("0.5", 2**29), ("0", 0)])
def test_bound_is_that_of_the_environment(monkeypatch, text, found):
    monkeypatch.setenv(BOUND, text)
    assert cache_folder.bound() == found


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf", "1e30"])
def test_bound_that_is_no_number_is_refused(monkeypatch, text):
    monkeypatch.setenv(BOUND, text)
    with pytest.raises(ParameterError, match=f"^{BOUND}: expected a number of GiB, 0 or more, got"):
        CacheFolder("x")


def test_small_files_count_as_what_a_disk_gives_them(folder, bounded):
    bounded(5)  # ten pages
    cache = CacheFolder(folder)
    for name in NAMES:
        cache.write(name, b"some")
    assert held(folder) == Held(10, 10 * PAGE)
