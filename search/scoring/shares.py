"""How many items of each task every pool is to have: what a study asks for, in proportion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from merge_core.errors import ParameterError

Counts: TypeAlias = Mapping[str, int | Literal["rest"]]
Parts: TypeAlias = Mapping[str, tuple[int, int, int]]  # task -> items of each pool

NAMES = ("search", "select", "report")  # what steers the sampler, picks the winner, measures it


def least_of(graded: bool) -> tuple[int, int, int]:
    """Return how many items each pool needs of a task; of a graded one, two for a variance."""
    return (1, 2, 2) if graded else (1, 1, 1)


def wanted(
    sizes: Mapping[str, int], counts: Counts, graded: frozenset[str]
) -> dict[str, tuple[int, int, int]]:
    """Share the asked numbers of items among tasks by their sizes (largest remainders).

    Args:
        sizes: Task -> how many items it has, at least as many as its pools need together.
        counts: Pool -> items over all tasks, or "rest" for the last.
        graded: Tasks that need two items in the pools after the first.

    Returns:
        Task -> items of each pool.

    Raises:
        ParameterError: There are fewer items than asked for, or fewer asked for than needed.
    """
    least = [least_of(task in graded) for task in sizes]
    floors = [sum(column) for column in zip(*least, strict=True)]
    whole, rest = sum(sizes.values()), counts["report"] == "rest"
    number = [_number(counts[name], floor) for name, floor in zip(NAMES, floors, strict=True)]
    for name, value, floor in zip(NAMES, number, floors, strict=True):
        if value < floor:
            two = f", and two for graded ones ({', '.join(sorted(graded))}): {floor}"
            raise ParameterError(
                f"items.{name} must be at least 1 for each of the {len(sizes)} tasks"
                f"{two if floor > len(sizes) else ''}, got {value}"
            )
    if sum(number) > whole:
        tail = f"at least {floors[-1]} for report" if rest else f"{number[-1]} for report"
        raise ParameterError(
            f"items: {number[0]} for search, {number[1]} for select and {tail} are "
            f"{sum(number)}, but there are {whole} items; ask for fewer"
        )
    return _parts(sizes, number, least, rest)


def _number(count: int | Literal["rest"], floor: int) -> int:
    return floor if count == "rest" else count


def _parts(
    sizes: Mapping[str, int],
    number: Sequence[int],
    least: Sequence[tuple[int, int, int]],
    rest: bool,
) -> dict[str, tuple[int, int, int]]:
    there, pools = [*sizes.values()], []
    used = [0] * len(there)
    for place, total in enumerate(number):
        later = [sum(floors[place + 1 :]) for floors in least]
        most = [n - u - kept for n, u, kept in zip(there, used, later, strict=True)]
        floors = [each[place] for each in least]
        last = rest and place == len(number) - 1
        part = most if last else _shared(total, there, used, floors, most)
        pools.append(part)
        used = [a + b for a, b in zip(used, part, strict=True)]
    return dict(zip(sizes, zip(*pools, strict=True), strict=True))


def _shared(
    total: int,
    sizes: Sequence[int],
    used: Sequence[int],
    least: Sequence[int],
    most: Sequence[int],
) -> list[int]:
    """Round ``total * size / sum(sizes)`` to whole numbers that add up to ``total``.

    Each is between its ``least`` and its ``most``. Ties go to the task of which less is used.
    """
    whole = sum(sizes)
    limits = zip(sizes, least, most, strict=True)
    parts = [min(max(total * n // whole, low), high) for n, low, high in limits]

    def lacking(t: int) -> tuple[int, int]:  # how far below its quota, in items times whole
        return total * sizes[t] - parts[t] * whole, sum(used) * sizes[t] - used[t] * whole

    while sum(parts) < total:
        parts[max((t for t, m in enumerate(most) if parts[t] < m), key=lacking)] += 1
    while sum(parts) > total:
        parts[min((t for t, low in enumerate(least) if parts[t] > low), key=lacking)] -= 1
    return parts
