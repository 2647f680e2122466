"""Runs jobs: a recipe in, its weights' name and its scores out; both are values that travel."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from evaluators.answer import Answer
from evaluators.protocol import LiveModel
from merge_core.errors import MergeError
from merge_core.recipe.schema import Recipe
from merge_core.recipe.yaml_document import Document
from search.samplers.steps import Batch, Measured, Places
from search.spec import study_file
from search.spec.study_file import StudySpec
from search.trial import racing, router_file, routers, slopes
from search.trial.backends import check_device
from search.trial.builder import LIBRARIES, Builder
from search.trial.environment import ASKED
from search.trial.failure import Failure
from search.trial.layer_distances import measured_on
from search.trial.racing import NOBODY, Race, Track
from search.trial.tasks import SEARCH, Blocks, Scores, Tasks, open_tasks
from search.trial.trial import Fitted

T = TypeVar("T")
# in an engine's fingerprint, and compared or told by other records; each model has its own window
ELSEWHERE = (*LIBRARIES, "vllm", "tokenizer", "generation", "max_length", *ASKED)


@dataclass(frozen=True)
class Job:
    """Build a recipe, and score it.

    Args:
        recipe: What to build; the candidate that is live is not built again. Routers of a mixture
            that are to be trained are.
        pool: Whose items it is scored on: ``search``, ``select`` or ``report``.
        blocks: Which of them; None: all.
        known: Digests of weights that need no scores.
        expected: The digest of the only weights that are to be scored, if it is known.
        first: Whether to look first if every item of every pool fits the model.
        scored: Whether the pool is to be scored at all.
        learn: Items to learn from for a search by gradient: their slopes are measured.
        look: Held-out items of the search pool whose loss is measured for it.
        race: Whom it is raced against on the search pool, in a study that races.
        asks: Task -> places in the pool's order of items that are asked, not scored.
    """

    recipe: Recipe
    pool: str
    blocks: Blocks | None = None
    known: frozenset[str] = frozenset()
    expected: str | None = None
    first: bool = False
    scored: bool = True
    learn: Batch | None = None
    look: Places | None = None
    race: Race = NOBODY
    asks: Mapping[str, Sequence[int]] | None = None

    def wants_scores(self, digest: str) -> bool:
        """Return whether weights are to be scored."""
        return self.scored and digest not in self.known and self.expected in (None, digest)


@dataclass(frozen=True)
class Result:
    """What came of a job.

    Args:
        weights_digest: Of the candidate; "" where it could not be built.
        scores: Of each task, in the pool's order; of the first items where a race was lost; None
            where none were wanted, or it failed.
        seconds: ``build``, ``model`` (scoring) and where they apply ``routers`` and ``gradient``.
        failure: What was raised, if anything was.
        gradient: What was measured for a search by gradient, if that was asked for.
        recipe: What was built, where that is another one: with the routers that were trained.
        fitted: What their training was.
        answers: Task -> what was said to the items that were asked; not of tasks without answers.
        engine: What of the engine could change an answer, see ``Worker.engine``; where something
            was scored or asked.
    """

    weights_digest: str = ""
    scores: Scores | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    failure: Failure | None = None
    gradient: Measured | None = None
    recipe: Recipe | None = None
    fitted: Fitted | None = None
    answers: Mapping[str, Sequence[Answer]] | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)


class Bench(Protocol):
    """What the coordinator of a study has: the study opened, and somebody who does its jobs.

    ``Worker`` is one by itself, ``search.workers.crew.Crew`` has others do them.

    Attributes:
        spec, builder, tasks, track: Of the study.
        count: How many jobs can be done at a time.
        utilisation: Share of the time since the first job that workers were at work, in [0, 1];
            None where this process does all itself.
    """

    spec: StudySpec
    builder: Builder
    tasks: Tasks
    track: Track | None
    count: int

    @property
    def utilisation(self) -> float | None:
        """See above."""
        ...

    @property
    def seen(self) -> Mapping[str, Any]:
        """What the engine was whose scores were taken last, see ``check_engine``."""
        ...

    def submit(self, job: Job) -> Future[Result]:
        """Have a job done; jobs are begun in their order, and what one raises is its result."""
        ...

    def run(self, job: Job) -> Result:
        """Have a job done, and wait for it."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """Return what is stored of the parents and of the machine that does the jobs."""
        ...

    def told(self) -> Mapping[str, str]:
        """Return words for where and how candidates are built, see ``Worker.told``."""
        ...

    def angular(self, entry: str, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return how far layers turn the residual stream, see ``Worker.angular``."""
        ...

    def expect(self, engine: Mapping[str, Any]) -> None:
        """Hear which engine scores are to come from; nothing: from whichever."""
        ...

    def check_engine(self, result: Result) -> None:
        """Refuse scores by another engine than the study's, see ``Worker.check_engine``."""
        ...


