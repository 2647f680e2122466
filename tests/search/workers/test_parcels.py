"""Files on their way to a machine that lacks them: whole and the same, or not there."""

import shutil

import pytest

from merge_core.errors import OutputError
from search.workers import parcels
from search.workers.ferry import Shore
from search.workers.parcels import Parcel, Unpacking


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MERGETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(parcels, "PIECE", 4)


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "there"
    (folder / "deep").mkdir(parents=True)
    (folder / "a").write_bytes(b"0123456789")
    (folder / "deep" / "b").write_bytes(b"")
    return folder


def parcel_of(folder):
    return Parcel.of("two files", {"a": folder / "a", "deep/b": folder / "deep" / "b"})


def sent(sealed, change=lambda piece: piece):
    unpacking = Unpacking(sealed)
    for number, file in enumerate(sealed.parcel.files):
        for piece in file.pieces():
            unpacking.take(number, change(piece))
    unpacking.finish()


def test_the_very_files_are_told_from_equal_ones(files):
    parcel = parcel_of(files)
    assert parcel.is_here()
    content = (files / "a").read_bytes()
    (files / "a").unlink()
    (files / "a").write_bytes(content)
    assert not parcel.is_here()
    assert parcel.sealed().is_equal()


def test_what_came_is_what_was_sent_and_is_found_again(files):
    sealed = parcel_of(files).sealed()
    assert not sealed.is_kept()
    sent(sealed)
    assert (sealed.folder / "a").read_bytes() == b"0123456789"
    assert (sealed.folder / "deep" / "b").read_bytes() == b""
    assert Shore().place_of(sealed) == ""  # equal where they come from
    shutil.rmtree(files)
    assert Shore().place_of(sealed) == str(sealed.folder)


def test_other_bytes_than_were_sent_are_not_kept(files):
    sealed = parcel_of(files).sealed()
    with pytest.raises(OutputError, match="/a: what came here is not what was sent"):
        sent(sealed, lambda piece: piece.replace(b"5", b"6"))
    assert not sealed.folder.exists()
    assert not [*sealed.folder.parent.iterdir()]


def test_what_was_kept_and_is_damaged_is_sent_again(files):
    sealed = parcel_of(files).sealed()
    sent(sealed)
    (sealed.folder / "a").write_bytes(b"012345678X")
    shutil.move(files, files.with_name("moved"))
    assert Shore().place_of(sealed) is None
    shutil.move(files.with_name("moved"), files)
    sent(sealed)
    assert sealed.is_kept()


def test_a_full_disk_is_told_and_leaves_nothing(files, monkeypatch):
    sealed = parcel_of(files).sealed()

    def full(self, mode="r"):
        raise OSError(28, "No space left on device", str(self))

    unpacking = Unpacking(sealed)
    full_disk = pytest.raises(OutputError, match="cannot be written: No space left on device")
    with monkeypatch.context() as disk, full_disk:
        disk.setattr("pathlib.Path.open", full)
        unpacking.take(0, b"0123")
    assert not [*sealed.folder.parent.iterdir()]


def test_the_digest_is_of_names_and_content_alone(files, tmp_path):
    shutil.copytree(files, tmp_path / "copy")
    first, second = (parcel_of(x).sealed() for x in (files, tmp_path / "copy"))
    assert first.digest == second.digest
    (tmp_path / "copy" / "a").write_bytes(b"0123456780")
    assert parcel_of(tmp_path / "copy").sealed().digest != first.digest
