"""What each merge method does to weights, drawn: the method itself merges the vectors shown.

All pictures of one kind have the same models, so that methods can be compared by them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dev.docs.drawing import COLOURS, MERGED, PALE, Arrow, Row, bars, plane
from merge_core.contract import Inputs, Method
from merge_core.kernels.run import merge

GROUPS = ("agree", "disagree", "only model 1", "only model 2", "noise")
ENTRIES = 5 * len(GROUPS)
# what differs from a method's defaults in its picture; weights are 1 where they must be given
SHOWN: Mapping[str, Mapping[str, Any]] = {
    "ties": {"density": 0.4},
    "dare_linear": {"density": 0.5, "rescale": "inverse_density"},
    "dare_ties": {"density": 0.5, "rescale": "inverse_density"},
    "della": {"density": 0.5, "epsilon": 0.3, "normalize": False},
    "della_linear": {"density": 0.5, "epsilon": 0.3},
    "breadcrumbs": {"density": 0.5, "gamma": 0.1},
    "breadcrumbs_ties": {"density": 0.5, "gamma": 0.1},
    "sce": {"select_topk": 0.5},
    "nearswap": {"t": 0.3},
    "passthrough": {"scale": 0.5},
    "linear": {"weight": 0.5},
    "ram": {"epsilon": 0.2},
    "ramplus_tl": {"epsilon": 0.2, "r": 1.0, "alpha": 1.0},
}
SPIKED = {"arcee_fusion": 4}  # looks for outliers, so its model's entries are raised to this power
PLANES = ("slerp", "nuslerp", "karcher", "multislerp", "model_stock")
SPECTRA = ("iso_c", "tsv_m")
Point = tuple[float, float]


def task_vectors() -> list[Tensor]:
    """Return two task vectors, ``(ENTRIES,)``, in the order of ``GROUPS``."""
    first = [0.9, 0.6, -0.7, -0.45, 0.3, 0.8, -0.5, 0.6, -0.3, 0.25]
    second = [0.5, 0.8, -0.4, -0.7, 0.35, -0.5, 0.7, -0.35, 0.4, -0.3]
    own, rest = [0.85, -0.6, 0.4, -0.3, 0.5], [0.05, 0.02, -0.06, -0.03, 0.04]
    noise = [0.12, -0.08, 0.1, -0.14, 0.06]
    return [
        torch.tensor(first + own + rest + noise),
        torch.tensor(second + rest + [-x for x in own] + noise[::-1]),
    ]


def inputs(method: Method, base: Tensor | None, models: Sequence[Tensor], **given: Any) -> Inputs:
    """Return a method's inputs, with the parameters of its picture."""
    given = {"weight": 1.0, "t": 0.5, **SHOWN.get(method.name, {}), **given}

    def values(scope: str) -> dict[str, Any]:
        return {p.name: given.get(p.name, p.default) for p in method.params if p.scope == scope}

    several = [values("model") for _ in models]
    return Inputs(
        models=models,
        base=base if method.base != "none" else None,
        values=several,
        shared=values("shared"),
        keys=[7_000_003 + i for i in range(len(models))],
    )


def caption(method: Method) -> str:
    """Return the parameters that a picture was made with."""
    given = {"weight": 1.0, "t": 0.5, **SHOWN.get(method.name, {})}
    shown = [f"{p.name} {given[p.name]}" for p in method.params if p.name in given]
    return ", ".join(shown) if shown and method.name not in PLANES else ""


def picture(method: Method) -> str:
    """Return the SVG of one method."""
    if method.name in PLANES:
        return _PLANES[method.name](method)
    return _spectrum(method) if method.name in SPECTRA else _bars(method)


def _bars(method: Method) -> str:
    base = torch.zeros(ENTRIES)
    models = task_vectors()[: (method.models[1] or 99) - (method.base != "none")]
    power = SPIKED.get(method.name, 1)
    models = [x.sign() * x.abs() ** power for x in models]
    given = inputs(method, base, models)
    merged = merge(method, given)
    weights = [float(values.get("weight", 1.0)) for values in given.values]
    plain = sum((w * x for w, x in zip(weights, models, strict=True)), torch.zeros(ENTRIES))
    named = "weights" if method.base == "none" else "change"
    rows = [Row(f"model {i + 1}: {named}", x.tolist(), COLOURS[i]) for i, x in enumerate(models)]
    rows.append(Row("merged", merged.tolist(), MERGED, plain.tolist()))
    title = f"What {method.name} makes of {len(models)} vectors of {ENTRIES} entries"
    return bars(title, rows, groups=GROUPS[: 5 if len(models) > 1 else 0])


