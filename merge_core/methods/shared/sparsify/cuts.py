"""Where the sizes of a task vector's entries are cut, and numbers that change behind a place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from merge_core.contract import Cut, Inputs, Tensor, required
from merge_core.methods.shared.sparsify.rule import PART
from merge_core.numerics import order_statistics


def sizes(inputs: Inputs, i: int) -> Callable[[], Iterator[Tensor]]:
    """Return a source of ``|d_i|``, part by part, float32."""
    model, base = inputs.models[i].reshape(-1), required(inputs.base).reshape(-1)

    def parts() -> Iterator[Tensor]:
        for start in range(0, model.numel(), PART):
            part = slice(start, start + PART)
            yield (model[part].float() - base[part].float()).abs_()

    return parts


def cut_at(inputs: Inputs, i: int, place: int, *, first_equal_last: bool) -> Cut:
    """Return the cut at a place of the ascending order of ``|d_i|``; those of the grid at once."""
    places = order_statistics.grid(inputs.models[i].numel())
    find = partial(order_statistics.ranked, sizes(inputs, i), first_equal_last=first_equal_last)
    if inputs.once is not None and first_equal_last and place in places:
        several = inputs.remembered(
            "cuts of the grid", [i], lambda: order_statistics.packed(places, find(places))
        )
        return required(order_statistics.looked_up(several, place))
    what = ("cut", place, first_equal_last)
    return inputs.remembered(what, [i], lambda: find([place])[0])


def changes(
    numbers: Mapping[str, Sequence[float]], later: Mapping[str, list[tuple[int, int, float]]]
) -> list[tuple[int, Mapping[str, Sequence[float]]]]:
    """Return the changes of numbers in order of place, each with all values of its name.

    Args:
        numbers: What holds first, one value per model.
        later: Name -> ``(place, model, what holds from there on)``.
    """
    events = sorted((place, name, i, value) for name in later for place, i, value in later[name])
    now = {name: list(values) for name, values in numbers.items()}
    found: list[tuple[int, Mapping[str, Sequence[float]]]] = []
    for place, name, i, value in events:
        now[name][i] = value
        found.append((place, {name: tuple(now[name])}))
    return found
