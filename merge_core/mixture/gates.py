"""The routers of a mixture as a parent: what chooses experts in every layer, made or read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from merge_core.contract import Tensor
from merge_core.errors import CheckpointError, ShapeError, warn
from merge_core.mixture.prompts import Key, vectors
from merge_core.numerics.bernoulli import key_for
from merge_core.parents.protocol import Parent
from merge_core.parents.weight_files import FLOATS, TensorInfo
from merge_core.recipe.mixture_schema import PROMPTED, Expert, Mixture

GATES = "(routers)"  # the parent's name in plans; references are never written so
ALIKE = 5.0  # condition number of a router, above which some experts get little


@dataclass(frozen=True)
class Router:
    """One router tensor, ``(experts, hidden)``: a logit for each expert is its product."""

    layer: int  # of the result
    experts: tuple[Expert, ...]  # those of its rows
    divisor: float  # of all its logits


class Gates(Parent):
    """The routers, and corrections of their choice, which are zeros.

    Args:
        mixture: What they are made for.
        seed: Of those that are drawn.
        base: What reads prompts, with as many layers as the result.
        file: What they are read from with ``gate_mode: trained``.
        routers: By their names in the result.
        zeros: Name -> shape of the corrections.
        hidden: Width of the model.
        layers: How many the result has.

    Raises:
        CheckpointError: The file lacks one, or has others; one is not finite.
        ShapeError: One has another shape there.
    """

    located = None

    def __init__(
        self,
        mixture: Mixture,
        seed: int,
        base: Parent,
        file: Parent | None,
        routers: Mapping[str, Router],
        zeros: Mapping[str, tuple[int, ...]],
        hidden: int,
        layers: int,
    ) -> None:
        self.reference, self.folder, self.config = GATES, base.folder, base.config
        self._mixture, self._seed, self._base, self._file = mixture, seed, base, file
        self._routers, self._zeros = routers, zeros
        self._hidden, self._layers = hidden, layers
        shapes = {name: (len(router.experts), hidden) for name, router in routers.items()}
        self.tensors = {
            name: TensorInfo("", shape, "F32") for name, shape in {**shapes, **zeros}.items()
        }
        if file is not None:
            _check_file(file, shapes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the routers in the result; their corrections are none."""
        return tuple(self._routers)

    def tensor(self, name: str) -> Tensor:
        """Return a router in float32, times the experts' scales and over the temperature."""
        import torch

        if name in self._zeros:
            return torch.zeros(self._zeros[name])
        router = self._routers[name]
        scales = [expert.gate_scale / router.divisor for expert in router.experts]
        rows = self._rows(name, router)
        return rows if {*scales} == {1.0} else rows * torch.tensor(scales).unsqueeze(1)

    def makes(self, name: str) -> bool:
        """See ``Parent``; so a live model's routers are its own, and may learn."""
        return True

    def expect(self, name: str) -> None:
        """See ``Parent``; there is nothing to do."""

    def _rows(self, name: str, router: Router) -> Tensor:
        import torch

        mode, shape = self._mixture.gate_mode, self.tensors[name].shape
        if self._file is not None:
            return self._file.tensor(name).float()
        if mode in PROMPTED:
            return torch.stack([self._vectors[key(mode, x)][router.layer] for x in router.experts])
        stream = torch.Generator().manual_seed(key_for(self._seed, name, mode) >> 1)
        if mode == "random":
            return torch.randn(shape, generator=stream)
        most = math.sqrt(1 / self._hidden)
        return torch.rand(shape, generator=stream) * (2 * most) - most

    @cached_property
    def _vectors(self) -> dict[Key, Tensor]:
        """Prompts -> their vectors, ``(layers, hidden)`` float32."""
        mode, routers = self._mixture.gate_mode, self._routers.values()
        keys = list(dict.fromkeys(key(mode, x) for router in routers for x in router.experts))
        made = vectors(self._base, keys, self._layers)
        found = {k: x.float() for k, x in zip(keys, made, strict=True)}
        chosen = [router for router in routers if len(router.experts) > 1]
        _warn_of_alike([[found[key(mode, x)][r.layer] for x in r.experts] for r in chosen])
        return found


def key(mode: str, expert: Expert) -> Key:
    """Return what an expert's row is made from."""
    return mode, expert.positive_prompts, expert.negative_prompts


def _warn_of_alike(routers: Sequence[Sequence[Any]]) -> None:
    import torch

    conditions = [float(torch.linalg.cond(torch.stack(list(rows)))) for rows in routers]
    alike = [number for number in conditions if not number <= ALIKE]
    if alike:
        warn(
            f"the routers' rows are nearly alike in {len(alike)} of {len(routers)} layers "
            f"(condition number up to {max(alike):.3g}), so some experts get little; give them "
            f"prompts that differ more"
        )


def _check_file(file: Parent, shapes: Mapping[str, tuple[int, ...]]) -> None:
    missing = [name for name in shapes if name not in file.tensors]
    extra = sorted(file.tensors.keys() - shapes.keys())
    if missing or extra:
        name, rule = (missing[0], "lacks") if missing else (extra[0], "has")
        more = "which the mixture needs" if missing else "which is no router of the mixture"
        raise CheckpointError(
            f"moe.gates: {file.folder} {rule} {name}, {more} ({len(missing) + len(extra)} such); "
            f"train the routers of this mixture"
        )
    for name, shape in shapes.items():
        info = file.tensors[name]
        if info.shape != shape:
            raise ShapeError(
                f"moe.gates: {file.folder} has {name} as {info.shape}, the mixture needs {shape}; "
                f"train the routers of this mixture"
            )
        if info.dtype not in FLOATS or not bool(file.tensor(name).isfinite().all()):
            raise CheckpointError(
                f"moe.gates: {name} in {file.folder}: expected finite floats; train them again"
            )
