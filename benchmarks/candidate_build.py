"""Question: does building a candidate cost what moving its bytes costs?

Prints build / roof for every merge method, from one process. *build* overwrites the live model with
a merge of bfloat16 parents (whose pages are in memory), checks that it is finite and hashes it;
every round has other weights, so that all tensors change. *roof* is the time of moving the same
bytes with plain copies: all parents read once, the result written once. What a study computes once
(thresholds, ranks, dot products) is computed in a first build and shown by itself. *band*: a build
after a change in one of the eight layers alone, over a full build, beside their share of the
entries. *extra*: the greatest anonymous memory of builds, without the live model and what is kept.

With ``--mergekit METHOD ...`` also the time of ``mergekit-yaml`` on the same recipe, whole process.

With ``--device cuda`` live model and parents are on the accelerator (``--parents pinned``: parents
in pinned memory), *roof* is copies on the device, waited for, and *extra* is its memory.

    python benchmarks/candidate_build.py --millions 250 --experts 2 4 --threads 2
    python benchmarks/candidate_build.py --millions 7000 --experts 2 --device cuda --methods linear

The second: three parents of 7 billion parameters. On disk they take 39 GiB, on the device too, with
13 GiB each for the live model and the roof; making them takes 28 GiB and more of the host's memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memory import Peak, anonymous
from parents import make_parents, recipe_for

BAND = ".3."  # of the names of a layer's tensors


def touched(recipe: Any, i: int, band: str | None = None) -> Any:
    """Return the recipe of round ``i``: other weights, or other ``t``, where the method has any.

    Args:
        recipe: With plain numbers.
        i: The round.
        band: Change them for tensors with this in their name only.
    """
    from dataclasses import replace

    from merge_core.recipe.schema import Conditional

    def moved(settings: Any) -> Any:
        return tuple((k, other(v) if k in ("weight", "t") else v) for k, v in settings)

    def other(value: float) -> Any:
        changed = value * (1 + i / 1000)
        return changed if band is None else (Conditional(band, changed), Conditional(None, value))

    models = tuple(replace(source, parameters=moved(source.parameters)) for source in recipe.models)
    return replace(recipe, models=models, parameters=moved(recipe.parameters))


def seconds(act: Callable[[], Any], device: str = "cpu") -> float:
    """Return how long ``act`` takes, until a device has done all of it."""
    import torch

    wait = torch.cuda.synchronize if device != "cpu" else lambda: None
    wait()
    start = time.perf_counter()
    act()
    wait()
    return time.perf_counter() - start


class Roof:
    """Plain copies of a model's tensors, from memory to memory of one device."""

    def __init__(self, parent: Any, device: str) -> None:
        self._device = device
        found = [parent.tensor(name) for name in sorted(parent.tensors)]
        self._source = [x.clone() for x in found] if device == "cpu" else found
        self._target = [tensor.clone() for tensor in self._source]

    def seconds(self, models: int) -> float:
        """Return the time of reading ``models`` models and writing one."""

        def copy() -> None:
            for to, tensor in zip(self._target, self._source, strict=True):
                to.copy_(tensor)

        return seconds(copy, self._device) * (models + 1) / 2  # a copy reads one and writes one


def measure(
    method: Any, names: list[str], parents: Any, roof: Roof, options: argparse.Namespace
) -> dict[str, Any]:
    """Return one row: medians of rounds, each beside the roof of the same moment."""
    from merge_core.merge.nested import plan
    from merge_core.output.live_model import Candidate

    recipe = recipe_for(method, names)
    used = {name: parents[name] for name in recipe.references()}
    gc.collect()  # the last method's candidate
    candidate = Candidate(options.device, fuse=not options.blocked)
    candidate.build(plan(touched(recipe, 0), used))
    pairs = []
    for i in range(1, options.rounds + 1):
        made = plan(touched(recipe, i), used)
        candidate.touch()
        took = seconds(lambda made=made: candidate.build(made), options.device)
        pairs.append((took, roof.seconds(len(used))))
    full = statistics.median(build for build, _ in pairs)
    candidate.touch()
    peak = most(options.device, lambda: candidate.build(made))
    kept = candidate.known.used + sum(x.nbytes for x in candidate.model.parameters())
    return {
        "method": method.name,
        "experts": len(names) - 1,
        "seconds": full,
        "over_roof": statistics.median(build / least for build, least in pairs),
        "path": candidate.path,
        "models": len(used),
        "roof_s": statistics.median(least for _, least in pairs),
        "once_s": candidate.known.seconds,
        "once_mib": candidate.known.used / 2**20,
        "extra_mib": (peak - options.before - kept) / 2**20,
        **band(candidate, recipe, used, full, options.rounds),
    }


def most(device: str, act: Callable[[], Any]) -> int:
    """Return the greatest memory while ``act`` runs, of the device or anonymous, in bytes."""
    import torch

    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
        act()
        return torch.cuda.max_memory_allocated(device)
    with Peak() as peak:
        act()
    return peak.bytes


