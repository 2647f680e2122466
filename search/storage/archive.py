"""A bundle, a study in one zip file, as it comes from somebody else: checked, then unpacked.

Nothing of it is believed: names lead nowhere but into its own folder, sizes are bounded before and
while they are read, every file has the digest that the manifest says.
"""

from __future__ import annotations

import hashlib
import shutil
import stat
import struct
import tempfile
import weakref
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Final

from pydantic import ConfigDict, Field

from merge_core.atomic_write import fill_whole
from merge_core.errors import MergeError, OutputError, OutputExistsError, Problems, StorageError
from merge_core.json_text import parse_json
from merge_core.recipe.yaml_document import read as read_document
from merge_core.validation import StrictModel, read
from search.spec.study_file import BUNDLE
from search.storage.open import open_record
from search.storage.study_record import Record

MANIFEST: Final = BUNDLE
STUDY, DATABASE = "study.yaml", "study.db"
FORMAT = 1
ENDING = ".zip"
MOST_FILES = 10_000
MOST_BYTES = 2**30  # of all files together; 500 trials with 2,000 items each have 2**25
MOST_RATIO = 300  # of a file to what it takes in the zip, where it has more than ``SMALL`` bytes
SMALL = 2**24
MOST_OF_MANIFEST = 2**22
DAMAGED = (  # what Python's zipfile raises for files that are none
    *(zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError),
    *(RuntimeError, ValueError, OverflowError, OSError),  # OSError: offsets that lead nowhere
)


class _File(StrictModel):
    bytes: int = Field(ge=0)
    sha256: str


class Manifest(StrictModel):
    """What a bundle says of itself, as far as it is needed to open it."""

    model_config = ConfigDict(extra="ignore")

    format: int
    study: str
    files: dict[str, _File]


def is_bundle(study: str | Path) -> bool:
    """Return whether a STUDY of the command line is a bundle: a file whose name ends in .zip."""
    text = str(study)
    return text.endswith(ENDING) and "://" not in text and not Path(text).is_dir()


def opened(bundle: Path, name: str | None = None) -> tuple[Record, Any]:
    """Open a bundle's study for reading; it lies in a folder that goes with the record.

    Args:
        bundle: The file.
        name: Of its study, if it must have one.

    Returns:
        The record, and what the study file says.

    Raises:
        StorageError: There is no such bundle, or it is damaged.
    """
    folder = Path(tempfile.mkdtemp(prefix="mergetune-bundle-"))
    try:
        unpack(bundle, folder)
        record, said = _opened(bundle, folder, name)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(record, shutil.rmtree, folder, ignore_errors=True)
    return record, said


def _opened(bundle: Path, folder: Path, name: str | None) -> tuple[Record, Any]:
    try:
        record = open_record(f"sqlite:///{folder / DATABASE}", name)
        return record, read_document(folder / STUDY).data
    except MergeError as error:
        why = str(error).partition("\n")[0].replace(f"{folder}/", "")
        raise StorageError(f"{bundle}: {why}") from error


def holds_manifest(file: Path) -> bool:
    """Return whether a file is a zip with a manifest, as far as its list of entries says."""
    try:
        with zipfile.ZipFile(file) as archive:
            return MANIFEST in archive.namelist()
    except DAMAGED:
        return False


def beside(bundle: Path) -> Path:
    """Return the folder that a bundle is unpacked into: beside it, with its name."""
    return bundle.with_name(bundle.name.removesuffix(ENDING))


def place(bundle: Path) -> tuple[Path, bool]:
    """Unpack a bundle beside itself, unless that is done.

    Returns:
        The folder, and whether it is new.

    Raises:
        StorageError: There is no such bundle, or it is damaged.
        OutputExistsError: Something else is there.
        OutputError: It cannot be written.
    """
    folder = beside(bundle)
    if folder.exists() or folder.is_symlink():
        manifest = folder / MANIFEST
        with _archive(bundle) as archive:
            ours = _text_of(archive, bundle)
        if not manifest.is_file() or manifest.read_bytes() != ours:
            raise OutputExistsError(
                f"{folder}: is there, and is not what {bundle} holds; move it away, or give the "
                "bundle another name"
            )
        return folder, False
    fill_whole(folder, lambda part: unpack(bundle, part))
    return folder, True


def unpack(bundle: Path, folder: Path) -> None:
    """Write a bundle's files into a folder that is there and empty.

    Raises:
        StorageError: There is no such bundle, or it is damaged.
    """
    with _archive(bundle) as archive:
        manifest = _manifest(archive, bundle)
        for name, said in manifest.files.items():
            file = folder.joinpath(*PurePosixPath(name).parts)
            _write(file, _read(archive, name, said, bundle))
        _write(folder / MANIFEST, [_text_of(archive, bundle)])


