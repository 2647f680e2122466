"""Question: does what a candidate costs grow with the number of its tensors, or faster?

Carries out the steps of plans on parents of many tiny tensors, as a model of many experts has them,
twice as a study does, and says what changed between the two as a live candidate does. Prints, for
each number of tensors, microseconds of a tensor and operation, comparisons of operands for a
tensor, and bytes kept for a tensor: each must stay where it is while the number grows.

    python benchmarks/growth.py --method ties --trim global --tensors 500,1000,2000,4000
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from merge_core.merge.execute import Merging
from merge_core.methods.registry import method
from merge_core.output.live_model import _origin
from merge_core.parents.protocol import Parent
from merge_core.parents.weight_files import TensorInfo
from merge_core.plan.steps import Operand, Plan, Step
from merge_core.recipe.schema import Recipe
from merge_core.testing import usual

SHAPE = (4, 8)
MODELS = ("one", "two", "three")


class Memory(Parent):
    """A parent of random tensors in memory."""

    def __init__(self, name: str, count: int) -> None:
        self.reference, self.located, self.folder, self.config = name, None, Path(), {}
        stream = torch.Generator().manual_seed(len(name))
        weights = torch.randn(count, *SHAPE, generator=stream).bfloat16()
        self._weights = {f"layers.{i}.weight": weights[i] for i in range(count)}
        self.tensors = {name: TensorInfo("", SHAPE, "BF16") for name in self._weights}

    def tensor(self, name: str) -> torch.Tensor:
        """Return a tensor."""
        return self._weights[name]

    def expect(self, name: str) -> None:
        """Nothing is on its way."""


def planned(parents: dict[str, Parent], name: str, trim: str, weight: float) -> Plan:
    """Return a plan with usual parameters, but for weight, density, and how is trimmed."""
    found = method(name)
    given: dict[str, Any] = {"weight": weight, "density": 0.4, "trim": trim}
    values = {
        scope: {p.name: given.get(p.name, usual(p)) for p in found.params if p.scope == scope}
        for scope in ("model", "shared")
    }
    steps = tuple(
        Step(
            tensor,
            SHAPE,
            tuple(Operand(name, tensor) for name in MODELS),
            Operand("base", tensor),
            (values["model"],) * len(MODELS),
            values["shared"],
            (1, 2, 3),
        )
        for tensor in parents["base"].tensors
    )
    recipe = Recipe(merge_method=name, base_model="base")
    return Plan(recipe, {}, parents, found, "base", "base", {}, "bfloat16", steps, {})


def main() -> None:
    """Build, count, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="ties")
    parser.add_argument("--trim", default="global", choices=("tensor", "global"))
    parser.add_argument("--tensors", default="500,1000,2000,4000")
    arguments = parser.parse_args()
    equal, compared = Operand.__eq__, 0

    def counting(a: Operand, b: object) -> Any:
        nonlocal compared
        compared += 1
        return equal(a, b)

    Operand.__eq__ = counting  # type: ignore[method-assign, assignment]
    print(
        f"{'tensors':>8} {'first us':>9} {'again us':>9} {'told us':>8} {'compared':>9} {'kept':>7}"
    )
    for count in map(int, arguments.tensors.split(",")):
        parents: dict[str, Parent] = {x: Memory(x, count) for x in ("base", *MODELS)}
        merging, rows, held = Merging(room=2**40), [], {}
        compared = 0
        for weight in (0.3, 0.4):
            plan = planned(parents, arguments.method, arguments.trim, weight)
            with merging.execution(plan) as execution:
                start = time.perf_counter()
                for step in plan.steps:
                    execution.carry_out(step)
                rows.append(time.perf_counter() - start)
        for _ in range(2):
            plan = planned(parents, arguments.method, arguments.trim, 0.4)
            with merging.execution(plan) as execution:
                start = time.perf_counter()
                wanted = {step.tensor: _origin(plan, execution, step) for step in plan.steps}
                changed = [x for x in plan.steps if held.get(x.tensor) != wanted[x.tensor]]
                told, held = time.perf_counter() - start, wanted
        assert not changed
        times = " ".join(f"{x / count * 1e6:9.0f}" for x in rows)
        kept = merging.known.used / count
        print(f"{count:8} {times} {told / count * 1e6:8.1f} {compared / count:9.1f} {kept:7.0f}")


if __name__ == "__main__":
    main()
