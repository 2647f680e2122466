"""Sums of the parents' tensors, which tell which of them are others than when a study began."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from merge_core.errors import Problems
from merge_core.validation import StrictModel, read
from search.storage.packed import deflated, inflated_json

TENSORS = "tensors"  # the study attribute
MOST = 2**26  # bytes of them as JSON; 10**5 tensors of each of ten parents take so many
Sums = Mapping[str, Mapping[str, int]]  # parent -> tensor -> see ``weights_hash.Content``


class _Sums(StrictModel):
    parents: dict[str, dict[str, int]]


def packed_sums(sums: Sums) -> str:
    """Return them as the attribute holds them."""
    plain = {name: dict(tensors) for name, tensors in sums.items()}
    return deflated(json.dumps(plain, separators=(",", ":")).encode())


def unpacked_sums(stored: Any, problems: Problems) -> dict[str, dict[str, int]]:
    """Return what the attribute holds; nothing of studies that have none; add what is wrong."""
    if stored is None:
        return {}
    try:
        data = inflated_json(stored, MOST)
    except ValueError as error:
        problems.append((TENSORS, str(error)))
        return {}
    found = read(_Sums, {"parents": data}, TENSORS, problems)
    return {} if found is None else found.parents
