"""How much a random mask matters, for people."""

from __future__ import annotations

from merge_core.merge.seed_spread import Apart, Spread
from search.run.seed_scores import SeedScores
from search.views.tables import numbers, table
from search.views.terminal import OUT


def seeds(found: Spread, scores: SeedScores | None) -> None:
    """Print how far seeds are apart in weights, and in scores where there are some."""
    first, last = found.seeds[0], found.seeds[-1]
    if len({*found.digests}) == 1:
        OUT.print(f"Seeds {first} to {last} give the same weights: no mask decides anything here.")
    else:
        _weights(found)
    if scores is not None:
        _scores(found, scores)


def _weights(found: Spread) -> None:
    moved = {kind: one for kind, one in found.kinds().items() if one.around}
    cells = [_row(kind, one) for kind, one in [*moved.items(), ("all", found.whole)]]
    title = f"weights of seeds {found.seeds[0]} to {found.seeds[-1]}"
    OUT.print(numbers(table(title, ("tensors", "spread", "cosine of two"), cells), words=1))
    OUT.print(
        f"What a merge changes moves by {_share(found.whole)} of its length from seed to seed.",
        soft_wrap=True,
    )


def _row(kind: str, one: Apart) -> tuple[str, ...]:
    return kind, _share(one), f"{one.cosine:.4f}"


def _share(one: Apart) -> str:
    return f"{100 * one.share:.3g} %"


def _scores(found: Spread, scores: SeedScores) -> None:
    cells = [
        (x.task, str(x.items), *_numbers(x.mean, x.deviation, x.each), f"{x.by_items:.4f}")
        for x in scores.tasks
    ]
    whole = _numbers(scores.mean, scores.deviation, scores.values)
    cells.append(("in all", str(sum(x.items for x in scores.tasks)), *whole, ""))
    columns = ("task", "items", "mean", "deviation", "lowest", "highest", "by items alone")
    title = f"scores of {len(found.seeds)} seeds on {scores.pool} items"
    OUT.print(numbers(table(title, columns, cells), words=1))
    OUT.print(
        f"From seed to seed the score deviates by {scores.deviation:.4f}; the items that there are "
        f"make a standard error of {scores.standard_error:.4f} for each of them. Where a task's "
        f"deviation is not above that by items alone, its seeds are as good as each other.",
        soft_wrap=True,
    )


def _numbers(mean: float, deviation: float, each: list[float]) -> tuple[str, ...]:
    return tuple(f"{x:.4f}" for x in (mean, deviation, min(each), max(each)))
