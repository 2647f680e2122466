"""Question: does a candidate that stacks its parents' layers anew cost next to nothing?

Prints the median milliseconds of planning and of building random paths over the layers of two
parents (any layer of either, in any order, ``--depth`` of them), and by how much the process's
anonymous memory grows with a candidate, beside the goals: 20 ms together, 10 MB. A digest hangs on
a layer and its place, and each pair is hashed once in a study: *warm* is where all pairs were,
*new* is a candidate of pairs of which none was. *memory* is the greatest growth by a warm
candidate, and *flat* the growth over all of them; *live* is the memory of a candidate's different
weights, which are the parents'. With ``--merged`` one layer of each path is the mean of both.

    python benchmarks/depth_candidate.py --millions 250 --threads 2
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from memory import anonymous
from parents import LAYERS, make_parents

GOAL_MS, GOAL_MB = 20.0, 10.0


def recipe(names: list[str], path: list[tuple[str, int]], merged: int | None = None) -> Any:
    """Return the recipe of a path; layer ``merged`` of it is the mean of both parents' layers."""
    from merge_core.recipe.schema import Recipe, Slice, Source

    def slice_of(place: int, name: str, layer: int) -> Any:
        taken, span = [name] if place != merged else names, (layer, layer + 1)
        weight = (("weight", 1.0 / len(taken)),)
        return Slice(tuple(Source(one, weight, span) for one in taken))

    return Recipe(
        merge_method="linear",
        slices=tuple(slice_of(i, *step) for i, step in enumerate(path)),
        base_model=names[0],
        dtype="bfloat16",
    )


def drawn(stream: random.Random, names: list[str], depths: list[int]) -> list[tuple[str, int]]:
    """Return a random path."""
    depth = stream.randint(*depths)
    return [(stream.choice(names), stream.randrange(LAYERS)) for _ in range(depth)]


def measure(candidate: Any, made: Any, parents: Any) -> tuple[float, float, int]:
    """Return the seconds of planning and of building, and what memory has grown by."""
    from merge_core.merge.nested import plan

    before, start = anonymous(os.getpid()), time.perf_counter()
    planned = plan(made, parents)
    middle = time.perf_counter()
    candidate.build(planned)
    return middle - start, time.perf_counter() - middle, anonymous(os.getpid()) - before


def warm_up(candidate: Any, names: list[str], parents: Any, depths: list[int]) -> list[float]:
    """Build every pair of layer and place once; return the milliseconds of each such candidate."""
    took = []
    for name in names:
        for layer in range(LAYERS):
            for depth in {depths[1], depths[0] + layer}:
                made = recipe(names, [(name, (layer + i) % LAYERS) for i in range(depth)])
                took.append(sum(measure(candidate, made, parents)[:2]) * 1000)
    return took


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure random paths."""
    import torch

    from merge_core.output.live_model import Candidate
    from merge_core.parents.open import open_parents

    if options.threads:
        torch.set_num_threads(options.threads)
    names = make_parents(folder, options.millions, 1)
    parents, candidate = open_parents(names, [folder]), Candidate(fuse=not options.blocked)
    new = warm_up(candidate, names, parents, options.depth)
    stream, start = random.Random(0), anonymous(os.getpid())
    rows, sizes = [], []
    for _ in range(options.rounds):
        path = drawn(stream, names, options.depth)
        merged = stream.randrange(len(path)) if options.merged else None
        rows.append(measure(candidate, recipe(names, path, merged), parents))
        sizes.append(sum({x.data_ptr(): x.nbytes for x in candidate.model.parameters()}.values()))
    plan_ms, build_ms = (1000 * statistics.median(row[i] for row in rows) for i in (0, 1))
    return {
        "benchmark": "depth_candidate",
        "parameters": sum(x.numel() for x in candidate.model.parameters()),
        "threads": torch.get_num_threads(),
        "depth": options.depth,
        "merged": options.merged,
        "plan_ms": plan_ms,
        "build_ms": build_ms,
        "slowest_ms": 1000 * max(row[0] + row[1] for row in rows),
        "over_goal": (plan_ms + build_ms) / GOAL_MS,
        "memory_mb": max(row[2] for row in rows) / 1e6,
        "flat_mb": (anonymous(os.getpid()) - start) / 1e6,
        "live_mb": statistics.median(sizes) / 1e6,
        "new_ms": statistics.median(new),
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--millions", type=float, default=25, help="parameters of a parent")
    parser.add_argument("--depth", type=int, nargs=2, default=[LAYERS, 2 * LAYERS], help="layers")
    parser.add_argument("--rounds", type=int, default=100, help="candidates")
    parser.add_argument("--threads", type=int, help="of torch; its own choice if not given")
    parser.add_argument("--merged", action="store_true", help="one layer of each path is merged")
    parser.add_argument("--blocked", action="store_true", help="without fused kernels")
    parser.add_argument("--json", action="store_true", help="print the JSON line only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(options, Path(folder))
    if not options.json:
        both = f"plan {found['plan_ms']:.1f} ms + build {found['build_ms']:.1f} ms"
        rare = f"slowest {found['slowest_ms']:.0f}; of new pairs {found['new_ms']:.0f}"
        print(f"{both}, goal {GOAL_MS:.0f} ({rare})")
        flat = f"over all {found['flat_mb']:.1f}, for {found['live_mb']:.0f} MB of weights"
        print(f"memory {found['memory_mb']:.1f} MB, goal {GOAL_MB:.0f} ({flat})")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
