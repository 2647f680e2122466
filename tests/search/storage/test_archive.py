"""Bundles of strangers: what is wrong with one is one line, and nothing is written outside."""

from __future__ import annotations

import gc
import hashlib
import json
import stat
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from merge_core.errors import MergeError, OutputExistsError, StorageError
from search.bundle.write import write
from search.spec import study_file
from search.spec.inside import broken_by
from search.storage import archive
from search.storage.locate import in_place, open_study
from tests.search import toy

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A bundle of two trials."""
    spec = toy.spec_of(toy.STUDY, tmp_path_factory.mktemp("toy"))
    spec.folder.joinpath("study.yaml").write_text(toy.STUDY)
    answers = iter([False, False, True])
    toy.searched(spec, stop=lambda: next(answers))
    write(str(spec.folder), out := spec.folder / "toy.zip", texts=False)
    return out.read_bytes()


@pytest.fixture
def bundle(made: bytes, tmp_path: Path) -> Path:
    """That bundle, alone in a folder."""
    (tmp_path / "here").mkdir()
    (out := tmp_path / "here" / "toy.zip").write_bytes(made)
    return out


def files_of(bundle: Path) -> Files:
    with zipfile.ZipFile(bundle) as source:
        return {name: source.read(name) for name in source.namelist() if name != archive.MANIFEST}


def listed(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return what a manifest says of files."""
    return {n: {"bytes": len(x), "sha256": hashlib.sha256(x).hexdigest()} for n, x in files.items()}


def forged(bundle: Path, files: Mapping[str, bytes], told: Any = None, **more: Any) -> None:
    """Write a bundle whose manifest fits its files, or says something else of them."""
    said = listed(files) if told is None else told
    manifest = {"format": 1, "study": "toy", "files": said, **more}
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            made.writestr(name, data)
        made.writestr(archive.MANIFEST, json.dumps(manifest))


def refused(bundle: Path) -> str:
    """Return why a bundle is refused, and see that nothing was written beside it."""
    before = {*bundle.parent.iterdir()}
    reasons = []
    for use in (open_study, lambda x: in_place(x, print)):
        with pytest.raises(MergeError) as caught:
            use(str(bundle))
        reasons.append(str(caught.value))
    assert reasons[0] == reasons[1]
    assert "\n" not in reasons[0]
    assert {*bundle.parent.iterdir()} == before
    return reasons[0]


@pytest.mark.parametrize(
    "name",
    ["../out.txt", "/tmp/out.txt", "a/../../out.txt", "..\\out.txt", "C:/out.txt", "a/..", ".."],
)
def test_a_name_that_leads_out_of_the_bundle_is_refused(bundle: Path, name: str) -> None:
    forged(bundle, {**files_of(bundle), name: b"gotcha"})
    assert "leads out of the bundle" in refused(bundle)
    assert not list(bundle.parent.parent.rglob("out.txt"))


@pytest.mark.parametrize("name", ["a//b", "./a", "a/", "a\nb", "a" * 1001])
def test_a_name_that_is_none_is_refused(bundle: Path, name: str) -> None:
    forged(bundle, {**files_of(bundle), name: b""})
    assert "is no plain name of a file" in refused(bundle)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(bundle: Path, kind: int) -> None:
    files = files_of(bundle)
    forged(bundle, {**files, "link": b"/etc/passwd"})
    with zipfile.ZipFile(bundle) as source:
        entries = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(bundle, "w") as made:
        for name, data in entries.items():
            entry = zipfile.ZipInfo(name)
            entry.create_system = 3
            entry.external_attr = ((kind if name == "link" else stat.S_IFREG) | 0o644) << 16
            made.writestr(entry, data)
    assert "'link' is no regular file" in refused(bundle)


def test_what_would_grow_too_much_is_refused_before_it_is_read(bundle: Path) -> None:
    forged(bundle, {**files_of(bundle), "zeros": bytes(2**25)})
    assert "'zeros' would grow more than" in refused(bundle)


