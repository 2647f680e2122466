"""A toy study, run whole: baselines, search, select, report, samples, pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evaluators.answer import Answer
from merge_core.recipe.yaml_document import Document
from search.report import files as results
from search.report.summary import Report
from search.run import study as whole
from search.spec.study_file import StudySpec, of_document
from search.workers import hire, processes
from tests.faults.children import workers_begin_in
from tests.search import toy

# nine baselines, two generations, their mean
TEXT = toy.SHORT.replace("sampler: tpe", "sampler: cma-es").replace("trials: 4", "trials: 12")
WARM = workers_begin_in("tests.faults.whole")


def stored_in(url: str, folder: Path) -> StudySpec:
    """Return the toy study, in another storage."""
    return toy.spec_of(f"{TEXT}storage: '{url}'\n", folder)


class Task(toy.Task):
    """Says which model it is."""

    def answers(self, model: Any, which: Sequence[int]) -> list[Answer]:
        return [Answer(self.items[i].id, f"right {i}", f"by {model.digest}") for i in which]


class Toy(toy.Toy):
    """A toy that has answers, and may break.

    Args:
        spec: The study.
        before: Is told of every pool that is about to be scored, and of ``samples``.
    """

    def __init__(
        self, spec: StudySpec, before: Callable[[str], object] = lambda _: None, **more: Any
    ) -> None:
        super().__init__(spec, tasks=[Task(score.options.task) for score in spec.scores], **more)
        self._before = before

    def build(self, recipe: Any) -> str:
        digest = super().build(recipe)
        self.builder.live = self.live  # type: ignore[assignment]
        return digest

    def score(self, pool: str, blocks: Any = None) -> dict[str, list[float]]:
        self._before(pool)
        return super().score(pool, blocks)

    def _asked(self, *job: Any) -> Any:
        self._before("samples")
        return super()._asked(*job)


@dataclass(frozen=True)
class Opening:
    """Opens a toy in a worker's process; see ``search.workers.opening``."""

    study: Mapping[str, Any]
    folder: str

    def open(self) -> Toy:
        return Toy(of_document(Document("study", dict(self.study), {}), Path(self.folder)))


def run(
    spec: StudySpec,
    bench: Toy | None = None,
    stop: Callable[[], bool] = toy.never,
    heard: toy.Listener | None = None,
    workers: int = 1,
) -> Report | None:
    """Run a whole study, but for its model folder.

    Workers are copies of a process that has everything imported, so they start at once.
    """
    spec.folder.mkdir(parents=True, exist_ok=True)
    place = {"storage": spec.storage} if "storage" in spec.data else {}  # with its password
    (spec.folder / "study.yaml").write_text(json.dumps({**spec.data, **place}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hire, "Worker", lambda *_, **__: bench or Toy(spec))
        patch.setattr(hire, "Opening", lambda study, folder, **_: Opening(study, folder))
        patch.setattr(processes, "_SPAWN", WARM)
        patch.setattr(results, "write", lambda *_: None)
        return whole.run(spec.folder, heard or toy.Listener(), stop, staff=hire.Staff(workers))
