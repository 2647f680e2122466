"""What a LoRA holds of a fine-tune, as a table for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from merge_core.extract.adapter_folder import RECORD, Extraction
from search.views.tables import numbers, size, table
from search.views.terminal import OUT

COLUMNS = ("linear layers", "number", "rank", "task vector", "error", "share", "worst")
SHOWN = 5  # names of modules in one sentence


def extraction(found: Extraction, out: Path) -> None:
    """Print how far the adapter is from the model, for each kind of layer and in all."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for row in found.modules:
        kinds.setdefault(row["name"].rpartition(".")[2], []).append(row)
    cells = [_row(kind, rows) for kind, rows in kinds.items()]
    cells.append(_row("all", found.modules))
    OUT.print(numbers(table(f"LoRA of {found.model}", COLUMNS, cells), words=1))
    for what, names in (("Whole, not low-rank", found.whole), ("Biases", found.biases)):
        if names:
            OUT.print(f"{what}: {_some(names)}.", soft_wrap=True)
    reasons: dict[str, list[str]] = {}
    for name, facts in found.left.items():
        reasons.setdefault(facts["why"], []).append(name)
    for why, names in reasons.items():
        OUT.print(f"Left at the base ({why}): {_some(names)}.", soft_wrap=True)
    share = f"{100 * found.relative:.3g} % of the task vector's length"
    where = f"{out}: {size(found.bytes)}; base and adapter are {share} away from the model"
    OUT.print(f"{where}; of each layer: {RECORD}", soft_wrap=True)


def _row(kind: str, rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    norm, error = (math.hypot(*(row[key] for row in rows)) for key in ("norm", "error"))
    ranks = sorted({row["rank"] for row in rows})
    worst = max(row["relative"] for row in rows)
    span = f"{ranks[0]} to {ranks[-1]}" if len(ranks) > 1 else str(ranks[0])
    shares = (f"{100 * error / norm:.3g} %", f"{100 * worst:.3g} %")
    return (kind, str(len(rows)), span, f"{norm:.5g}", f"{error:.5g}", *shares)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
