"""Question: what memory does a gradient step need beside the live model and its activations?

Builds a candidate of random Llama-shaped parents (250 million weights by default), reads a batch
with a graph, and lets backward run while the slopes by every weight of the recipe are collected.
Prints, in MB of anonymous memory (RssAnon of Linux): what the graph holds (activations), the
largest weight's gradient in float32, the peak of the backward pass beyond the live model, and what
of that is neither of the two. The goal is at most 200 MB of rest. ``--keep`` lets torch keep all
gradients, as a plain training step does: that must show.

    python benchmarks/gradient_memory.py --millions 250 --methods task_arithmetic ties slerp
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from memory import Peak, anonymous
from parents import VOCABULARY, make_parents, recipe_for

from merge_core.merge.nested import plan
from merge_core.methods.registry import method
from merge_core.output.live_model import Candidate
from merge_core.parents.open import open_parents

GOAL = 200e6


def settled() -> int:
    """Return the anonymous memory once what is free is given back, in bytes."""
    ctypes.CDLL(None).malloc_trim(0)
    return anonymous(os.getpid())


def loss_of(model: Any, ids: Any, answer: int) -> Any:
    """Return the loss of the last tokens of each row: an answer, as the engine reads it."""
    logits = model(input_ids=ids, logits_to_keep=answer + 1, use_cache=False).logits[:, :-1]
    wanted = ids[:, -answer:].flatten()
    return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), wanted)


def measure(name: str, folder: Path, names: list[str], options: Any) -> dict[str, Any]:
    """Return one row."""
    recipe = recipe_for(method(name), names)
    candidate = Candidate()
    candidate.build(plan(recipe, open_parents(recipe.references(), [folder])))
    model = candidate.model
    ids = torch.randint(VOCABULARY, (options.rows, options.tokens))
    for _ in range(2):  # the first time also computes what is computed once
        before = settled()
        start = time.perf_counter()
        with nullcontext() if options.keep else candidate.slopes():
            loss = loss_of(model, ids, options.answer)
            activations = settled() - before
            with Peak() as peak:
                loss.backward()
        seconds = time.perf_counter() - start
        model.zero_grad()
        del loss
    largest = 4 * max(p.numel() for p in model.parameters())
    used = peak.bytes - before
    return {
        "method": name,
        "activations": activations,
        "largest_gradient": largest,
        "peak": used,
        "rest": used - activations - largest,
        "seconds": seconds,
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--millions", type=float, default=250, help="weights of a model")
    parser.add_argument("--experts", type=int, default=2, help="models beside the base")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--answer", type=int, default=16, help="tokens of a row that are scored")
    parser.add_argument("--methods", nargs="+", metavar="NAME", default=["task_arithmetic"])
    parser.add_argument("--keep", action="store_true", help="collect nothing, free nothing")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        names = make_parents(Path(place), options.millions, options.experts)
        for name in options.methods:
            rows.append(measure(name, Path(place), names, options))
            shown = {
                key: x / 1e6 for key, x in rows[-1].items() if key not in ("method", "seconds")
            }
            print(
                "{0:16} activations {activations:6.0f}  largest gradient {largest_gradient:5.0f}  "
                "peak {peak:6.0f}  rest {rest:6.0f} MB (goal {1:.0f})".format(
                    name, GOAL / 1e6, **shown
                ),
                flush=True,
            )
    print(json.dumps({"benchmark": "gradient_memory", "millions": options.millions, "rows": rows}))


if __name__ == "__main__":
    main()
