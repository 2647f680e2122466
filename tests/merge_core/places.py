"""Model folders without a recipe that refers to them."""

from pathlib import Path

from merge_core.parents.locate import Located, Place


def at(folder: Path, reference: str | None = None) -> Located:
    """Return the place of a model folder, under its own path if no reference is given."""
    return Located(reference or str(folder), Place(str(folder), folder))


def mapped_bytes(path: Path) -> int:
    """Return how much of a file is in this process's memory, in bytes (Linux)."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0] and not line.split()[0].endswith(":"):
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total
