"""Who else was measured on a study's report items: each winner that was is a look at them.

One report on fresh items is honest. Whoever sees it, searches on, and reports again may stop where
the report is good, and the same goes for another study on the same items. So winners are counted,
in this study and in those that it is told of (``search.prior``, ``--prior``), and the count is kept
in the record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from evaluators.clusters import content
from search.report.measure import REPORT
from search.spec.study_file import StudySpec
from search.storage.aside import put_aside_before
from search.storage.kept import Look
from search.storage.locate import open_from, open_study
from search.storage.study_record import Record
from search.trial.progress import Progress
from search.trial.tasks import Tasks

Pool = Mapping[str, Sequence[str]]  # task -> ids of its items


def note_others(
    record: Record, spec: StudySpec, tasks: Tasks, others: Sequence[str], progress: Progress
) -> None:
    """Store the winners of other studies that were measured on items of this one's report pool.

    A study that begins has also those of its name that have made room for it.

    Args:
        record: Of this study.
        spec: Its file, which may name a prior.
        tasks: Its tasks.
        others: Other studies: their files, folders or storage URLs.
        progress: Is told of each that has seen report items.

    Raises:
        MergeError: There is no such study, or it has not begun. That the file's own ``prior`` is
            gone is none, once this study has begun: what was found when it began is stored.
    """
    opened = [open_study(name)[1] for name in others]
    if record.about is None:
        opened += put_aside_before(record)
        if spec.search.prior is not None:
            opened.append(open_from(spec.search.prior, spec.folder)[1])
    pool = tasks.item_ids()[REPORT]
    found = []
    for other in opened:
        seen = _seen_by(other, pool)
        found += seen
        if seen:
            progress.notice(
                f"study {other.name!r} has measured winners on {seen[0].items} of the report items "
                "of this one; intervals are also given for all looks together"
            )
    record.keep_looks(_once([*record.looks, *found]))


def looks_of(record: Record, winner: int, items: int) -> tuple[Look, ...]:
    """Return all looks at a study's report items, that at its winner of now last.

    Args:
        record: Of the study; its looks of before are stored.
        winner: Number of the winner of now.
        items: Of the report pool.
    """
    digest = record.trial(winner).weights_digest
    now = Look(study="", trial=winner, weights_digest=digest, items=items)
    known = {look.weights_digest for look in record.looks}
    looks = [*record.looks, *(x for x in _own(record, items) if x.weights_digest not in known)]
    before = (x for x in looks if x.weights_digest != digest or _at_fewer(x, items))
    return (*_once(before), now)


def said(looks: Sequence[Look], items: int) -> list[str]:
    """Return a sentence on each look but the last one, of a study with so many report items."""
    return [_said(look, looks[-1], items) for look in looks[:-1]]


def _said(look: Look, now: Look, items: int) -> str:
    same = "the same" if look.items == items else f"{look.items} of the {items}"
    if look.study:
        return (
            f"Trial {look.trial} of study {look.study} won there, and was measured on {look.items} "
            f"of the {items} report items of this study."
        )
    if look.weights_digest == now.weights_digest:
        return f"The winner was reported before, when there were {look.items} report items."
    return f"Trial {look.trial} won before this one, and was measured on {same} report items."


def _seen_by(other: Record, pool: Pool) -> list[Look]:
    """Return the looks of another study at a pool's items."""
    theirs = _contents(other.item_ids(REPORT))
    shared = sum(content(id_) in theirs for ids in pool.values() for id_ in ids)
    if not shared:
        return []
    found = [*_own(other, shared), *other.looks]
    return [
        look.model_copy(
            update={"items": min(look.items, shared), "study": look.study or other.name}
        )
        for look in found
    ]


def _own(record: Record, items: int) -> list[Look]:
    """Return the winners that a study has reported, also those of before looks were stored."""
    before = record.summary or {}
    pools = before.get("pools")
    then = pools.get(REPORT) if isinstance(pools, Mapping) else None
    winner, others = before.get("winner"), before.get("earlier_winners")
    numbers = [*others] if isinstance(others, list) else []
    numbers.append(winner.get("trial") if isinstance(winner, Mapping) else None)
    return [
        Look(
            study="",
            trial=n,
            weights_digest=record.trial(n).weights_digest,
            items=min(items, then) if isinstance(then, int) else items,
        )
        for n in dict.fromkeys(numbers)
        if isinstance(n, int)
    ]


def _once(looks: Iterable[Look]) -> tuple[Look, ...]:
    """Return the first look at each candidate; of a report pool that grew, that at each size."""
    first: dict[tuple[str, int], Look] = {}
    looks = list(looks)
    ours = {look.weights_digest for look in looks if not look.study}
    for look in looks:
        if not look.study or look.weights_digest not in ours:
            first.setdefault((look.weights_digest, 0 if look.study else look.items), look)
    return tuple(first.values())


def _at_fewer(look: Look, items: int) -> bool:
    """Return whether a look of this study was at a report pool that has grown since."""
    return not look.study and look.items < items


def _contents(pool: Pool) -> set[str]:
    return {content(id_) for ids in pool.values() for id_ in ids}
