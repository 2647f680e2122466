"""One class in one type: is the live candidate the exported model, and is that the merge?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from merge_core import api
from merge_core.output.live_model import Candidate
from tests.sweep import tiny

DTYPES = ("float32", "bfloat16", "float16")
WEIGHT = 0.7
RECIPE = f"""\
merge_method: task_arithmetic
base_model: base
models: [{{model: one, parameters: {{weight: {WEIGHT}}}}}]
"""
FACTS = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")


class DiffersError(AssertionError):
    """Live and exported model, or model and merge, are not the same."""


class NotStoredError(Exception):
    """transformers itself does not read what it wrote, or cannot run it in this type."""


def check(name: str, found: Any, dtype: str, folder: Path) -> None:
    """Merge two random models of a class, live and to a folder, and compare.

    Args:
        name: Of the class.
        found: Its config.
        dtype: What the two are stored in.
        folder: Where to put all; empty.

    Raises:
        DiffersError: They are not the same.
        MergeError: They cannot be merged.
        NotStoredError: transformers does not read what it wrote.
    """
    model_class, kind = tiny.classes()[name][1], getattr(torch, dtype)
    for seed, parent in enumerate(("base", "one")):
        tiny.model(model_class, found, seed).to(kind).save_pretrained(folder / parent)
    _load_parents(model_class, folder)
    candidate = Candidate()
    live = candidate.build(api.planned(RECIPE, folder))
    exported = api.merge(RECIPE, folder / "out", folder=folder)
    if live != exported:
        raise DiffersError(f"live digest {live}, exported {exported}")
    read = {x: _loaded(model_class, folder / x) for x in ("base", "one", "out")}
    _compare(candidate.model, read["out"])
    if dtype == "float32":
        _check_sum(*(read[x].state_dict() for x in ("base", "one", "out")))


def _load_parents(model_class: Any, folder: Path) -> None:
    try:
        tiny.answer(_loaded(model_class, folder / "base"))
    except Exception as error:  # whatever it raises
        raise NotStoredError(f"{type(error).__name__}: {error}") from error


def _loaded(model_class: Any, folder: Path) -> Any:
    model, facts = model_class.from_pretrained(folder, dtype="auto", output_loading_info=True)
    wrong = {key: facts[key] for key in FACTS if facts.get(key)}
    if wrong:
        raise DiffersError(f"{folder.name} does not load whole: {wrong}")
    return model.eval()


def _compare(live: Any, exported: Any) -> None:
    ours, theirs = live.state_dict(), exported.state_dict()
    if ours.keys() != theirs.keys():
        raise DiffersError(f"live has other tensors: {sorted(ours.keys() ^ theirs.keys())[:3]}")
    for name, x in ours.items():
        if x.dtype != theirs[name].dtype:
            raise DiffersError(f"{name}: live {x.dtype}, exported {theirs[name].dtype}")
        if not torch.equal(x, theirs[name]):
            raise DiffersError(f"{name}: other values live than exported")
    logits = [tiny.answer(model) for model in (live, exported)]
    if not torch.isfinite(logits[0]).all():
        raise DiffersError("logits are not finite")
    if not torch.equal(*logits):
        raise DiffersError(f"logits differ by {(logits[0] - logits[1]).abs().max():.3g}")


def _check_sum(base: Any, one: Any, out: Any) -> None:
    """Check the exported weights against the formula, on what transformers itself loads."""
    for name, x in base.items():
        if x.is_floating_point() and name in one:
            wanted = x + WEIGHT * (one[name] - x)
            if not torch.allclose(out[name], wanted, rtol=1e-5, atol=1e-6):
                raise DiffersError(f"{name}: is not base + {WEIGHT} (one - base)")
