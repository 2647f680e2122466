"""What a merge to a folder will read, write and hold, told from headers alone."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from merge_core.inspect.report import temporaries
from merge_core.output.model_folder import USUAL, Writing
from merge_core.output.safetensors_writer import shards_of
from merge_core.parents.weight_files import bytes_as
from merge_core.plan.steps import Plan, Step

LIBRARIES = 4 * 10**8  # bytes: torch and transformers


@dataclass(frozen=True)
class Forecast:
    """A plan in numbers."""

    merge_method: str
    models: tuple[str, ...]  # references of all that is read
    config_from: str
    dtype: str
    tensors: int
    parameters: int
    files: int  # of weights
    weights_bytes: int  # on the disk; tokenizer, config and card come on top
    free_bytes: int  # on that disk, now
    memory_bytes: int  # an estimate of the process at its largest
    device: str  # where tensors are merged, in torch's words
    device_bytes: int  # an estimate of what they take there, 0 on the CPU: that is memory

    def plain(self) -> dict[str, Any]:
        """Return it as plain data, ready for JSON."""
        return asdict(self)


def forecast(plan: Plan, out: Path, how: Writing = USUAL) -> Forecast:
    """Return what writing a plan to ``out`` comes to; nothing is read but headers."""
    out = out.resolve()
    there = next(folder for folder in (out, *out.parents) if folder.exists())
    read = max((_read(plan, step) for step in plan.steps), default=0)
    device, merged = how.device or "cpu", temporaries(plan)
    far = 0 if device == "cpu" else read + merged
    return Forecast(
        merge_method=plan.method.name,
        models=tuple(plan.opened),
        config_from=plan.config_from,
        dtype=plan.dtype,
        tensors=len(plan.steps),
        parameters=sum(step.entries for step in plan.steps),
        files=len(shards_of(plan, how.shard_bytes)),
        weights_bytes=sum(map(plan.bytes_of, plan.steps)),
        free_bytes=shutil.disk_usage(there).free,
        # hashed while they are merged, so that another tensor of each is there
        memory_bytes=LIBRARIES + 2 * read + (0 if far else merged),
        device=device,
        device_bytes=far,
    )


def _read(plan: Plan, step: Step) -> int:
    """Return the bytes of files that a step reads."""
    infos = (plan.parents[x.parent].tensors[x.tensor] for x in step.inputs())
    return sum(bytes_as(info, None) for info in infos)
