"""All that a study's trials are made with, opened once: parents, live candidate, tasks, pools."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from evaluators.protocol import Evaluator, score_items
from merge_core.errors import EvaluationError, MergeError
from merge_core.parents.open import open_parents
from merge_core.parents.protocol import Parent
from merge_core.parents.residency import Placement, Store, decide, memories, sizes
from merge_core.plan.planner import Plan, plan
from merge_core.recipe.schema import Recipe
from search.scoring import intervals
from search.scoring.aggregate import Aggregate
from search.scoring.objectives import open_evaluators, pool_items
from search.scoring.pools import NAMES, Pool, Pools, split
from search.space.space import Space
from search.spec.study_file import StudySpec
from search.storage.study_record import Scores
from search.trial.backends import device_of, open_host

if TYPE_CHECKING:
    import numpy as np

SEARCH = NAMES[0]
LIBRARIES = ("mergetune", "torch", "transformers", "lm_eval", "optuna", "cmaes")


class Workbench:
    """Builds and scores candidates of one study.

    Args:
        spec: The study.
        about: What was stored when it began, if it has begun.

    Raises:
        MergeError: A parent or a task cannot be opened, or the pools cannot be filled.
    """

    def __init__(self, spec: StudySpec, about: Mapping[str, Any] | None = None) -> None:
        self.spec = spec
        self._threads = _set_threads(about["threads"] if about else spec.engine.threads)
        extra = [name for recipe in spec.baselines.values() for name in recipe.references()]
        names = tuple(dict.fromkeys([*spec.template.references(), *extra]))
        store = Store()
        self.parents: Mapping[str, Parent] = open_parents(names, spec.roots, store.open)
        self._main = self.parents[spec.template.base_or_first()]
        entries = sum(math.prod(info.shape) for info in self._main.tensors.values())
        self.placement = self._place(store, entries, about)
        self._host = open_host(
            spec.engine, self.placement, spec.folder, entries, lambda: self._tokenizer
        )
        opened = open_evaluators(spec, self._tokenizer)
        self.evaluators: Mapping[str, Evaluator] = opened.evaluators
        self.steering: Mapping[str, Evaluator] = opened.steering
        self.aggregate = Aggregate(spec.aggregate, opened.entries)
        self.pools: Pools = split(
            pool_items(self.evaluators),
            {"search": spec.items.search, "select": spec.items.select, "report": spec.items.report},
            spec.search.seed,
        )

    def _place(self, store: Store, entries: int, about: Mapping[str, Any] | None) -> Placement:
        """Keep the parents where the study file wants them, or where they fit.

        A study that began with merges on the CPU goes on so: not all sums are the same elsewhere.
        """
        engine, recipe = self.spec.engine, self.spec.template.data
        cpu = about is not None and about.get("placement", "mapped") == "mapped"
        asked = "mapped" if cpu and engine.parents == "auto" else engine.parents
        written = recipe.get("out_dtype") or recipe.get("dtype")
        width = {None: 0, "float32": 4}.get(written, 2)
        model = entries * width or sum(sizes(self._main.tensors))
        device, held = device_of(engine), store.sizes()
        found = decide(asked, device, model, len(self.parents), held, memories(device))
        store.place(found.where, device)
        return found

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self._main.folder, local_files_only=True)

    @cached_property
    def space(self) -> Space:
        """The study's dimensions."""
        return Space(self.spec.template, self._main.tensors)

    def scored_by(self, pool: str) -> Mapping[str, Evaluator]:
        """Return task -> its evaluator on a pool, in the study's order."""
        return {**self.evaluators, **self.steering} if pool == SEARCH else self.evaluators

    def measured(self, pool: str) -> frozenset[str]:
        """Return tasks whose scores are measured times, which no run gives twice."""
        found = self.scored_by(pool).items()
        return frozenset(task for task, e in found if e.measured)

    @property
    def notices(self) -> list[str]:
        """Sentences that whoever reads the study's result must know, each once."""
        found = [e.notice for e in self.evaluators.values()]
        by = ", ".join(f"{metric} ({name})" for name, metric in self.aggregate.steered.items())
        if by:
            found.append(f"Search values are by {by}: another unit than all other scores have.")
        return list(dict.fromkeys(filter(None, found)))

    @property
    def kernels(self) -> str:
        """How candidates are merged: ``fused`` or ``blocked``."""
        return self._host.source.path

    @property
    def once(self) -> str:
        """What was computed once for all candidates so far, in words."""
        known = self._host.source.known
        return f"{known.seconds:.1f} s, {known.used / 2**20:.0f} MiB"

    def pool(self, name: str) -> Pool:
        """Return the pool of that name: ``search``, ``select`` or ``report``."""
        found: Pool = getattr(self.pools, name)
        return found

    def plan(self, recipe: Recipe) -> Plan:
        """Plan a recipe on the open parents.

        Raises:
            MergeError: It cannot be planned, or has a tokenizer of its own.
        """
        if recipe.tokenizer is not None:
            raise MergeError(
                "a study keeps one tokenizer for all candidates; merge the recipe with "
                "`tokenizer:` to a folder and name that folder"
            )
        return plan(recipe, self.parents)

    def build(self, recipe: Recipe) -> str:
        """Build a recipe into the live candidate and return its weights digest.

        Raises:
            MergeError: It cannot be built, or is not finite.
        """
        return self._host.build(self.plan(recipe))

    def score(self, pool: str) -> Scores:
        """Score the live candidate on a pool.

        Returns:
            Task -> one score per item, in the pool's order and the task's own direction.

        Raises:
            NonFiniteError: The model's answers are not finite.
            EvaluationError: A task raised, or an item could not be scored.
        """
        live = self._host.live
        assert live is not None, "build first"
        chosen = self.pool(pool)
        scores: Scores = {}
        for task, evaluator in self.scored_by(pool).items():
            found = score_items(evaluator, live, chosen.of(task)).tolist()
            missing = sum(x != x for x in found)  # nan: the item failed
            if missing:
                first = next((f"; {id_}: {why}" for id_, why in evaluator.failures.items()), "")
                raise EvaluationError(
                    f"{task}: {missing} of {len(found)} items have no score{first}"
                )
            scores[task] = found
        return scores

    def oriented(
        self, scores: Mapping[str, Sequence[float]], pool: str
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Return scores that can be averaged, negated where lower is better.

        Args:
            scores: Task -> one score per item of the pool, or of the first ones, in its order.
            pool: ``search``, ``select`` or ``report``.

        Returns:
            Task -> ``(n_t,)`` float64, in the study's order.
        """
        import numpy as np

        found = {}
        for task, evaluator in self.scored_by(pool).items():
            vector = np.asarray(scores[task], dtype=np.float64)
            sizes = evaluator.sizes
            if sizes is not None:  # items that do not count the same, such as long documents
                here = self.pool(pool).of(task)[: len(vector)]
                vector = intervals.linearised(vector, [sizes[i] for i in here])
            found[task] = vector * (1.0 if evaluator.higher_is_better else -1.0)
        return found

    def value(self, scores: Mapping[str, Sequence[float]], pool: str) -> tuple[float, float]:
        """Return the tasks' one number, higher is better, and its standard error."""
        return self._aggregate(pool).value(self.oriented(scores, pool))

    def values(self, scores: Mapping[str, Sequence[float]], pool: str) -> tuple[float, ...]:
        """Return the objectives of a study that keeps its entries apart, higher is better."""
        return self._aggregate(pool).values(self.oriented(scores, pool))

    def about(self) -> dict[str, Any]:
        """Return what all trials share, as it is stored when a study begins."""
        steering = {task: e.fingerprint() for task, e in self.steering.items()}
        return {
            "format": 1,
            "study": dict(self.spec.data),
            "parents": {name: parent.digest for name, parent in self.parents.items()},
            "tasks": {task: e.fingerprint() for task, e in self.evaluators.items()},
            **({"steering": steering} if steering else {}),
            "score": self.aggregate.plain(),
            "pools": {name: self._pool_ids(self.pool(name)) for name in NAMES},
            "baselines": {name: r.plain() for name, r in self.spec.baselines.items()},
            "threads": self._threads,
            "placement": self.placement.where,
            "versions": {**{name: version(name) for name in LIBRARIES}, **self._host.versions},
        }

    def changed_parents(self, about: Mapping[str, Any]) -> list[str]:
        """Return the parents whose weights are not those that the study saw."""
        seen = about["parents"]
        return [n for n, parent in self.parents.items() if n in seen and parent.digest != seen[n]]

    def _aggregate(self, pool: str) -> Aggregate:
        return self.aggregate.on_search() if pool == SEARCH else self.aggregate

    def _pool_ids(self, pool: Pool) -> dict[str, list[str]]:
        return {task: [e.items[i].id for i in pool.of(task)] for task, e in self.evaluators.items()}


def _set_threads(wanted: int | None) -> int:
    import torch

    if wanted is not None:
        torch.set_num_threads(wanted)
    return torch.get_num_threads()
