"""Which file system a file is in: SQLite's log cannot be shared over a network."""

from __future__ import annotations

import os
import re
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")  # what Linux says of them
_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\w*|9p|afs|lustre|gpfs|beegfs\w*|ceph|glusterfs|fuse\.(sshfs|glusterfs|ceph\S*)"
)


def network_of(file: Path, mounts: Path = MOUNTS) -> str:
    """Return the kind of a network's file system in which a file is, such as nfs4, or nothing."""
    try:
        lines = [line.split() for line in mounts.read_text(errors="replace").splitlines()]
    except OSError:
        return ""
    place = os.path.realpath(file)
    holding = [(_plain(line[1]), line[2]) for line in lines if len(line) > 2]
    holding = [(folder, kind) for folder, kind in holding if _is_in(place, folder)]
    kind = max(holding, key=lambda found: len(found[0]), default=("", ""))[1]
    return kind if _NETWORK.fullmatch(kind) else ""


def _is_in(place: str, folder: str) -> bool:
    return place.startswith(folder.rstrip("/") + "/")


def _plain(folder: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), folder)
