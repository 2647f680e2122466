"""Question: what of the values computed once does a candidate find, if not all of them fit?

Candidates ask for the same values in the same order. Prints, for rooms of several sizes, the share
of them that is found from the second candidate on, beside that of a cache that lets go what was
asked for longest ago, as it was before; counted, not timed.

    python benchmarks/cache_sweeps.py --values 1000 --candidates 10
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Callable

import torch

from merge_core.merge.statistics_cache import OF_A_NAME, Known

ENTRIES = 10
SIZE = 4 * ENTRIES + OF_A_NAME  # bytes of a value and its name
ROOMS = (0.1, 0.5, 0.9, 0.99, 0.999, 1.0)


def known(room: int) -> tuple[Callable[[], object], Callable[[int], bool]]:
    """Return the cache of a study: what begins a candidate, and what asks for a value."""
    cache, missed = Known(room), []

    def ask(name: int) -> bool:
        missed.clear()
        cache.get(name, lambda: missed.append(name) or torch.zeros(ENTRIES))
        return not missed

    return lambda: cache.of({}), ask


def oldest_go(room: int) -> tuple[Callable[[], object], Callable[[int], bool]]:
    """Return the same of a cache in which the value asked for longest ago makes room."""
    values: OrderedDict[int, None] = OrderedDict()

    def ask(name: int) -> bool:
        found = name in values
        values[name] = None
        values.move_to_end(name)
        while len(values) * SIZE > room:
            values.popitem(last=False)
        return found

    return lambda: None, ask


def main() -> None:
    """Sweep, count, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--values", type=int, default=1000)
    parser.add_argument("--candidates", type=int, default=10)
    arguments = parser.parse_args()
    print(f"{'room / all':>10} {'found':>8} {'oldest go':>10}")
    for share in ROOMS:
        found = []
        for make in (known, oldest_go):
            begin, ask = make(int(share * arguments.values) * SIZE)
            hits = []
            for _ in range(arguments.candidates):
                begin()
                hits.append(sum(map(ask, range(arguments.values))))
            found.append(sum(hits[1:]) / len(hits[1:]) / arguments.values)
        print(f"{share:10.3f} {found[0]:8.3f} {found[1]:10.3f}")


if __name__ == "__main__":
    main()
