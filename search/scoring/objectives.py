"""Score entries -> evaluators under the study's names, and the entries that aggregation knows.

Where an entry says ``steer``, another metric scores the search pool: its plugin is opened twice, so
that prompts and answers are the same, and both have one name and one place in the pools.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from evaluators.clusters import content, united
from evaluators.protocol import Evaluator, Suite
from merge_core.errors import EvaluationError, MergeError
from search.scoring.aggregate import Entry
from search.scoring.pools import Sharing
from search.spec.score import Score
from search.spec.study_file import StudySpec


class Opened(NamedTuple):
    """A study's evaluators by the names of their tasks, and its entries, both in its order."""

    evaluators: dict[str, Evaluator]
    entries: tuple[Entry, ...]
    steering: dict[str, Evaluator]  # on the search pool, where that is another one


def open_evaluators(spec: StudySpec, tokenizer: Any) -> Opened:
    """Open what a study scores with.

    A task whose name is taken gets the name ``task:unit``, and if that is taken a number.

    Raises:
        MergeError: A task cannot be opened, or not by the metric that is to steer.
        EvaluationError: The entries cannot be aggregated as the study asks.
    """
    pairs = [opened_entry(spec, i, tokenizer) for i in range(len(spec.scores))]
    steering = {i: by for i, (_, by) in enumerate(pairs) if by is not None}
    return named(spec, [one for one, _ in pairs], steering)


def opened_entry(
    spec: StudySpec, i: int, tokenizer: Any
) -> tuple[Evaluator | Suite, Evaluator | Suite | None]:
    """Open the score entry at place ``i``, and its twin by the metric that steers, if one does.

    Raises:
        MergeError: It cannot be opened, or not by the metric that is to steer.
    """
    score = spec.scores[i]
    one = score.plugin.opened(score.options, spec.folder, tokenizer)
    if score.steer is None:
        return one, None
    options = score.options.model_copy(update={"metric": score.steer})
    try:
        return one, score.plugin.opened(options, spec.folder, tokenizer)
    except MergeError as error:
        raise EvaluationError(f"score[{i}].steer: {error}") from error


def named(
    spec: StudySpec,
    opened: Collection[Evaluator | Suite],
    steering: Mapping[int, Evaluator | Suite] | None = None,
) -> Opened:
    """Name the evaluators of a study's score entries.

    ``opened``: one for each entry, in order; ``steering``: of those that say ``steer``, by place.

    Raises:
        EvaluationError: The entries cannot be aggregated as the study asks, or what steers one has
            other items, or is no other metric.
    """
    evaluators: dict[str, Evaluator] = {}
    entries: list[Entry] = []
    for score, one in zip(spec.scores, opened, strict=True):
        group = isinstance(one, Suite)
        shares, chances = {}, {}
        for evaluator, share in _members(one):
            name = _free(evaluator, evaluators)
            evaluators[name] = evaluator
            shares[name] = share
            if score.chance != 0:
                chances[name] = _chance(name, evaluator, score)
        label = one.name if isinstance(one, Suite) else next(iter(shares))
        twins = sum(entry.name.partition("#")[0] == label for entry in entries)
        label = f"{label}#{twins + 1}" if twins else label
        entries.append(Entry(label, shares, chances, score.weight, group, score.steer))
    _check(spec, entries, evaluators)
    return Opened(evaluators, tuple(entries), _steering(spec, entries, evaluators, steering or {}))


def _members(one: Evaluator | Suite) -> tuple[tuple[Evaluator, float], ...]:
    return one.members if isinstance(one, Suite) else ((one, 1.0),)


def _steering(
    spec: StudySpec,
    entries: Sequence[Entry],
    evaluators: Mapping[str, Evaluator],
    steering: Mapping[int, Evaluator | Suite],
) -> dict[str, Evaluator]:
    found: dict[str, Evaluator] = {}
    for i, one in steering.items():
        tasks = list(entries[i].shares)
        own, others = [evaluators[t] for t in tasks], [e for e, _ in _members(one)]
        fault = f"score[{i}].steer: by {entries[i].steer!r} {entries[i].name} %s; omit `steer`"
        if [e.items for e in own] != [e.items for e in others]:
            raise EvaluationError(fault % "has other items than the pools are made of")
        if [e.fingerprint() for e in own] == [e.fingerprint() for e in others]:
            raise EvaluationError(fault % "is scored anyhow")
        found.update(zip(tasks, others, strict=True))
    scored = {**evaluators, **found}
    try:
        _check(spec, entries, scored)
    except EvaluationError as error:
        raise EvaluationError(f"with `steer`: {error}") from error
    units = dict.fromkeys(e.unit for e in scored.values())
    if found and spec.aggregate == "min" and len(units) > 1:
        raise EvaluationError(
            "aggregate 'min' compares tasks with each other, but with `steer` these would be "
            f"{', '.join(units)}; let one metric steer every entry, or use 'mean'"
        )
    return found