def band(
    candidate: Any, recipe: Any, used: Any, full: float, rounds: int
) -> dict[str, float | None]:
    """Return what a change in one band of layers costs over a full build, and the band's share.

    None where the method has neither weights nor ``t``.
    """
    from merge_core.merge.nested import plan

    if touched(recipe, 1) == recipe:
        return {"band_over_full": None, "band_share": None}
    candidate.build(plan(touched(recipe, 0, BAND), used))
    took = []
    for i in range(1, rounds + 1):
        made = plan(touched(recipe, i, BAND), used)
        took.append(seconds(lambda made=made: candidate.build(made)))
    sizes = {step.tensor: math.prod(step.shape) for step in made.steps}
    share = sum(size for name, size in sizes.items() if BAND in name) / sum(sizes.values())
    return {"band_over_full": statistics.median(took) / full, "band_share": share}


def by_mergekit(method: Any, names: list[str], folder: Path, threads: int) -> float:
    """Return the seconds of ``mergekit-yaml``, the whole process, in float32 arithmetic."""
    import shutil
    import subprocess
    import sys

    text = recipe_for(method, names).to_yaml().replace("dtype: bfloat16", "dtype: float32")
    (folder / "recipe.yaml").write_text(f"{text}out_dtype: bfloat16\n")
    program = Path(sys.executable).with_name("mergekit-yaml")
    command = [str(program), "recipe.yaml", "out", "--no-copy-tokenizer", "--no-write-model-card"]
    shutil.rmtree(folder / "out", ignore_errors=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return seconds(
        lambda: subprocess.run(
            command, cwd=folder, check=True, env=environment, capture_output=True
        )
    )


def opened(names: list[str], folder: Path, options: argparse.Namespace) -> Any:
    """Return the parents by name, where the options want them."""
    from merge_core.parents.open import open_parents
    from merge_core.parents.residency import Store

    store = Store()
    parents = open_parents(names, [folder], store.open)
    if options.device != "cpu":
        store.place(options.parents, options.device)
        for parent in parents.values():
            for name in parent.tensors:
                parent.tensor(name)  # first use puts it there
    return parents


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure every method asked for, printing as it goes."""
    import torch

    from merge_core.merge.statistics_cache import give_back
    from merge_core.methods.registry import METHODS, method

    if options.threads:
        torch.set_num_threads(options.threads)
    names = make_parents(folder, options.millions, max(options.experts))
    parents = opened(names, folder, options)
    roof = Roof(parents["base"], options.device)
    far = options.device != "cpu"
    give_back()  # what making the parents left
    options.before = torch.cuda.memory_allocated() if far else anonymous(os.getpid())
    rows = []
    for count in options.experts:
        for name in options.methods or METHODS.names():
            row = measure(method(name), names[: count + 1], parents, roof, options)
            rows.append(row)
            if not options.json:
                print(
                    f"{name:16} {count} experts: build/roof {row['over_roof']:6.2f} "
                    f"({row['seconds']:.3f} s, {row['path']}; once {row['once_s']:.2f} s, "
                    f"{row['once_mib']:.0f} MiB; extra {row['extra_mib']:.0f} MiB"
                    + (
                        f"; band {row['band_over_full']:.3f} for {row['band_share']:.3f})"
                        if row["band_share"]
                        else ")"
                    ),
                    flush=True,
                )
    found = {
        "benchmark": "candidate_build",
        "parameters": sum(x.numel() for x in roof._source),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if far else "cpu",
        "torch": torch.__version__,
        "roof_s": statistics.median(row["roof_s"] for row in rows),
        "rows": rows,
        "mergekit": [],
    }
    for name in options.mergekit:
        took = by_mergekit(method(name), names[:3], folder, torch.get_num_threads())
        ours = next(r["seconds"] for r in rows if r["method"] == name and r["experts"] == 2)
        found["mergekit"].append({"method": name, "seconds": took, "ratio": took / ours})
        if not options.json:
            print(f"{name:16} mergekit-yaml/build {took / ours:.1f} ({took:.1f} s)", flush=True)
    return found


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--millions", type=float, default=25, help="parameters of a model")
    parser.add_argument("--experts", type=int, nargs="+", default=[2], help="beside the base")
    parser.add_argument("--threads", type=int, help="of torch; its own choice if not given")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each method")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="all if not given")
    parser.add_argument("--mergekit", nargs="*", default=[], metavar="NAME", help="compare these")
    parser.add_argument("--blocked", action="store_true", help="without fused kernels")
    parser.add_argument("--device", default="cpu", help="of the live model: cpu or cuda")
    parser.add_argument(
        "--parents", default="device", choices=["device", "pinned"], help="with --device cuda"
    )
    parser.add_argument("--json", action="store_true", help="print the JSON line only")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(options, Path(folder))))


if __name__ == "__main__":
    main()