def check(bundle: Path) -> None:
    """Refuse a bundle that could not be opened, as far as its list of files says.

    Raises:
        StorageError: It could not.
    """
    with _archive(bundle) as archive:
        _manifest(archive, bundle)


@contextmanager
def _archive(bundle: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip file whose entries are what a bundle's may be."""
    if not bundle.is_file():
        raise StorageError(f"{bundle}: no such file; name a bundle that `mergetune bundle` wrote")
    with _told(bundle):
        archive = zipfile.ZipFile(bundle)
    with archive:
        _check_entries(archive, bundle)
        yield archive


@contextmanager
def _told(bundle: Path) -> Iterator[None]:
    """Make one line of what cannot be read."""
    try:
        yield
    except DAMAGED as error:
        if isinstance(error, MergeError):
            raise
        raise _refused(bundle, " ".join(str(error).split()) or type(error).__name__) from error


def _check_entries(archive: zipfile.ZipFile, bundle: Path) -> None:
    entries = archive.infolist()
    if len(entries) > MOST_FILES:
        raise _refused(bundle, f"expected at most {MOST_FILES} files, got {len(entries)}")
    names = [entry.filename for entry in entries]
    name, times = max(Counter(names).items(), key=lambda x: x[1], default=("", 0))
    if times > 1:
        raise _refused(bundle, f"{name[:200]!r} is there {times} times")
    for entry in entries:
        rule = _broken_by(entry)
        if rule:
            raise _refused(bundle, f"{entry.filename[:200]!r} {rule}")
    total = sum(entry.file_size for entry in entries)
    if total > MOST_BYTES:
        raise _refused(bundle, f"expected at most {MOST_BYTES} bytes, got {total}")
    if MANIFEST not in names:
        raise _refused(bundle, f"it has no {MANIFEST}")
    if archive.getinfo(MANIFEST).file_size > MOST_OF_MANIFEST:
        raise _refused(bundle, f"its {MANIFEST} has more than {MOST_OF_MANIFEST} bytes")


def _broken_by(entry: zipfile.ZipInfo) -> str:
    """Return why an entry cannot be one of a bundle, or nothing."""
    name = entry.orig_filename
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or name[1:2] == ":":
        return "leads out of the bundle"
    if not parts or name != "/".join(parts) or not name.isprintable() or len(name) > 1000:
        return "is no plain name of a file"
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "is no regular file"
    if entry.flag_bits & 1:
        return "is encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed in a way that bundles are not"
    if entry.file_size > SMALL and entry.file_size > MOST_RATIO * entry.compress_size:
        return f"would grow more than {MOST_RATIO} times"
    return ""


def _manifest(archive: zipfile.ZipFile, bundle: Path) -> Manifest:
    where = f"{bundle}: {MANIFEST}"
    with _told(bundle):
        text = archive.read(MANIFEST).decode("utf-8")
    data: Any = parse_json(text, where, StorageError)
    written = data.get("format") if isinstance(data, dict) else None
    if type(written) is int and written > FORMAT:
        raise StorageError(
            f"{bundle}: has format {written}, and this version of mergetune knows {FORMAT}; "
            "install the version that wrote it"
        )
    problems: Problems = []
    found = read(Manifest, data, MANIFEST, problems)
    if found is None or problems:
        raise _refused(bundle, "; ".join(f"{path}: {rule}" for path, rule in problems))
    here = {*archive.namelist()} - {MANIFEST}
    differ = sorted(here ^ found.files.keys())
    if differ:
        rule = "is not in the manifest" if differ[0] in here else "is missing"
        raise _refused(bundle, f"{differ[0]!r} {rule}")
    absent = [name for name in (STUDY, DATABASE) if name not in here]
    if absent:
        raise _refused(bundle, f"it has no {absent[0]}")
    return found


def _read(archive: zipfile.ZipFile, name: str, said: _File, bundle: Path) -> Iterator[bytes]:
    """Yield the parts of one file, which is as large as the manifest says, and no larger."""
    seen, size = hashlib.sha256(), 0
    with _told(bundle), archive.open(name) as source:
        while part := source.read(2**20):
            size += len(part)
            if size > said.bytes:
                break
            seen.update(part)
            yield part
    if size != said.bytes or seen.hexdigest() != said.sha256:
        raise _refused(bundle, f"{name!r} is not what its manifest says")


def _write(file: Path, parts: Iterable[bytes]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("xb") as target:
            for part in parts:
                target.write(part)
    except OSError as error:
        raise OutputError(f"{file}: cannot be written: {error.strerror}") from error


def _text_of(archive: zipfile.ZipFile, bundle: Path) -> bytes:
    """Return the manifest as it is written."""
    with _told(bundle):
        return archive.read(MANIFEST)


def _refused(bundle: Path, why: str) -> StorageError:
    return StorageError(f"{bundle}: is no bundle, or is damaged: {why}")
