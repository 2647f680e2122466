"""Merged tensors into safetensors files, one tensor at a time: never a file's worth in memory.

The library's own writer wants all tensors of a file at once. The format is a length, a JSON header
and the bytes, and all that the header needs is in the plan.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from merge_core.merge.execute import Execution
from merge_core.numerics import weights_hash
from merge_core.parents.weight_files import INDEX, SINGLE, WIDTHS
from merge_core.plan.steps import Plan, Step

Watch = Callable[[int, int], None]  # of bytes that are written, and all that will be
SHARD_BYTES = 5 * 10**9
ALIGNED = 64  # bytes: where torch's own memory begins, and a line of the cache


def write_shards(
    plan: Plan,
    folder: Path,
    factors: Mapping[str, float] | None = None,
    limit: int = SHARD_BYTES,
    watch: Watch | None = None,
    device: str | None = None,
) -> str:
    """Merge and write all weights, in one file or in several with an index.

    Args:
        plan: What to compute.
        folder: Where.
        factors: See ``Execution``.
        limit: Greatest size of one file in bytes; a larger tensor gets a file of its own.
        watch: Is told after each tensor how many bytes are written, and of how many.
        device: See ``Execution``.

    Returns:
        The ``weights_digest``.
    """
    shards = shards_of(plan, limit)
    done, every = 0, sum(map(plan.bytes_of, plan.steps))
    execution = Execution(plan, factors=factors, passing=True, device=device)
    execution.check_copies()
    for file, steps in shards:
        with (folder / file).open("wb") as stream:
            for count in _written(plan, execution, steps, stream):
                done += count
                if watch is not None:
                    watch(done, every)
    if len(shards) > 1:
        total = sum(plan.bytes_of(step) for _, steps in shards for step in steps)
        placed = {step.tensor: file for file, steps in shards for step in steps}
        index = {"metadata": {"total_size": total}, "weight_map": placed}
        (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return weights_hash.combined(execution.digests.values(), plan.input_scales)


def shards_of(plan: Plan, limit: int = SHARD_BYTES) -> list[tuple[str, list[Step]]]:
    """Return the names of the files that are written, and what goes into each."""
    groups: list[list[Step]] = [[]]
    size = 0
    for step in plan.steps:
        if groups[-1] and size + plan.bytes_of(step) > limit:
            groups.append([])
            size = 0
        groups[-1].append(step)
        size += plan.bytes_of(step)
    if len(groups) == 1:
        return [(SINGLE, groups[0])]
    n = len(groups)
    return [(f"model-{i + 1:05d}-of-{n:05d}.safetensors", group) for i, group in enumerate(groups)]


def _written(
    plan: Plan, execution: Execution, steps: Sequence[Step], stream: BinaryIO
) -> Iterator[int]:
    """Write one file, and yield the bytes of each tensor when it is there."""
    import torch

    # wide types first, so that every tensor begins at a multiple of its width; before them what
    # leaves the next one aligned, since products of one row round by where a matrix begins
    ordered = sorted(
        steps, key=lambda x: (plan.bytes_of(x) % ALIGNED > 0, -WIDTHS[plan.stored_type(x)])
    )
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for step in ordered:
        stop = start + plan.bytes_of(step)
        header[step.tensor] = {
            "dtype": plan.stored_type(step),
            "shape": list(step.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNED)
    stream.write(len(text).to_bytes(8, "little"))
    stream.write(text)
    for step in ordered:
        tensor = execution.carry_out(step).contiguous()
        stream.write(tensor.reshape(-1).view(torch.uint8).cpu().numpy().data)  # without a copy
        execution.let_go()
        yield plan.bytes_of(step)
