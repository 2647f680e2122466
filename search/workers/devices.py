"""What of a machine each of k workers gets: accelerators of its own, and its part of the threads.

A share is carried out by environment variables, which must be set before a worker's process imports
torch: then the worker sees no other accelerator, and its ``cuda`` is its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from merge_core.errors import ParameterError
from search.spec.sections import Engine

VISIBLE = "CUDA_VISIBLE_DEVICES"  # ROCm's builds of torch know it, too

BOUND = "VLLM_CPU_OMP_THREADS_BIND"  # or all vLLMs for CPUs take the same cores


@dataclass(frozen=True)
class Share:
    """What one worker gets.

    Args:
        environment: Variables to set before its process imports torch.
        threads: Of the CPU, at least 1.
    """

    environment: Mapping[str, str]
    threads: int


def shares(
    count: int,
    cpus: Sequence[int],
    gpus: Sequence[str],
    threads: int | None,
    per_worker_gpus: int,
) -> list[Share]:
    """Return the shares of ``count`` workers, in order; no accelerator is in two of them.

    Args:
        count: How many workers, at least 1.
        cpus: Numbers of the CPU's cores that may be used, see ``cpus_here``.
        gpus: Names of the accelerators that may be used, see ``gpus_here``.
        threads: Of each worker, where the study says or began with a number, since they decide the
            last bits of a score; None: the cores are divided, at least one each.
        per_worker_gpus: Accelerators of each worker, see ``gpus_per_worker``; 0: it sees all.

    Raises:
        ParameterError: There are too few accelerators.
    """
    if count * per_worker_gpus > len(gpus):
        raise ParameterError(_too_few(count, len(gpus), per_worker_gpus))
    mine = max(1, len(cpus) // count) if threads is None else threads
    found = []
    for i in range(count):
        said = {"OMP_NUM_THREADS": str(mine)}
        if per_worker_gpus:
            said[VISIBLE] = ",".join(gpus[i * per_worker_gpus : (i + 1) * per_worker_gpus])
        if count * mine <= len(cpus):
            said[BOUND] = ",".join(map(str, cpus[i * mine : (i + 1) * mine]))
        found.append(Share(said, mine))
    return found


def gpus_per_worker(engine: Engine, count: int, gpus: Sequence[str]) -> int:
    """Return how many accelerators each of ``count`` workers takes.

    Args:
        engine: The study file's section.
        count: How many workers, at least 1.
        gpus: Names of the accelerators that may be used.

    Raises:
        ParameterError: The engine's device is one that several workers cannot share out.
    """
    kind, colon, _ = engine.device.partition(":")
    if engine.name == "vllm":
        return (engine.tensor_parallel_size or 1) if gpus else 0
    if kind == "cpu" or (kind == "auto" and not gpus):
        return 0
    if kind in ("auto", "cuda") and not colon:
        return 1
    if count > 1:
        raise ParameterError(
            f"workers: engine.device {engine.device!r} is one device, which {count} workers cannot "
            "share out; write cuda, auto or cpu, or ask for one worker"
        )
    return 0


def cpus_here() -> tuple[int, ...]:
    """Return the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def gpus_here() -> tuple[str, ...]:
    """Return the names of the accelerators that this process sees, for ``CUDA_VISIBLE_DEVICES``.

    No context is made on any of them: who only hands out work needs no memory there.
    """
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get(VISIBLE)
    names = [str(i) for i in range(count)] if named is None else named.split(",")
    return tuple(name.strip() for name in names[:count])


def _too_few(count: int, gpus: int, each: int) -> str:
    takes = "a GPU" if each == 1 else f"{each} GPUs"
    key = "engine.device" if each == 1 else "engine.tensor_parallel_size"
    advice = f"ask for at most {gpus // each}" if gpus >= each else f"set another {key}"
    return f"workers: each takes {takes}, got {count} workers and {gpus} GPUs here; {advice}"
