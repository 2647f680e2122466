"""Functions on tensors made into kernels by ``torch.compile``: fused loops of the host's compiler.

A kernel gives the bits of the function it is made from: the compiler is told not to contract
multiplications and additions.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

COMPILERS = ("g++", "clang++", "c++")
Kernel = Callable[..., Any]
# A value that is used often, or made by many operations, is not to become a loop of its own: a loop
# without 16-bit floats has half the width, and then theirs are moved by halves of a vector.
OPTIONS = {
    "realize_reads_threshold": 10**6,
    "realize_opcount_threshold": 10**6,
    "realize_cpu_opcount_threshold": 10**6,
    "realize_acc_reads_threshold": 10**6,
    "realize_cpu_acc_reads_threshold": 10**6,
}
ON_CPU = {"cpp.dynamic_threads": True}  # a study may set another number than there was at first
ELSEWHERE = {  # Triton contracts, divides approximately and flushes small numbers, if it is let
    "emulate_precision_casts": True,
    "eager_numerics.division_rounding": True,
    "eager_numerics.disable_ftz": True,
}


def available(device: str) -> bool:
    """Return whether kernels can be made here: there is a C++ compiler, or an accelerator."""
    return device != "cpu" or any(map(shutil.which, COMPILERS))


def compiled(function: Kernel, examples: Sequence[Any]) -> Kernel:
    """Return a kernel for tensors of any size, called with its arguments by position.

    It is called without a look at its arguments, which takes as long as merging 50,000 entries: the
    caller sees to it that number, types, devices and dimensions are those of the examples.

    Args:
        function: Works on tensors, or lists of them, in place; or returns tensors.
        examples: Its arguments, the first a tensor of the kernel's device, large enough to be worth
            several threads. Sizes that are equal here are equal in every call, as are sizes of 1.
    """
    import torch

    own = {**ON_CPU, **_for_gpp()} if examples[0].device.type == "cpu" else ELSEWHERE
    made: Any = torch.compile(function, dynamic=True, fullgraph=True, options={**OPTIONS, **own})
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="bf16 and fp16 are mixed")  # computed in float32
        kernel = made.aot_compile((tuple(examples), {}))
    kernel.disable_guard_check()
    return cast(Kernel, kernel)


@functools.cache
def _for_gpp() -> dict[str, Any]:
    """Return what makes g++ write good loops of torch's vector code.

    ``-mmove-max``: torch's kernels load whole numbers through a buffer that g++ fills by halves of
    a vector; to read it at once the processor then waits until both are written: four times the
    time of a loop that sums integers. ``-fno-ivopts``: g++ makes a counter of its own of every
    address and every entry's place, more than there are registers (dev/LOG.md).
    """
    import torch

    compiler = shutil.which(os.environ.get("CXX", COMPILERS[0]))  # as torch chooses it
    if compiler is None:
        return {}
    bits = 512 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 256
    wide = (f"-mmove-max={bits}", f"-mstore-max={bits}")
    known = [flag for flag in ("-fno-ivopts", *wide) if _takes(compiler, flag)]
    return {"cpp.march": " ".join(["native", *known])} if platform.machine() == "x86_64" else {}


def _takes(compiler: str, flag: str) -> bool:
    """Return whether a compiler knows a flag; g++ before 12, or clang by that name, may not."""
    command = [compiler, "-Werror", flag, "-E", "-x", "c++", "-"]
    return subprocess.run(command, input=b"", capture_output=True, check=False).returncode == 0
