"""What scores and draws come from beside a study: libraries, machine and live engine; plain values.

Two runs of one study in different environments may differ in the last bits of scores, and so in
what is drawn next.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluators.engines.vllm.process import VllmOptions
from merge_core import rounding
from search.spec.sections import Engine
from search.trial.backends import device_of

Environment = Mapping[str, Any]
ENGINE = "engine"  # key of what is known once a candidate is scored, see ``Worker.engine``
TOLD = {  # key -> why another value stops no run; every other key does
    "mergetune": "its changelog says where it scores or draws otherwise",
    "cpu": "its kernels go by `processor`, which is compared",
}
ASKED = ("threads", "batch_size")  # what the study file asks for, and tells of itself
_INFO = Path("/proc/cpuinfo")
_BLAS = {  # torch's words -> a name for the version behind them
    "mkl": r"Math Kernel Library Version (\S+)",
    "openblas": r"OpenBLAS (\S+)",
    "oneDNN": r"MKL-DNN v(\S+)",
}


@dataclass(frozen=True)
class Differing:
    """A fact of an environment that is another one than it was."""

    key: str
    was: Any
    now: Any

    @property
    def stops(self) -> bool:
        """Whether it may change a score or a draw, and no word of the user's stands for it."""
        return self.key not in TOLD and self.key not in ASKED

    def plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"key": self.key, "was": self.was, "is": self.now}

    def __str__(self) -> str:
        return f"{self.key} was {_said(self.was)}, is {_said(self.now)}"


def environment_of(
    engine: Engine, placement: str, threads: int, versions: Mapping[str, str]
) -> dict[str, Any]:
    """Return what is known of this process before a candidate is scored.

    ``python`` counts, as its sum of floats is another one since 3.12. ``merges_on``: whether
    candidates are merged on the ``cpu`` or on the ``device``.

    Args:
        engine: The study file's section.
        placement: Of the parents: ``mapped``, ``pinned`` or ``device``.
        threads: Of the CPU.
        versions: Library -> its version.
    """
    found = {
        **versions,
        "python": "{}.{}".format(*sys.version_info),
        "threads": threads,
        "batch_size": engine.batch_size,
        "merges_on": _merges_on(placement),
        "cpu": _cpu(),
    }
    if engine.name == "vllm":  # knows its device itself, once it is up
        share = engine.gpu_memory_utilization or VllmOptions.gpu_memory_utilization
        return {**found, "gpu_memory_utilization": share}
    return {**found, **_device(device_of(engine))}


def before_runs(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the environment that a study began in, as far as earlier versions noted it."""
    return {
        **about.get("versions", {}),
        "threads": about["threads"],
        "merges_on": _merges_on(about.get("placement", "mapped")),
        ENGINE: about.get(ENGINE, {}),
    }


def made_in(
    about: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], number: int
) -> Environment:
    """Return the environment of the run that settled a trial.

    Args:
        about: What was stored when the study began.
        runs: See ``Record.runs``.
        number: Of the trial.
    """
    found = [run for run in runs if run["trials"] <= number]
    environment: Environment = found[-1]["environment"] if found else before_runs(about)
    return environment


def asked_in(environment: Environment) -> dict[str, int]:
    """Return what the study file asked for in an environment, as far as it is known."""
    found = _flat(environment)
    return {key: found[key] for key in ASKED if isinstance(found.get(key), int)}


def asked_otherwise(
    about: Mapping[str, Any] | None, runs: Sequence[Mapping[str, Any]], number: int
) -> dict[str, int]:
    """Return what the last run's file asked for, if that is not what settled a trial.

    Args:
        about: As in ``made_in``; None: the study has not begun.
        runs: As there.
        number: As there.
    """
    if about is None or not runs:
        return {}
    now = asked_in(runs[-1]["environment"])
    return {} if now == asked_in(made_in(about, runs, number)) else now


def differences(was: Environment, now: Environment) -> list[Differing]:
    """Return what differs of all that is known of both environments."""
    one, other = _flat(was), _flat(now)
    return [
        Differing(key, value, other[key])
        for key, value in one.items()
        if key in other and other[key] != value
    ]


def _flat(environment: Environment) -> dict[str, Any]:
    own = {key: value for key, value in environment.items() if key != ENGINE}
    return {**environment.get(ENGINE, {}), **own}


def _merges_on(placement: str) -> str:
    return "cpu" if placement == "mapped" else "device"


def _device(name: str) -> dict[str, Any]:
    import torch

    device = torch.device(name)
    if device.type == "cuda":
        return {
            "device": torch.cuda.get_device_name(device),
            "cuda": torch.version.cuda,
            "hip": torch.version.hip,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        }
    if device.type != "cpu":
        return {"device": device.type}
    processor = [platform.machine(), torch.backends.cpu.get_cpu_capability()]
    found: dict[str, Any] = {
        "device": "cpu",
        "processor": processor,
        "blas": _blas(torch.__config__.show()),
    }
    if torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]  # how its products round
        found["mkl_cbwr"] = os.environ.get(rounding.MODE)
    return found


def _blas(said: str) -> str:
    """Return which libraries multiply matrices, by what torch says of its build."""
    name = re.search(r"BLAS_INFO=(\w+)", said)
    found = {key: re.search(pattern, said) for key, pattern in _BLAS.items()}
    versions = [f"{key} {match[1]}" for key, match in found.items() if match]
    return ", ".join([*([name[1]] if name and not found.get(name[1]) else []), *versions])


def _cpu() -> str:
    lines = _INFO.read_text(encoding="utf-8").splitlines() if _INFO.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _said(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "none" if value is None else str(value)