def test_more_bytes_than_a_bundle_may_have_are_refused_by_their_declaration(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MOST_BYTES", 1000)
    assert "expected at most 1000 bytes, got" in refused(bundle)


def test_more_files_than_a_bundle_may_have_are_refused(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MOST_FILES", 3)
    assert "expected at most 3 files" in refused(bundle)


def test_a_file_that_is_larger_than_the_manifest_says_is_not_read_to_its_end(bundle: Path) -> None:
    files = files_of(bundle)
    told = listed({name: data[:10] for name, data in files.items()})
    forged(bundle, files, told=told)
    assert "is not what its manifest says" in refused(bundle)


def test_a_declared_size_that_is_not_the_real_one_is_refused(bundle: Path) -> None:
    data = bundle.read_bytes()
    size = len(files_of(bundle)["study.yaml"]).to_bytes(4, "little")
    assert data.count(size) >= 2  # in the entry and in the list of entries
    bundle.write_bytes(data.replace(size, (5).to_bytes(4, "little")))
    assert "is no bundle, or is damaged" in refused(bundle)


def test_a_digest_that_does_not_fit_is_refused(bundle: Path) -> None:
    files = files_of(bundle)
    told = listed(files)
    changed = files["report.html"].replace(b"a", b"b", 1)
    forged(bundle, {**files, "report.html": changed}, told=told)
    assert "'report.html' is not what its manifest says" in refused(bundle)


@pytest.mark.parametrize("add", [True, False])
def test_files_and_manifest_must_name_the_same(bundle: Path, add: bool) -> None:
    files = files_of(bundle)
    told = listed(files)
    if add:
        forged(bundle, {**files, "more": b""}, told=told)
        assert "'more' is not in the manifest" in refused(bundle)
    else:
        del files["report.html"]
        forged(bundle, files, told=told)
        assert "'report.html' is missing" in refused(bundle)


def test_what_is_no_bundle_is_said_in_a_line(bundle: Path, tmp_path: Path) -> None:
    files = files_of(bundle)
    whole = bundle.read_bytes()
    bundle.write_text("no zip")
    assert "is no bundle, or is damaged: File is not a zip file" in refused(bundle)
    bundle.write_bytes(whole[: len(whole) // 2])
    assert "is no bundle" in refused(bundle)
    with zipfile.ZipFile(bundle, "w") as made:
        made.writestr("a.txt", "a")
    assert "it has no manifest.json" in refused(bundle)
    for absent in ("study.db", "study.yaml"):
        forged(bundle, {name: x for name, x in files.items() if name != absent})
        assert f"it has no {absent}" in refused(bundle)
    forged(bundle, files, format=99)
    assert "has format 99" in refused(bundle)
    forged(bundle, files, told=[])
    assert "manifest.json.files" in refused(bundle)
    forged(bundle, {**files, "study.db": b"no database"})
    assert "study.db" in refused(bundle)
    with pytest.raises(StorageError, match="no such file; name a bundle"):
        open_study(str(tmp_path / "absent.zip"))


def test_of_a_bundle_with_one_bytes_spoilt_all_files_are_there_or_it_is_refused(
    bundle: Path,
) -> None:
    whole, names, refusals = bundle.read_bytes(), files_of(bundle).keys(), []
    for place in range(0, len(whole), len(whole) // 40):
        bundle.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        (folder := bundle.parent / f"at-{place}").mkdir()
        with suppress(MergeError):
            archive.unpack(bundle, folder)
            assert names <= {x.relative_to(folder).as_posix() for x in folder.rglob("*")}
            continue
        refusals.append(place)
    assert len(refusals) > 30


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("search: {sampler", "search: {prior: ../../other, sampler"),
        ("items:", "engine: {cache: /home/me}\nitems:"),
        ("task: gain}", "task: gain, include_path: /etc}"),
        ("items:", "baselines: {x: ../x.yaml}\nitems:"),
    ],
)
def test_a_study_file_that_names_what_is_outside_is_refused(
    bundle: Path, old: str, new: str
) -> None:
    files = files_of(bundle)
    text = files["study.yaml"].decode()
    assert "storage: sqlite:///study.db" in text
    stolen = text.replace("sqlite:///study.db", "sqlite:////home/me/mine.db")
    forged(bundle, {**files, "study.yaml": stolen.encode()})
    assert "its study file is not that of its database" in refused(bundle)
    hostile = toy.STUDY.replace(old, new, 1)
    assert hostile != toy.STUDY

    assert "expected a path inside the study's folder" in (broken_by(yaml.safe_load(hostile)) or "")


def test_a_bundle_is_unpacked_beside_itself_once(bundle: Path, capsys: Any) -> None:
    folder = bundle.with_suffix("")
    assert in_place(str(bundle), print) == str(folder)
    assert {x.name for x in folder.iterdir()} >= {"study.yaml", "study.db", "manifest.json"}
    (folder / "note.txt").write_text("mine")
    assert in_place(str(bundle), print) == str(folder)
    assert (folder / "note.txt").read_text() == "mine"
    said = capsys.readouterr().out.splitlines()
    assert "is unpacked in" in said[0]
    assert "was unpacked before" in said[1]


def test_something_else_where_a_bundle_goes_stays_as_it_is(bundle: Path) -> None:
    folder = bundle.with_suffix("")
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(OutputExistsError, match="is not what"):
        in_place(str(bundle), print)
    assert [x.name for x in folder.iterdir()] == ["manifest.json"]


def test_models_of_an_unpacked_bundle_are_looked_for_where_the_bundle_lies(bundle: Path) -> None:
    spec = study_file.read(Path(in_place(str(bundle), print)))
    assert spec.roots == (bundle.with_suffix(""), bundle.parent, Path.cwd())


def test_the_folder_of_a_bundle_that_is_read_goes_with_the_record(bundle: Path) -> None:
    spec, record = open_study(str(bundle))
    folder = spec.folder
    assert folder.is_dir()
    assert folder.parent != bundle.parent
    del spec, record
    gc.collect()
    assert not folder.exists()
