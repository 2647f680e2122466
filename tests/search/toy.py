"""A study without a model: the "model" is the recipe's weights, tensor by tensor.

Every parent is a point in the plane, every tensor of a candidate is the merge of those points, and
an item's score falls with the square of the distance to ``BEST``, moved a little for each item. So
the optimum is known, items differ, equal weights score equally, and a trial costs next to nothing.
"""

from __future__ import annotations

import functools
import math
import os
import signal
import struct
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import optuna
import sqlalchemy

from evaluators.protocol import Evaluator, Item, TaskFacts
from merge_core.architecture import layers
from merge_core.methods.registry import method
from merge_core.parents.residency import Placement
from merge_core.recipe import yaml_document
from merge_core.recipe.interpolate import value_of
from merge_core.recipe.schema import Recipe
from search.run.loop import search
from search.run.resume import about_of, open_for
from search.scoring.objectives import Opened, named
from search.space.space import Space
from search.spec.study_file import StudySpec, of_document
from search.storage.study_record import Record
from search.trial import racing
from search.trial.builder import Builder
from search.trial.known import Known
from search.trial.progress import Phase
from search.trial.settle import Underway, Wanted
from search.trial.tasks import Tasks
from search.trial.trial import Measurement, Trial
from search.trial.worker import Bench, Worker
from tests.places import place

LAYERS = 4
TENSORS = (
    "lm_head.weight",
    "model.embed_tokens.weight",
    *(
        f"model.layers.{i}.{part}.weight"
        for i in range(LAYERS)
        for part in ("input_layernorm", "mlp.up_proj", "self_attn.q_proj")
    ),
    "model.norm.weight",
)
STACK = layers.of(TENSORS)
PARENTS = {"org/base": (0.0, 0.0), "org/one": (1.0, 0.0), "org/two": (0.0, 1.0)}
BEST = (0.6, 0.3)  # so the best task arithmetic has weight 0.6 for one and 0.3 for two
STUDY = """
name: toy
recipe:
  merge_method: task_arithmetic
  base_model: org/base
  models:
    - {model: org/one, parameters: {weight: {low: 0.0, high: 1.5, per: 2}}}
    - {model: org/two, parameters: {weight: {low: 0.0, high: 1.5}}}
score:
  - {evaluator: lm_eval, task: gain}
  - {evaluator: lm_eval, task: loss, weight: 0.5}
items: {search: 20, select: 20, report: 20}
search: {sampler: random, seed: 3, trials: 6, finalists: 3, race: off}
"""
SHORT = """
name: short
recipe:
  merge_method: task_arithmetic
  base_model: org/base
  models:
    - {model: org/one, parameters: {weight: 0.8}}
    - {model: org/two, parameters: {weight: 0.4}}
  parameters: {lambda: {low: 0.0, high: 2.0, per: 2}}
score:
  - {evaluator: lm_eval, task: gain}
items: {search: 5, select: 5, report: 5}
search: {sampler: tpe, seed: 5, trials: 4, finalists: 3, race: off}
"""  # no level baselines, as none of its knobs turns the weight: 5 + 4 trials
BASELINES = (
    *("base", "parent:org/one", "parent:org/two", "uniform", "defaults"),
    *(f"simple:weight={level}" for level in ("0.3", "0.6", "0.9", "1.2", "1.5")),
)

Point = tuple[float, float]


