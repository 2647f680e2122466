"""The verdict in words: what the winner's differences show, the search as a whole first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from search.report.summary import Difference, Verdict
from search.scoring.aggregate import LEVEL
from search.scoring.intervals import Estimate


@dataclass(frozen=True)
class Rival:
    """What the winner is compared with.

    Args:
        role: Such as ``the best parent``.
        name: In the report.
        minus: Winner minus rival.
        same: Whether both have the same weights.
    """

    role: str
    name: str
    minus: Difference
    same: bool

    @property
    def text(self) -> str:
        """Role and name."""
        return self.role if self.role == "the uniform merge" else f"{self.role} ({self.name})"


def verdict(difference: Estimate | Difference) -> Verdict:
    """Return what an interval of a difference shows."""
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "no difference shown"


def sentences(rivals: Sequence[Rival], items: int, looks: int) -> list[str]:
    """Return the verdict, plain English without markup.

    Args:
        rivals: The best parent, the best simple merge, the uniform one, as far as there are any.
        items: Of the report pool.
        looks: How many winners were measured on it.
    """
    return [_overall(rivals), *(_against(rival, items, looks) for rival in rivals)]


def _overall(rivals: Sequence[Rival]) -> str:
    same = [x for x in rivals if x.same]
    if same:
        return f"The search bought nothing: its winner is {same[0].text} itself."
    by = {v: [x.text for x in rivals if x.minus.verdict == v] for v in ("better", "worse")}
    open_ = [x.text for x in rivals if x.minus.verdict not in by]
    better = f"; it is better than {_listed(by['better'])}" if by["better"] else ""
    if by["worse"]:
        return (
            f"The search bought nothing: its winner is worse than {_listed(by['worse'])}{better}."
        )
    if open_:
        return (
            "It is not shown that the search bought anything: no difference between its winner and "
            f"{_listed(open_)} is shown{better}."
        )
    return f"The search paid: its winner is better than {_listed(by['better'])}."


def _against(rival: Rival, items: int, looks: int) -> str:
    if rival.same:
        return f"No candidate beat {rival.text}: the winner has its weights."
    minus = rival.minus
    limits = minus.widened or minus
    level = 100 * (1 - (1 - LEVEL) / looks)
    many = f", which allows for {looks} looks at these items" if looks > 1 else ""
    interval = (
        f"{level:.4g} % interval {{:.3f}} to {{:.3f}}{many}, paired over {items} report items"
    )
    if minus.verdict == "better":
        shown = interval.format(limits.low, limits.high)
        return f"The winner is better than {rival.text} by {minus.estimate:.3f} ({shown})."
    if minus.verdict == "worse":
        shown = interval.format(-limits.high, -limits.low)
        return f"The winner is worse than {rival.text} by {-minus.estimate:.3f} ({shown})."
    needed = minus.items_needed
    more = f" About {needed:,} report items would show what was seen." if needed else ""
    shown = interval.format(limits.low, limits.high)
    return (
        f"No difference between the winner and {rival.text} is shown: {minus.estimate:+.3f} "
        f"({shown}).{more}"
    )


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
