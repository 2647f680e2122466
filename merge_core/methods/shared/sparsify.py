"""Which entries of a task vector stay, and how the rest makes up for the lost ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from merge_core.contract import Block, Cut, Inputs, Param, Prepared
from merge_core.errors import ParameterError
from merge_core.kernels.eager import of_model
from merge_core.methods.shared.ranks import PART, ranks
from merge_core.numerics import exact_sums, order_statistics
from merge_core.numerics.bernoulli import coins, highest, split

if TYPE_CHECKING:
    from torch import Tensor

COINS = 2.0**32  # different ones, half of them below zero
GRID = 100  # densities of a hundredth and its multiples are found all at once
GAMMA = Param(
    "gamma",
    "share of task vector entries, the largest, that are dropped",
    low=0,
    high=0.1,
    default=0.01,
    minimum=0,
    maximum=1,
)
EPSILON = Param(
    "epsilon",
    "how far the keep probability of the smallest and largest entries is from density",
    low=0,
    high=0.3,
    default=0.15,
    minimum=0,
    maximum=0.5,
)


def rescale(default: bool) -> Param:
    """Return the parameter ``rescale``; true means ``l1``, false means ``none``."""
    return Param(
        "rescale",
        "l1 (true): give the kept entries the L1 norm of all; inverse_density: divide by density",
        default=default,
        scope="shared",
        choices=(True, False, "l1", "inverse_density", "none"),
    )


@dataclass(frozen=True)
class Rule:
    """A way to choose entries.

    Args:
        name: ``largest`` (TIES, arXiv:2306.01708, step 1): the ``max(1, floor(density n))`` of
            greatest magnitude, of equals those of lowest index. ``middle`` (Model Breadcrumbs,
            arXiv:2312.06795, section 3): without the ``floor(gamma n)`` largest, ``floor(density
            n)`` below them; where that is more than there are, the smallest stay and the largest
            go; equals rank by index. ``coins`` (DARE, arXiv:2311.03099, equation 1): each with
            probability ``density``. ``ranks`` (DELLA, arXiv:2406.11617, MagPrune): the same with a
            probability that rises evenly with the rank of the magnitude in its row, from ``density
            - epsilon`` to ``density + epsilon``, rounded by at most ``epsilon / 4096``; a tensor of
            one dimension is one row.
    """

    name: Literal["largest", "middle", "coins", "ranks"]


@dataclass(frozen=True)
class Kept:
    """What the entry function needs to choose entries, and the factor on those chosen."""

    scales: Sequence[float]
    numbers: Mapping[str, Sequence[float]] = field(default_factory=dict)
    words: Mapping[str, Sequence[int]] = field(default_factory=dict)
    changes: Sequence[tuple[int, Mapping[str, Sequence[float]]]] = ()
    arrays: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)


def kept(inputs: Inputs, rule: Rule | None) -> Kept:
    """Return what stays of every task vector, and by how much it is scaled.

    The factor is 1 where ``rescale`` is none; ``1 / density`` for ``inverse_density``, unbiased, as
    in the DARE paper; for ``l1`` (or true) it is ``L1(d_i) / L1(kept)``, or 1 where either is below
    1e-7, as the mergekit dialect has it. Density 1 keeps all, and draws nothing.

    Raises:
        ParameterError: ``density - epsilon`` or ``density + epsilon`` is not in (0, 1).
    """
    count = len(inputs.models)
    if rule is None:
        return Kept([1.0] * count)
    found = _FINDERS[rule.name](inputs)
    scales = [_scale(inputs, found, rule, i) for i in range(count)]
    return Kept(scales, found.numbers, found.words, found.changes, found.arrays)


def terms(block: Block, rule: str, factors: Sequence[float]) -> list[Tensor]:
    """Return ``factor_i d_i`` of a block, zero where the rule drops an entry; nan stays."""
    import torch

    deltas = block.deltas()
    if not rule:
        return [delta * factor for delta, factor in zip(deltas, factors, strict=True)]
    # Between a number and 0.0, whose bits are all 0, compilers choose in two steps; -0.0 takes one.
    return [
        delta * torch.where(_dropped(block, rule, i, delta), -0.0, factors[i])
        for i, delta in enumerate(deltas)
    ]


def _dropped(block: Block, rule: str, i: int, delta: Tensor) -> Tensor:
    """Return which entries of model ``i`` go: bool."""
    if rule == "largest":
        return delta.abs() < block.numbers["least"][i]
    if rule == "middle":
        size = delta.abs()
        return (size < block.numbers["least"][i]) | (size >= block.numbers["most"][i])
    assert block.places is not None
    words = block.words
    flips = coins(block.places, words["start"][i], words["step"][i])
    if rule == "coins":
        return flips > words["highest"][i]
    return flips.float() >= _limit(block, i)


def _limit(block: Block, i: int) -> Tensor:
    """Return below which coin each entry of model ``i`` stays, from its rank: float32."""
    spread, middle = block.numbers["spread"][i], block.numbers["middle"][i]
    return block.arrays["rank"][i].float() * spread + middle


def chosen(inputs: Inputs, rule: Rule, i: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the task vector of one model, block by block, and what share of every entry stays.

    The share is 0 or 1, and for ``ranks`` the probability.
    """
    for block in _alone(inputs, _FINDERS[rule.name](inputs), i):
        (delta,) = block.deltas()
        if rule.name == "ranks":
            yield delta, (_limit(block, 0) / COINS + 0.5).clamp(max=1)
        else:
            yield delta, (~_dropped(block, rule.name, 0, delta)).float()