@functools.cache
def noise(*names: object) -> float:
    """Return a number in [0, 1) that depends on the names alone."""
    digest = blake2b("\x1f".join(map(str, names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


@dataclass(frozen=True)
class Model:
    """What a recipe was built into: a point for every tensor."""

    points: tuple[Point, ...]

    @property
    def digest(self) -> str:
        flat = [x for point in self.points for x in point]
        return blake2b(struct.pack(f"{len(flat)}d", *flat), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Parent:
    """A parent's point, and the digest that stands for its weights."""

    point: Point
    folder = Path()  # of all: there are no files in which they could differ

    @property
    def digest(self) -> str:
        return blake2b(struct.pack("2d", *self.point)).hexdigest()

    @property
    def sums(self) -> dict[str, int]:
        return {"x": hash(self.point[0]), "y": hash(self.point[1])}


class Task(Evaluator):
    """``gain`` is better the higher it is, ``loss`` the lower; otherwise they are alike."""

    def __init__(self, task: str, count: int = 40, **more: Any) -> None:
        usual = {"unit": "points", "higher_is_better": task not in ("loss", "lossy")}
        items = tuple(Item(f"{task}-{i}", task) for i in range(count))
        super().__init__(TaskFacts(**{"task": task, "items": items, **usual, **more}))

    def fingerprint(self) -> str:
        return f"toy {self.task} 1"

    def score(self, model: Any, which: Sequence[int]) -> np.ndarray[Any, Any]:
        return np.array([self.score_one(model, self.items[i].id) for i in which])

    def score_one(self, model: Model, item: str) -> float:
        x, y = (best + 0.2 * (noise(item, i) - 0.5) for i, best in enumerate(BEST))
        loss = sum((a - x) ** 2 + (b - y) ** 2 for a, b in model.points) / len(model.points)
        loss += 0.1 * noise(item)
        return 1 - loss if self.higher_is_better else loss


class Toy(Worker):
    """A worker whose models are points; signs, values, pools and ``run`` are the real one's.

    Args:
        spec: The study, of method linear or task_arithmetic.
        parents: Where they stand now.
        tasks: The tasks, if not those of the study file.
        steering: What scores the search pool instead of some of them, by their places.
        about: What was stored when the study began.
    """

    def __init__(
        self,
        spec: StudySpec,
        *,
        parents: dict[str, Point] | None = None,
        tasks: Sequence[Task] | None = None,
        steering: Mapping[int, Task] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.spec, self._live = spec, None
        self.seen, self._began_with = {}, {}
        self.parents = {k: Parent(point) for k, point in (parents or PARENTS).items()}
        self.builder = ToyBuilder(self)
        names = [score.options.task for score in spec.scores]
        opened = named(spec, tasks or [Task(name) for name in names], steering)
        self.tasks = ToyTasks(self, opened, (about or {}).get("grown", ()))
        self.track = racing.track_of(spec, self.tasks, None)
        self.built: list[Recipe] = []
        self.scored: list[tuple[str, str]] = []  # (pool, weights digest)

    def build(self, recipe: Recipe) -> str:
        self.built.append(recipe)
        self.live = self.model(recipe)
        return self.live.digest

    def score(self, pool: str, blocks: Any = None) -> dict[str, list[float]]:
        if self.scored[-1:] != [(pool, self.live.digest)]:  # the blocks of one candidate count once
            self.scored.append((pool, self.live.digest))
        return Tasks.score(self.tasks, self.live, pool, blocks)  # type: ignore[arg-type]

    def model(self, recipe: Recipe) -> Model:
        where = tuple((name, parent.point) for name, parent in self.parents.items())
        return Model(tuple(merged(recipe, tensor, where) for tensor in TENSORS))

    @property
    def engine(self) -> dict[str, Any]:
        return {"engine": "toy"}


class ToyBuilder(Builder):
    """Builds what its toy says."""

    kernels, once, live = "toy", "nothing", None  # no tensor is merged
    placement = Placement("mapped", "they are points", 0)
    parents: Any = None
    behaviour: Any = {"org/base/config.json": "00ff"}  # noqa: RUF012
    tensor_digests: Any = {}  # noqa: RUF012
    tokenizer: Any = None

    def __init__(self, toy: Toy) -> None:
        self._toy, self._threads, self.parents = toy, toy.spec.engine.threads or 1, toy.parents
        self._spec = toy.spec
        self.space = Space(toy.spec.template, TENSORS)
        self._host: Any = SimpleNamespace(versions={}, use=lambda _: None)

    def plan(self, recipe: Recipe) -> Any:
        """Return nothing of a plan but the type: points have no weights."""
        return SimpleNamespace(dtype="float32")

    def build(self, recipe: Recipe) -> str:
        return self._toy.build(recipe)

    def check_files(self) -> None:
        """There are none."""


class ToyTasks(Tasks):
    """Scores as its toy says."""

    def __init__(self, toy: Toy, opened: Opened, grown: Sequence[int]) -> None:
        super().__init__(toy.spec, opened, grown)
        self._toy = toy

    def score(self, live: Any, pool: str, blocks: Any = None) -> dict[str, list[float]]:
        return self._toy.score(pool) if blocks is None else self._toy.score(pool, blocks)


@functools.cache
def merged(recipe: Recipe, tensor: str, where: tuple[tuple[str, Point], ...]) -> Point:
    """Return one tensor of a merge of parents that are at those points."""
    based = recipe.merge_method != "linear"
    origin = dict(where)[str(recipe.base_model)] if based else (0.0, 0.0)
    sources = [s.model for s in recipe.models if not (based and s.model == recipe.base_model)]
    points = [dict(where)[name] for name in sources]
    weights = [weight_of(recipe, name, tensor) for name in sources]
    total = 1 / weight_of(recipe, None, tensor, "lambda") if based else math.fsum(weights)
    x, y = (
        o + sum(w * (p[i] - o) for w, p in zip(weights, points, strict=True)) / total
        for i, o in enumerate(origin)
    )
    return x, y


def weight_of(recipe: Recipe, model: str | None, tensor: str, name: str = "weight") -> Any:
    """Return what the dialect's own rules give a tensor as a parameter, of a model or shared."""
    param = method(recipe.merge_method).param(name)
    own = next((dict(source.parameters) for source in recipe.models if source.model == model), {})
    given = [level[name] for level in (own, dict(recipe.parameters)) if name in level]
    return value_of(param, given, tensor, place(STACK, tensor))


@dataclass
class Listener:
    """Hears how a run goes."""

    total: int = 0
    resumed: int = 0
    hours: float | None = None
    trials: list[Any] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    left: list[float | None] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def begin(
        self, total: int, settled: list[Any], hours: float | None = None, workers: int = 1
    ) -> None:
        self.total, self.resumed, self.hours = total, len(settled), hours

    def settled(self, trial: Any) -> None:
        self.trials.append(trial)

    def phase(self, name: Phase) -> None:
        if name not in self.phases[-1:]:
            self.phases.append(name)

    def stage(self, text: str, left: float | None = None) -> None:
        self.stages.append(text)
        self.left.append(left)

    def notice(self, text: str) -> None:
        self.notices.append(text)


def never() -> bool:
    """Do not stop."""
    return False


def spec_of(text: str, folder: Path, **changes: Any) -> StudySpec:
    """Read a study from text, with some keys of its search section changed."""
    found = yaml_document.parse(text, "study.yaml")
    found.data.setdefault("search", {}).update(changes)
    return of_document(found, folder)


def searched(spec: StudySpec, bench: Toy | None = None, stop: Any = never) -> Record:
    """Start or resume a search in the study's storage, and return its record."""
    record = open_for(spec)
    search(spec, record, bench or Toy(spec), Listener(), stop)
    return record


def in_memory(spec: StudySpec, bench: Toy | None = None, before: Sequence[Trial] = ()) -> Record:
    """Search without a database, resuming from the trials ``before``, and return the record."""
    bench = bench or Toy(spec)
    directions = ["maximize"] * bench.tasks.aggregate.objectives
    record = Record(optuna.create_study(study_name=spec.name, directions=directions), "memory")
    about, sums = {**about_of(spec, bench), "folder": "."}, bench.facts()["tensors"]
    record.begin(about, bench.tasks.item_ids(), sums)
    for trial in before:
        record.add(trial, bench.builder.space.distributions())
    search(spec, record, bench, Listener(), never)
    return record


def forget_runs(record: Record) -> None:
    """Make a study one of an earlier version, which kept no runs."""
    record._attributes.set("runs", [])


def settle(bench: Bench, wanted: Wanted, *, number: int, earlier: Sequence[Trial]) -> Trial:
    """Build and score one recipe on the search pool, knowing all earlier trials."""
    known = Known(earlier)
    return Underway(bench, wanted, known).settled(number, known)


def kept(trials: Sequence[Trial]) -> list[Trial]:
    """Return trials without what differs between two runs: seconds, and lines of a traceback."""
    return [
        replace(
            trial,
            error=trial.error and trial.reason,
            measured={pool: replace(found, seconds={}) for pool, found in trial.measured.items()},
        )
        for trial in trials
    ]


def measured(record: Record, pool: str) -> dict[int, Measurement]:
    """Return trial number -> what was measured on a pool."""
    return {t.number: t.measured[pool] for t in record.trials if pool in t.measured}


def end_of_child(work: Callable[[], object]) -> int:
    """Run ``work`` in a copy of this process; return its exit code, or minus the signal's number.

    A copy has everything imported, so a run that is to be killed costs no start of Python.
    """
    with warnings.catch_warnings():  # since 3.12 fork warns of threads; none of them holds a lock
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die(*_: object) -> NoReturn:
    """End this process as ``kill -9`` does."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def die_at(event: str, count: int) -> None:
    """Die the ``count``-th time from now that an SQLAlchemy engine reports an event.

    ``before_cursor_execute`` comes before every statement, ``commit`` when a transaction's
    statements are executed and nothing is committed.
    """
    left = iter(range(count, 0, -1))

    def heard(*_: object) -> None:
        if next(left, 0) == 1:
            die()

    sqlalchemy.event.listen(sqlalchemy.Engine, event, heard)