class Worker:
    """Builds and scores candidates of one study, one at a time.

    It is made from plain values, in whichever process, and opens everything itself.

    Args:
        study: The study file as plain data.
        folder: Of the study file.
        about: What was stored when the study began, if it has begun.
        threads: Of the CPU, for a study that begins and whose file does not say.
        builds: Whether it will build candidates, so that the device must be there.
        places: Reference of a model -> where it lies here, if not where the study says.

    Raises:
        MergeError: The device is not there, a task cannot be opened, or the pools cannot be filled.
    """

    count = 1
    utilisation = None

    def __init__(
        self,
        study: Mapping[str, Any],
        folder: Path,
        about: Mapping[str, Any] | None = None,
        *,
        threads: int | None = None,
        builds: bool = True,
        places: Mapping[str, str] | None = None,
    ) -> None:
        stored = None if about is None else about["baselines"]
        self.spec = study_file.of_document(Document("study", study, {}), folder, stored)
        if builds:
            check_device(self.spec.engine)
        self.builder = Builder(self.spec, about, threads, places=places)
        grown = (about or {}).get("grown", ())
        self.tasks = open_tasks(self.spec, self.builder.tokenizer, grown)
        self.track = racing.track_of(self.spec, self.tasks, about)
        self._live: tuple[Recipe, str] | None = None
        self._trained: tuple[Recipe, Recipe, Fitted] | None = None  # asked for, made, and how
        self._began_with: Mapping[str, Any] = (about or {}).get("engine", {})
        self.seen: Mapping[str, Any] = {}

    def use(self, asked: Mapping[str, int]) -> None:
        """Score from now on as a run did, see ``Builder.use``."""
        if self.builder.use(asked):
            self._live = None

    def submit(self, job: Job) -> Future[Result]:
        """Do a job at once; see ``Bench``."""
        done: Future[Result] = Future()
        done.set_result(self.run(job))
        return done

    def facts(self) -> dict[str, Any]:
        """Return what is stored of the parents and the machine, see ``Builder.about``."""
        return self.builder.about()

    def told(self) -> dict[str, str]:
        """Return words for where and how candidates are built.

        ``kernels`` that merge them, ``parents`` and where they are kept, and what was computed
        ``once`` for all candidates so far.
        """
        placed = self.builder.placement
        where = f"{placed.where}: {placed.reason}"
        return {"kernels": self.builder.kernels, "parents": where, "once": self.builder.once}

    def angular(self, entry: str, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return ``[size - 1][first]`` -> how far a block of layers turns the residual stream.

        Args:
            entry: The model whose layers are measured.
            texts: That it reads.

        Raises:
            MergeError: It cannot be built.
        """
        self._live = None
        size = self.spec.engine.batch_size
        return measured_on(self.builder, entry, texts, size).angular

    def run(self, job: Job) -> Result:
        """Do a job; what it raises is part of the result, except what stops the process."""
        if job.asks is not None:
            return self._asked(job, job.asks)
        spent, digest = {"build": 0.0, "model": 0.0}, ""
        scores, failure, gradient, recipe, fitted = None, None, None, job.recipe, None
        engine: Mapping[str, Any] = {}
        try:
            self.builder.check_files()
            if router_file.asks(recipe):
                recipe, fitted = _timed(spent, "routers", lambda: self._with_routers(job.recipe))
            digest = _timed(spent, "build", lambda: self._built(recipe))
            if job.wants_scores(digest):
                live = self.builder.live
                if job.first:
                    self.tasks.check_fit(live)
                scores = _timed(spent, "model", lambda: self._scored(live, job))
                engine = self.engine
            if job.learn is not None or job.look is not None:
                gradient = _timed(spent, "gradient", lambda: self._measured(job))
            self.builder.check_files()
        except Exception as error:
            self._live = None
            failure, scores, gradient, recipe = Failure.of(error), None, None, job.recipe
        seconds = {k: round(v, 4) for k, v in spent.items()}
        made = None if recipe is job.recipe else recipe
        return Result(digest, scores, seconds, failure, gradient, made, fitted, engine=engine)

    def _asked(self, job: Job, asks: Mapping[str, Sequence[int]]) -> Result:
        digest, answers, failure = "", None, None
        engine: Mapping[str, Any] = {}
        try:
            self.builder.check_files()
            digest = self._built(job.recipe)
            if job.expected in (None, digest):
                answers = self.tasks.answers(self.builder.live, job.pool, asks)
                engine = self.engine
        except Exception as error:
            self._live = None
            failure = Failure.of(error)
        return Result(digest, failure=failure, answers=answers, engine=engine)

    @property
    def engine(self) -> dict[str, Any]:
        """What of the last candidate's engine could change an answer, beside what is stored.

        How experts are run is a fact of candidates that have some.
        """
        facts = json.loads(self.builder.live.engine.fingerprint())
        dense = {"experts"} if facts.get("experts") is None else set()
        return {key: x for key, x in facts.items() if key not in {*ELSEWHERE, *dense}}

    def expect(self, engine: Mapping[str, Any]) -> None:
        """Hear which engine scores are to come from; nothing: from the first that there is."""
        self._began_with = engine

    def check_engine(self, result: Result) -> None:
        """Refuse scores by another engine than the study's; ``seen`` is that of now.

        All scores of a run come from one engine, also where nothing was known of it before.

        Raises:
            MergeError: It is another.
        """
        self.seen, was = result.engine, self._began_with
        kept = [key for key in was if key not in ELSEWHERE]
        keys = [key for key in kept if key != "experts" or key in self.seen]
        keys = [key for key in keys if was[key] != self.seen.get(key)]
        if keys:
            now = [f"{key} was {was[key]!r} and is {self.seen.get(key)!r}" for key in keys]
            raise MergeError(
                f"the engine is not the one that the study has run with: {', '.join(now)}; scores "
                "of both are not mixed unasked: go on where it ran, or take what is here with "
                "--accept-environment"
            )
        self._began_with = {**self.seen, **was}

    def _scored(self, live: LiveModel, job: Job) -> Scores:
        if self.track is None or job.pool != SEARCH or job.blocks is not None:
            return self.tasks.score(live, job.pool, job.blocks)
        return racing.run(self.tasks, live, self.track, job.race)

    def _measured(self, job: Job) -> Measured:
        if job.look is not None:
            return slopes.looked(self.tasks, self.builder.live, job.look)
        assert job.learn is not None
        return slopes.learnt(self.builder, self.tasks, job.learn)

    def _with_routers(self, recipe: Recipe) -> tuple[Recipe, Fitted]:
        if self._trained is None or self._trained[0] != recipe:
            self._live = None
            seed = self.spec.search.seed
            made, fitted = self.builder.with_routers(
                recipe, lambda live, found: routers.fit(live, self.tasks, found, seed)
            )
            self._trained = recipe, made, fitted
        return self._trained[1:]

    def _built(self, recipe: Recipe) -> str:
        if self._live is None or self._live[0] != recipe:
            self._live = None
            self._live = recipe, self.builder.build(recipe)
        return self._live[1]


def _timed(spent: dict[str, float], name: str, work: Callable[[], T]) -> T:
    start = time.perf_counter()
    try:
        return work()
    finally:
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - start
