"""What a study scores with, and what its scores come to; no parent and no live model is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from evaluators.answer import Answer
from evaluators.protocol import Evaluator, LiveModel, answer_items, score_items
from merge_core.errors import EvaluationError, ItemError, NoAnswersError
from search.scoring import intervals, told
from search.scoring.aggregate import Aggregate
from search.scoring.growth import split_again
from search.scoring.objectives import Opened, open_evaluators, sharing
from search.scoring.pools import NAMES, described
from search.spec.study_file import StudySpec
from search.trial.facts import Facts

SEARCH = NAMES[0]
Scores = dict[str, list[float]]  # task -> one score per item
Blocks = Mapping[str, tuple[int, int]]  # task -> first and last (excluded) place in a pool's order


class Tasks:
    """The tasks of one study, their items in pools, and the number that they make together.

    Args:
        spec: The study.
        opened: Its evaluators.
        grown: How many report items it had asked for before it asked for more, in their order.

    Raises:
        MergeError: The pools cannot be filled.
    """

    def __init__(self, spec: StudySpec, opened: Opened, grown: Sequence[int] = ()) -> None:
        self.evaluators: Mapping[str, Evaluator] = opened.evaluators
        self.steering: Mapping[str, Evaluator] = opened.steering
        self.aggregate = Aggregate(spec.aggregate, opened.entries)
        self.asked = {name: getattr(spec.items, name) for name in NAMES}
        shared = sharing(self.evaluators)
        self.grown = tuple(grown)
        self.pools = split_again(shared, self.asked, self.grown, spec.search.seed)
        self._named: Mapping[str, Sequence[str]] = shared.clusters or {}
        self._numbers = {
            name: {task: _numbers(ids) for task, ids in self.clusters(name).items()}
            for name in self.pools
        }

    def scored_by(self, pool: str) -> Mapping[str, Evaluator]:
        """Return task -> its evaluator on a pool, in the study's order."""
        return {**self.evaluators, **self.steering} if pool == SEARCH else self.evaluators

    def measured(self, pool: str) -> frozenset[str]:
        """Return tasks whose scores are measured times, which no run gives twice."""
        found = self.scored_by(pool).items()
        return frozenset(task for task, e in found if e.measured)

    @property
    def weights(self) -> Mapping[str, float]:
        """Task -> what its mean counts in the number of a trial on the search pool."""
        return self.aggregate_of(SEARCH).weights

    @property
    def notices(self) -> list[str]:
        """Sentences that whoever reads the study's result must know, each once."""
        found = [e.notice for e in self.evaluators.values()]
        found += told.notices(self.evaluators, self.asked, self.pools)
        by = ", ".join(f"{metric} ({name})" for name, metric in self.aggregate.steered.items())
        if by:
            found.append(f"Search values are by {by}: another unit than all other scores have.")
        return list(dict.fromkeys(filter(None, found)))

    def score(self, live: LiveModel, pool: str, blocks: Blocks | None = None) -> Scores:
        """Score the live candidate on a pool.

        Args:
            live: The candidate.
            pool: ``search``, ``select`` or ``report``.
            blocks: Which items, of which tasks; None: the whole pool.

        Returns:
            Task -> one score per item, in the pool's order and the task's own direction.

        Raises:
            NonFiniteError: The model's answers are not finite.
            ItemError: An item could not be scored.
            EvaluationError: A task raised.
        """
        scores: Scores = {}
        for task, evaluator in self.scored_by(pool).items():
            which = self.pools[pool].of(task)
            if blocks is not None:
                which = which[slice(*blocks[task])] if task in blocks else ()
            if which:
                scores[task] = complete_scores(evaluator, live, which)
        return scores

    def answers(
        self, live: LiveModel, pool: str, asks: Mapping[str, Sequence[int]]
    ) -> dict[str, list[Answer]]:
        """Return what the live candidate says to some items; of tasks without answers nothing.

        Args:
            live: The candidate.
            pool: ``search``, ``select`` or ``report``.
            asks: Task -> places in the pool's order.

        Raises:
            ItemError: The model cannot take an item.
            EvaluationError: A task raised, or gives something else than answers.
        """
        found = {}
        for task, places in asks.items():
            which = self.pools[pool].of(task)
            with suppress(NoAnswersError):
                found[task] = answer_items(self.evaluators[task], live, [which[i] for i in places])
        return found

    def check_fit(self, live: LiveModel) -> None:
        """Refuse items, of any pool, that the model cannot take.

        Raises:
            EvaluationError: There are some; one is named.
        """
        for pool in NAMES:
            for task, evaluator in self.scored_by(pool).items():
                which = self.pools[pool].of(task)
                unfit = evaluator.unfit(live, which)
                if unfit:
                    i, why = min(unfit.items())
                    raise EvaluationError(
                        f"{task}: {len(unfit)} of {len(which)} items of the {pool} pool cannot be "
                        f"scored; {evaluator.items[i].id}: {why}"
                    )

    def oriented(
        self, scores: Mapping[str, Sequence[float]], pool: str
    ) -> dict[str, intervals.Sample]:
        """Return scores that can be averaged, negated where lower is better.

        Args:
            scores: Task -> one score per item of the pool, or of the first ones, in its order.
            pool: ``search``, ``select`` or ``report``.

        Returns:
            Task -> its sample of ``n_t`` scores, in the study's order.
        """
        found = {}
        for task, evaluator in self.scored_by(pool).items():
            vector = np.asarray(scores[task], dtype=np.float64)
            sizes = evaluator.sizes
            if sizes is not None:  # items that do not count the same, such as long documents
                here = self.pools[pool].of(task)[: len(vector)]
                vector = intervals.linearised(vector, [sizes[i] for i in here])
            sign = 1.0 if evaluator.higher_is_better else -1.0
            clusters = self._numbers[pool][task][: len(vector)]
            found[task] = intervals.Sample(vector * sign, clusters, evaluator.exact)
        return found

    def contributions(
        self, scores: Mapping[str, Sequence[float]], pool: str
    ) -> dict[str, intervals.Vector]:
        """Return what each item adds to its task's mean over the whole pool, times their number.

        So the plain mean over the pool is the task's mean, of items that do not count the same,
        too; negated where lower is better.

        Args:
            scores: As in ``oriented``.
            pool: ``search``, ``select`` or ``report``.
        """
        found = {}
        for task, evaluator in self.scored_by(pool).items():
            vector = np.asarray(scores[task], dtype=np.float64)
            shares = self._shares(evaluator, pool, task)[: len(vector)]
            found[task] = vector * shares * (1.0 if evaluator.higher_is_better else -1.0)
        return found

    def spans(self, pool: str) -> dict[str, float]:
        """Return task -> how far ``contributions`` of any two items can be apart, or inf."""
        found = {}
        for task, evaluator in self.scored_by(pool).items():
            low, high = evaluator.bounds or (-math.inf, math.inf)
            if evaluator.sizes is not None:  # shares of nearly nothing bring any score near 0
                low, high = min(low, 0.0), max(high, 0.0)
            found[task] = (high - low) * float(self._shares(evaluator, pool, task).max())
        return found

    def is_whole(self, scores: Mapping[str, Sequence[float]], pool: str) -> bool:
        """Return whether there is a score for every item of a pool."""
        return all(len(scores[t]) == len(self.pools[pool].of(t)) for t in self.scored_by(pool))

    def clusters(self, pool: str) -> dict[str, list[str]]:
        """Return task -> the cluster of each of its items in a pool, in the pool's order.

        A cluster has one name in all tasks that share it.
        """
        of = self.pools[pool].of
        return {task: [self._named[task][i] for i in of(task)] for task in self.evaluators}

    def exact(self, pool: str) -> frozenset[str]:
        """Return tasks whose score is known without sampling: every item's is the same."""
        return frozenset(task for task, e in self.scored_by(pool).items() if e.exact)

    def _shares(self, evaluator: Evaluator, pool: str, task: str) -> intervals.Vector:
        """Return the items' sizes over their mean, which is 1 where they count the same."""
        which = self.pools[pool].of(task)
        sizes = (
            np.ones(len(which)) if evaluator.sizes is None else np.array(evaluator.sizes)[[*which]]
        )
        shares: intervals.Vector = sizes / sizes.mean()
        return shares

    def value(self, scores: Mapping[str, Sequence[float]], pool: str) -> tuple[float, float]:
        """Return the tasks' one number, higher is better, and its standard error."""
        return self.aggregate_of(pool).value(self.oriented(scores, pool))

    def values(self, scores: Mapping[str, Sequence[float]], pool: str) -> tuple[float, ...]:
        """Return the objectives of a study that keeps its entries apart, higher is better."""
        return self.aggregate_of(pool).values(self.oriented(scores, pool))

    def about(self) -> dict[str, Any]:
        """Return what is stored of the tasks when a study begins."""
        steering = {task: e.fingerprint() for task, e in self.steering.items()}
        return {
            "tasks": {task: e.fingerprint() for task, e in self.evaluators.items()},
            **({"steering": steering} if steering else {}),
            "score": self.aggregate.plain(),
            "pools": {
                pool: {task: described(ids) for task, ids in tasks.items()}
                for pool, tasks in self.item_ids().items()
            },
            "facts": {
                task: Facts.of(e, self.pools[NAMES[-1]].of(task)).plain()
                for task, e in self.evaluators.items()
            },
            **self._about_clusters(),
            **({"grown": [*self.grown]} if self.grown else {}),
        }

    def _about_clusters(self) -> dict[str, Any]:
        """Return by which key tasks have clusters, and which cluster each item of a pool is of.

        Clusters of a task in a pool are numbered in the pool's order. Without a key there are none
        but twins, which their ids tell.
        """
        by = {task: e.clustered_by for task, e in self.evaluators.items() if e.clusters}
        numbers = {
            name: {task: here[task].tolist() for task in by} for name, here in self._numbers.items()
        }
        return {"clusters": {"by": by, **numbers}} if by else {}

    def aggregate_of(self, pool: str) -> Aggregate:
        """Return how the tasks become one number on a pool."""
        return self.aggregate.on_search() if pool == SEARCH else self.aggregate

    def item_ids(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """Return pool -> task -> the ids of its items, in the pool's order."""
        return {
            name: {t: tuple(e.items[i].id for i in pool.of(t)) for t, e in self.evaluators.items()}
            for name, pool in self.pools.items()
        }


def _numbers(names: Sequence[str]) -> intervals.IntVector:
    """Return a number for each item, the same where they are not independent, in their order."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int64)


def open_tasks(spec: StudySpec, tokenizer: Any, grown: Sequence[int] = ()) -> Tasks:
    """Open the tasks of a study.

    Args:
        spec: The study.
        tokenizer: Of all candidates.
        grown: See ``Tasks``.

    Raises:
        MergeError: A task cannot be opened, or the pools cannot be filled.
    """
    return Tasks(spec, open_evaluators(spec, tokenizer), grown)


def complete_scores(evaluator: Evaluator, live: LiveModel, which: Sequence[int]) -> list[float]:
    """Return one score for each position of an evaluator's items.

    Raises:
        NonFiniteError: The model's answers are not finite.
        ItemError: An item could not be scored.
        EvaluationError: The task raised.
    """
    found: list[float] = score_items(evaluator, live, which).tolist()
    missing = sum(x != x for x in found)  # nan: the item failed
    if missing:
        first = next((f"; {id_}: {why}" for id_, why in evaluator.failures.items()), "")
        raise ItemError(f"{evaluator.task}: {missing} of {len(found)} items have no score{first}")
    return found