def _alone(inputs: Inputs, found: Kept, i: int) -> Iterator[Block]:
    prepared = Prepared(found.numbers, (), found.words, found.changes, arrays=found.arrays)
    return of_model(inputs, prepared, i, PART)


def _sizes(inputs: Inputs, i: int) -> Callable[[], Iterator[Tensor]]:
    """Return a source of ``|d_i|``, part by part, float32."""
    model, base = inputs.models[i].reshape(-1), inputs.base
    assert base is not None
    flat = base.reshape(-1)

    def parts() -> Iterator[Tensor]:
        for start in range(0, model.numel(), PART):
            part = slice(start, start + PART)
            yield (model[part].float() - flat[part].float()).abs_()

    return parts


def _cut(inputs: Inputs, i: int, place: int, *, first_equal_last: bool) -> Cut:
    """Return the cut at a place of the ascending order of ``|d_i|``; those of the grid at once."""
    n = inputs.models[i].numel()
    parts = _sizes(inputs, i)
    if inputs.once is not None and first_equal_last:
        grid = inputs.remembered(
            "cuts of the grid",
            [i],
            lambda: _grid_of_cuts(parts, n),
        )
        if place in grid:
            found: Cut = grid[place]
            return found
    what = ("cut", place, first_equal_last)
    (one,) = inputs.remembered(
        what,
        [i],
        lambda: order_statistics.ranked(parts, [place], first_equal_last=first_equal_last),
    )
    assert isinstance(one, Cut)
    return one


def _grid_of_cuts(parts: exact_sums.Parts, n: int) -> dict[int, Cut]:
    places = sorted({n - max(1, math.floor(j / GRID * n)) for j in range(1, GRID)})
    found = order_statistics.ranked(parts, places, first_equal_last=True)
    return dict(zip(places, found, strict=True))


def _largest(inputs: Inputs) -> Kept:
    least: list[float] = []
    later: list[tuple[int, int, float]] = []  # place, model, what holds from there on
    for i, values in enumerate(inputs.values):
        share, n = float(values["density"]), inputs.models[i].numel()
        if share >= 1 or n == 0:
            least.append(0.0)
            continue
        wanted = max(1, math.floor(share * n))
        given = _given_cut(inputs, i)
        cut = given or _cut(inputs, i, n - wanted, first_equal_last=True)
        least.append(cut.threshold)
        later.append((cut.place, i, above(cut.threshold)))
    return Kept([], {"least": least}, changes=_changes({"least": least}, {"least": later}))


def _given_cut(inputs: Inputs, i: int) -> Cut | None:
    """Return the cut of the whole task vector, if it is asked for and this tensor is not all."""
    return inputs.cuts[i] if inputs.shared.get("trim") == "global" and inputs.cuts else None