def pool_ids(evaluators: Mapping[str, Evaluator]) -> dict[str, Sequence[str]]:
    """Return what ``pools.split`` splits: task -> an id for each of its items.

    Tasks that share documents, such as two prompts for one data set, are split by the documents.
    """
    documents = {t: e.documents for t, e in evaluators.items() if e.documents is not None}
    times = Counter(x for found in documents.values() for x in {content(d) for d in found})
    shared = {t for t, found in documents.items() if any(times[d] > 1 for d in found)}
    return {
        task: documents[task] if task in shared else [item.id for item in e.items]
        for task, e in evaluators.items()
    }


def pool_clusters(evaluators: Mapping[str, Evaluator]) -> dict[str, tuple[str, ...]]:
    """Return task -> of each item the name of its cluster, over all tasks.

    Items are in one cluster if their task says so, if they have one content, or if they are one
    document under two names: what steers the search in one task is not reported in another. A
    cluster's name is the least content of its items, by the ids of ``pool_ids``.
    """
    ids = pool_ids(evaluators)
    rows: list[tuple[str, str, str, str]] = []
    for task, e in evaluators.items():
        contents = [content(item.id) for item in e.items]
        documents = contents if e.documents is None else [*map(content, e.documents)]
        rows += zip(map(content, ids[task]), contents, documents, e.cluster_ids, strict=True)
    names = iter(united(*zip(*rows, strict=True)) if rows else ())
    return {task: tuple(next(names) for _ in e.items) for task, e in evaluators.items()}


def sharing(evaluators: Mapping[str, Evaluator]) -> Sharing:
    """Return what pools are made of.

    One item tells no variance of scores that are neither exact nor right or wrong: ``graded``.
    """
    graded = frozenset(task for task, e in evaluators.items() if not (e.exact or e.binary))
    return Sharing(pool_ids(evaluators), pool_clusters(evaluators), graded)


def _free(evaluator: Evaluator, taken: Mapping[str, Evaluator]) -> str:
    name = evaluator.task
    if name in taken:
        name = f"{name}:{evaluator.unit}"
    if name in taken:
        name = f"{name}#{sum(n.startswith(name) for n in taken) + 1}"
    return name


def _chance(name: str, evaluator: Evaluator, score: Score) -> float:
    found = evaluator.chance if score.chance == "auto" else score.chance
    if found is None:
        raise EvaluationError(
            f"{name}: the score of guessing is not known for {evaluator.unit}; "
            "write it as a number under `chance`, or omit `chance`"
        )
    if not evaluator.higher_is_better or not 0 <= found < 1:
        got = f"{found:g}" if evaluator.higher_is_better else "a score where lower is better"
        raise EvaluationError(
            f"{name}: `chance` needs scores where 1 is best and guessing is below, got {got}"
        )
    return found


def _check(spec: StudySpec, entries: Sequence[Entry], evaluators: Mapping[str, Evaluator]) -> None:
    higher = {e.name: {evaluators[t].higher_is_better for t in e.shares} for e in entries}
    for name, ways in higher.items():
        if len(ways) > 1:
            raise EvaluationError(
                f"{name}: a higher score is better in some of its tasks and worse in others, so "
                "they have no mean; name the tasks one by one"
            )
    ways = set().union(*higher.values())
    if spec.aggregate == "min" and len(ways) > 1:
        raise EvaluationError(
            "aggregate 'min' compares tasks with each other, but a higher score is better in some "
            f"and worse in others: {_list(higher)}; use 'mean', or one kind only"
        )
    if spec.aggregate == "geometric_mean" and False in ways:
        raise EvaluationError(
            "aggregate 'geometric_mean' needs scores above 0 of which more is better, got "
            f"{_list(higher)}; use 'mean' or 'min'"
        )


def _list(higher: Mapping[str, set[bool]]) -> str:
    words = {True: "higher is better", False: "lower is better"}
    return ", ".join(f"{name} ({words[min(ways)]})" for name, ways in higher.items())