def _spectrum(method: Method) -> str:
    stream = torch.Generator().manual_seed(3)
    size = 16
    strength = torch.tensor([2.0 ** (-i / 1.5) for i in range(size)])
    models = []
    for share in (1.0, 0.5):
        left, _ = torch.linalg.qr(torch.randn(size, size, generator=stream))
        right, _ = torch.linalg.qr(torch.randn(size, size, generator=stream))
        models.append(share * left @ torch.diag(strength) @ right)
    merged = merge(method, inputs(method, torch.zeros(size, size), models))
    several = [*models, sum(models, torch.zeros(size, size)), merged]
    names = ("model 1", "model 2", "plain sum", "merged")
    colours = (*COLOURS[:2], PALE, MERGED)
    rows = [
        Row(name, torch.linalg.svdvals(x).tolist(), colour)
        for name, x, colour in zip(names, several, colours, strict=True)
    ]
    title = f"Singular values of two task vectors, their sum, and what {method.name} makes of them"
    return bars(title, rows, signed=False)


def _turned(degrees: float, length: float) -> Tensor:
    angle = math.radians(degrees)
    return length * torch.tensor([math.cos(angle), math.sin(angle)])


def _point(vector: Tensor) -> Point:
    return float(vector[0]), float(vector[1])


ONE, TWO = _turned(100, 1.0), _turned(15, 1.25)
NEAR = _turned(70, 1.0), _turned(25, 1.25)  # as task vectors of one task are
STEPS = [i / 24 for i in range(25)]


def _slerp(method: Method) -> str:
    path = [_point(merge(method, inputs(method, ONE, [TWO], t=t))) for t in STEPS]
    return _between(method, path, "t 0.5")


def _nuslerp(method: Method) -> str:
    path = []
    for t in STEPS:
        given = inputs(method, None, [ONE, TWO])
        given = Inputs(**{**vars(given), "values": [{"weight": 1 - t}, {"weight": t}]})
        path.append(_point(merge(method, given)))
    return _between(method, path, "equal weights")


def _between(method: Method, path: Sequence[Point], name: str) -> str:
    arrows = [
        Arrow("model 1", _point(ONE), COLOURS[0]),
        Arrow("model 2", _point(TWO), COLOURS[1]),
        Arrow(name, path[len(path) // 2], MERGED),
        Arrow("mean", _point((ONE + TWO) / 2), PALE, dot=True),
    ]
    title = f"{method.name} turns from one model to the other; a mean goes straight and is shorter"
    return plane(title, arrows, path=path, chord=[_point(ONE), _point(TWO)])


def _middle(method: Method) -> str:
    merged = _point(merge(method, inputs(method, None, [ONE, TWO])))
    arrows = [
        Arrow("model 1", _point(ONE), COLOURS[0]),
        Arrow("model 2", _point(TWO), COLOURS[1]),
        Arrow("merged", merged, MERGED),
        Arrow("mean", _point((ONE + TWO) / 2), PALE, dot=True),
    ]
    title = f"{method.name} keeps the length that a mean loses"
    return plane(title, arrows, chord=[_point(ONE), _point(TWO)])


def _stock(method: Method) -> str:
    one, two = NEAR
    merged = _point(merge(method, inputs(method, torch.zeros(2), [one, two])))
    mean = _point((one + two) / 2)
    arrows = [
        Arrow("base", (0.0, 0.0), PALE, dot=True),
        Arrow("model 1", _point(one), COLOURS[0]),
        Arrow("model 2", _point(two), COLOURS[1]),
        Arrow("merged", merged, MERGED),
        Arrow("mean", mean, PALE, dot=True),
    ]
    title = "model_stock stays nearer to the base the wider the angle between the task vectors"
    return plane(title, arrows, chord=[(0.0, 0.0), mean])


_PLANES: Mapping[str, Callable[[Method], str]] = {
    "slerp": _slerp,
    "nuslerp": _nuslerp,
    "karcher": _middle,
    "multislerp": _middle,
    "model_stock": _stock,
}