def _middle(inputs: Inputs) -> Kept:
    numbers: dict[str, list[float]] = {"least": [], "most": []}
    later: dict[str, list[tuple[int, int, float]]] = {"least": [], "most": []}
    for i, values in enumerate(inputs.values):
        share, n = float(values["density"]), inputs.models[i].numel()
        bottom, top = 0, n
        if share < 1 and n:
            wanted, over = math.floor(share * n), math.floor(float(values["gamma"]) * n)
            bottom = max(0, n - wanted - over)
            top = min(bottom + wanted, n)
        for name, place in (("least", bottom), ("most", top)):
            if place in (0, n):
                numbers[name].append(0.0 if place == 0 else math.inf)
                continue
            cut = _cut(inputs, i, place, first_equal_last=False)
            # equals ahead of the place are on the small side of the cut
            numbers[name].append(above(cut.threshold) if cut.place else cut.threshold)
            if cut.place:
                later[name].append((cut.place, i, cut.threshold))
    return Kept([], numbers, changes=_changes(numbers, later))


def above(threshold: float) -> float:
    """Return the float32 next above a float32."""
    import numpy as np

    return float(np.nextafter(np.float32(threshold), np.float32(math.inf)))


def _changes(
    numbers: Mapping[str, Sequence[float]], later: Mapping[str, list[tuple[int, int, float]]]
) -> list[tuple[int, Mapping[str, Sequence[float]]]]:
    """Return the changes in order of place, each with all values of its name."""
    events = sorted((place, name, i, value) for name in later for place, i, value in later[name])
    now = {name: list(values) for name, values in numbers.items()}
    changes: list[tuple[int, Mapping[str, Sequence[float]]]] = []
    for place, name, i, value in events:
        now[name][i] = value
        changes.append((place, {name: tuple(now[name])}))
    return changes


def _coins(inputs: Inputs) -> Kept:
    ends = [highest(float(values["density"])) for values in inputs.values]
    return Kept([], words={**_words(inputs), "highest": ends})


def _words(inputs: Inputs) -> dict[str, list[int]]:
    pairs = [split(key) for key in inputs.keys]
    return {"start": [start for start, _ in pairs], "step": [step for _, step in pairs]}


def _ranks(inputs: Inputs) -> Kept:
    middles, spreads = [], []
    for values in inputs.values:
        share, spread = float(values["density"]), float(values["epsilon"])
        if share >= 1:
            middles.append(COINS)
            spreads.append(0.0)
        elif not (share - spread > 0 and share + spread < 1):
            raise ParameterError(
                f"density - epsilon and density + epsilon must be in (0, 1), got density {share} "
                f"and epsilon {spread}"
            )
        else:
            middles.append((share - 0.5) * COINS)
            spreads.append(spread * COINS)
    numbers = {"middle": middles, "spread": spreads}
    return Kept([], numbers, _words(inputs), arrays={"rank": ranks(inputs)})


def _scale(inputs: Inputs, found: Kept, rule: Rule, i: int) -> float:
    values = inputs.values[i]
    share, mode = float(values["density"]), inputs.shared["rescale"]
    if share >= 1 or mode in (False, "none"):
        return 1.0
    if mode == "inverse_density":
        return 1.0 / share
    parts = _sizes(inputs, i)
    unit = exact_sums.unit(inputs.remembered("largest", [i], lambda: exact_sums.largest(parts)))
    before = inputs.remembered("l1", [i], lambda: exact_sums.counted(parts, unit))
    what = ("kept l1", rule.name, share, values.get("epsilon"), values.get("gamma"), inputs.keys[i])
    after = inputs.remembered(
        (*what, _given_cut(inputs, i)),
        [i],
        lambda: exact_sums.counted(lambda: _kept_sizes(inputs, found, rule, i), unit),
    )
    return before / after if before >= 1e-7 and after >= 1e-7 else 1.0


def _kept_sizes(inputs: Inputs, found: Kept, rule: Rule, i: int) -> Iterator[Tensor]:
    """Yield ``|d_i|`` where it is kept, else 0, part by part."""
    for block in _alone(inputs, found, i):
        yield terms(block, rule.name, [1.0])[0].abs()


_FINDERS = {"largest": _largest, "middle": _middle, "coins": _coins, "ranks": _ranks}
